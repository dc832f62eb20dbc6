// The status panel: asks how everything is while somebody looks at it, and does what its buttons say.

import * as api from "./api.js";
import { plansIn } from "./care.js";
import { change, page, toast } from "./page.js";

const EVERY = 4_000;
const DOCTOR_EVERY = 60_000; // an examination reads the disk, and asks the copies
let timer = 0;
let examined = 0;

// Each part of the panel is asked for by itself: one that is refused leaves the others standing.
const PARTS = {
  health: api.health,
  storage: api.storage,
  tasks: api.tasks,
  beads: async () => ({ all: await api.beads(), ready: await api.readyBeads() }),
};

/** Slides the panel in; what it shows comes as it is answered. */
export function openPanel() {
  examined = 0;
  change({ dialog: "panel", drawer: false, panel: { parts: {}, errors: {}, running: "", mending: null } });
  look();
}

/** Asks again at once, where the panel is open and somebody looks. */
export function look() {
  clearTimeout(timer);
  if (page.dialog !== "panel" || document.visibilityState === "hidden") return;
  timer = setTimeout(look, EVERY);
  Object.entries(PARTS).forEach(([name, ask]) => take(name, ask));
  if (Date.now() - examined > DOCTOR_EVERY && !page.panel.mending) examine();
}

function examine() {
  examined = Date.now();
  return take("doctor", api.doctor);
}

async function take(name, ask) {
  try {
    put(name, await ask());
  } catch (error) {
    if (page.panel) set({ errors: { ...page.panel.errors, [name]: error } });
  }
}

function put(name, value) {
  if (!page.panel) return;
  const { [name]: _, ...errors } = page.panel.errors;
  set({ parts: { ...page.panel.parts, [name]: value }, errors });
  if (name === "health") change({ health: value, reachable: true });
}

const set = (patch) => change({ panel: { ...page.panel, ...patch } });

// ── what the buttons do ──────────────────────────────────────────────────────────────────────────────────────────────

/** Runs a task now. What it raises is shown in its row; what refuses to run it, in a toast. */
export async function runTask(name) {
  set({ running: name });
  try {
    const task = await api.runTask(name);
    const { tasks } = page.panel?.parts.tasks ?? { tasks: [] };
    put("tasks", { tasks: tasks.map((one) => (one.name === name ? task : one)) });
  } catch (error) {
    toast(error.code === "forbidden_scope" ? "This needs the owner's token." : error.message);
  }
  if (page.panel) set({ running: "" });
  look();
}

/** Shows what mending would do: `mending` goes plan ─▶ busy ─▶ done, or failed. */
export function showPlan() {
  set({ mending: { step: "plan", plans: plansIn(page.panel.parts.doctor) } });
}

export function leavePlan() {
  set({ mending: null });
}

/** Mends what the shown plan names, and nothing else. */
export async function mend() {
  const { plans } = page.panel.mending;
  set({ mending: { step: "busy", plans } });
  try {
    const { fix, findings } = await api.mend(plans.map((plan) => plan.id));
    const sick = findings.filter((finding) => !["pass", "info"].includes(finding.severity));
    end({ step: "done", fix, sick });
  } catch (error) {
    end({ step: "failed", error });
  }
}

/** Puts back what the last mending replaced. */
export async function undo() {
  const { id } = page.panel.mending.fix;
  set({ mending: { step: "busy", plans: [] } });
  try {
    end({ step: "undone", restored: (await api.undoMending(id)).restored });
  } catch (error) {
    end({ step: "failed", error });
  }
}

async function end(mending) {
  if (!page.panel) return;
  set({ mending });
  await examine();
}
