// Where what is said is kept: here, in the store, in git. Pure: what finn told in, words out.

import { count, size, span } from "./words.js";

/** What /health says of the copies. `seq` is the last record that this page was shown, which may be newer than the health. */
export function copiesIn(checks, seq = 0) {
  const last = Math.max(value(checks, "wal:lastSeq") ?? 0, seq);
  const store = tierIn(checks, "store", last);
  const git = tierIn(checks, "git", last);
  return { store, git, any: Boolean(store || git) };
}

// null: there is none. `has`: it has everything that was said, as far as anybody knows.
function tierIn(checks, name, last) {
  if (!Object.keys(checks).some((key) => key.startsWith(`${name}:`))) return null;
  const known = value(checks, `${name}:lagSeq`);
  const until = known === null ? null : (value(checks, "wal:lastSeq") ?? 0) - known;
  const failing = Boolean(value(checks, `${name}:lastError`));
  const behind = value(checks, `${name}:lagSeconds`) ?? 0;
  const has = !failing && (until === null ? behind === 0 : until >= last);
  return { failing, has, behind, failingFor: value(checks, `${name}:failingSeconds`) ?? behind };
}

/** The line when nothing is wrong. */
export function savedWords({ store, git }) {
  if (store?.has) return git?.has ? "Saved here, store and git" : "Saved here and in store";
  if (store) return "Saved here, store follows";
  return git?.has ? "Saved here and in git" : "Saved on this machine";
}

/** The sentence behind that line. */
export function savedDetail({ store, git }) {
  const said = ["Everything here is in finn's log on this machine's disk."];
  if (store) said.push(store.has ? "The store has a copy of all of it." : "The copy in the store follows within a second or two.");
  if (git) said.push(git.has ? "So has git." : `Git has all but the last ${span(git.behind)}; it is written once an hour.`);
  return said.join(" ");
}

/** "Store unreachable for 3 min", where it is known for how long. */
export const unreachableWords = ({ failingFor }) => (failingFor >= 1 ? `Store unreachable for ${span(failingFor)}` : "Store unreachable, saved here");

const NAMES = { local: "This machine", store: "The store", git: "Git" };
const TONES = { saved: "good", behind: "plain", unknown: "plain", failing: "warn" };
const CACHE = "a folder of caches or dependencies";

/** The rows of the sheet: each tier of /api/storage as { name, tone, words, place, error }. */
export function tierRows(storage, now) {
  return storage.tiers.map((tier) => ({ name: NAMES[tier.name] ?? tier.name, tone: TONES[tier.state] ?? "plain", place: tier.place,
    words: [having(tier, now), tier.bytes === null ? "" : size(tier.bytes)].filter(Boolean).join(" · "), error: tier.error ?? "" }));
}

function having(tier, now) {
  const lacks = count(tier.lag_seq, "record", "records");
  if (tier.state === "unknown") return "Has not answered yet";
  if (tier.state === "failing") return `Fails${tier.since ? ` for ${span(ago(tier.since, now))}` : ""}${tier.lag_seq ? `, lacks ${lacks}` : ""}`;
  if (tier.state === "behind") return `Lacks ${lacks} of the last ${span(tier.lag_s)}`;
  return tier.name === "local" || !tier.at ? "Has everything" : `Has everything, as of ${span(ago(tier.at, now))} ago`;
}

/** What is on this machine only, but for caches, which nobody misses. */
export const leftOut = (storage) => storage.left_out.filter((each) => each.why !== CACHE);

const ago = (iso, now) => Math.max(0, (now - Date.parse(iso)) / 1000);
const value = (checks, name) => checks[name]?.[0]?.observedValue ?? null;
