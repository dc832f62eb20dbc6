// The way in: one field for the token, and where the link is that makes typing unnecessary.

import * as api from "../api.js";
import { start } from "../start.js";
import { change, page } from "../page.js";
import { html, nothing, ref } from "../vendor.js";
import { mark } from "./parts.js";

export function loginView() {
  const { busy, error } = page.login;
  return html`
    <main class="gate">
      <form class="gate-card" data-testid="login-form" @submit=${submit}>
        ${mark()}
        <h1>Log in to finn</h1>
        <p>Open the login link that finn printed when it started. To print a new one, run <code>finn token</code> where it runs.</p>
        <label for="token">Or paste the token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required ${ref(focus)} spellcheck="false"
          aria-describedby="token-error" aria-invalid=${error ? "true" : "false"}>
        <p id="token-error" class="gate-error" role="alert">${error ?? nothing}</p>
        <button class="button primary" type="submit" ?disabled=${busy}>${busy ? "Logging in…" : "Log in"}</button>
      </form>
    </main>`;
}

function focus(field) {
  if (field) queueMicrotask(() => field.focus());
}

async function submit(event) {
  event.preventDefault();
  const field = event.target.elements.token;
  change({ login: { busy: true, error: null } });
  try {
    await api.login(field.value.trim());
    field.value = "";
    change({ login: { busy: false, error: null } });
    start();
  } catch (error) {
    change({ login: { busy: false, error: reason(error) } });
    field.select();
  }
}

function reason(error) {
  if (error.status === 401) return "That is not the token. Run finn token to see it.";
  if (error.status === 429) return `Too many wrong tokens. Try again in ${error.retryAfter ?? 60} s.`;
  return [error.message, error.hint].filter(Boolean).join(" ");
}
