// The server over HTTP: one function for each thing the page asks. The cookie is the browser's business; no token is kept.
// Every address is relative to the page: finn may stand under a path.

/** An answer that is not 2xx, or none at all (status 0, code "unreachable"). `hint` says what to do. */
export class ApiError extends Error {
  constructor(status, { code, detail, title, hint }, retryAfter) {
    super(detail ?? title ?? "The server gave no reason.");
    this.status = status;
    this.code = code ?? "unknown";
    this.hint = hint ?? "";
    this.retryAfter = retryAfter;
  }
}

let onUnauthorized = () => {};

/** Sets what happens when the server no longer knows who this is; the error is thrown all the same. */
export function whenUnauthorized(run) {
  onUnauthorized = run;
}

export const login = (token) => ask("POST", "/login", { token });
export const logout = () => ask("POST", "/logout", {});
export const stop = (id) => ask("POST", `/api/sessions/${id}/stop`, {});
export const health = () => ask("GET", "/health", undefined, [503]);
export const storage = () => ask("GET", "/api/storage");
export const tasks = () => ask("GET", "/api/tasks");
export const runTask = (name) => ask("POST", `/api/tasks/${encodeURIComponent(name)}/run`, {});
export const beads = () => ask("GET", "/api/beads?limit=1000");
export const readyBeads = () => ask("GET", "/api/beads/ready?limit=1000");
export const doctor = () => ask("GET", "/doctor");
export const mend = (ids) => ask("POST", "/doctor/fix", { ids });
export const undoMending = (id) => ask("POST", "/doctor/undo", { id });
export const sessions = (after) => ask("GET", `/api/sessions?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`);
export const session = (id) => ask("GET", `/api/sessions/${id}`);
export const createSession = (title) => ask("POST", "/api/sessions", { title });
export const renameSession = (id, title) => ask("PATCH", `/api/sessions/${id}`, { title });
export const deleteSession = (id) => ask("DELETE", `/api/sessions/${id}`);
export const restoreSession = (id) => ask("POST", `/api/sessions/${id}/restore`, {});
export const messages = (id, before = Number.MAX_SAFE_INTEGER) => ask("GET", `/api/sessions/${id}/messages?before=${before}&limit=60&notes=true`);
export const exportPath = (id) => `api/sessions/${id}/export?format=md`;

async function ask(method, path, body, alsoFine = []) {
  const response = await send(method, path, body);
  const answer = await read(response);
  if (response.ok || alsoFine.includes(response.status)) return answer;
  if (response.status === 401 && path !== "/login") onUnauthorized();
  throw new ApiError(response.status, answer ?? {}, Number(response.headers.get("Retry-After")) || null);
}

async function send(method, path, body) {
  const headers = { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) };
  try {
    return await fetch(`.${path}`, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new ApiError(0, { code: "unreachable", detail: "finn does not answer.", hint: "Is it running on this address?" }, null);
  }
}

async function read(response) {
  const text = await response.text();
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return { detail: `The server answered ${response.status} with something that is not JSON.` };
  }
}
