#!/usr/bin/env bash
# Fetches the page's four libraries at pinned versions and writes them to gateway/static/vendor/:
#
#   NAME-VERSION.js            one ES module, minified, its licence comment kept
#   NAME-VERSION.LICENSE.txt   the licence as its authors ship it
#   hashes.json                {"FILE": "sha384-…"} of every other file there
#
# With --check nothing is fetched: the files on disk must match hashes.json exactly.
# Otherwise run it again at any time: the same versions give the same bytes, and where they do not, it says so and stops.
# To move to a new version, change it here, run with --accept, and name the new file in gateway/static/vendor.js.
# Needs node, npm and tar; npm fetches by its own configuration. esbuild is used here only, never by a user.
set -euo pipefail

cd "$(dirname "$0")/.."
vendor=gateway/static/vendor
mode="${1:-verify}"

hashes() { # prints the JSON of every file's sha384
    node -e '
        const fs = require("fs"), { createHash } = require("crypto"), dir = process.argv[1];
        const names = fs.readdirSync(dir).filter((name) => name !== "hashes.json").sort();
        const sha = (name) => "sha384-" + createHash("sha384").update(fs.readFileSync(dir + "/" + name)).digest("base64");
        console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, sha(name)])), null, 2));
    ' "$1"
}

same() { # compares a directory with the committed hashes
    diff -u "$vendor/hashes.json" <(hashes "$1") && echo "vendor: every hash matches"
}

if [[ "$mode" == --check ]]; then
    same "$vendor"
    exit
fi

lit_html=3.3.3
marked=18.2.1
dompurify=3.4.18
highlight=11.12.0
esbuild=0.28.2

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
echo '{"private": true}' >"$work/package.json"
npm install --prefix "$work" --silent --no-audit --no-fund --ignore-scripts --save-exact \
    "lit-html@$lit_html" "marked@$marked" "dompurify@$dompurify" "highlight.js@$highlight" "esbuild@$esbuild"

cat >"$work/lit-html.js" <<'JS'
export { html, svg, render, nothing } from "lit-html";
export { repeat } from "lit-html/directives/repeat.js";
export { guard } from "lit-html/directives/guard.js";
export { live } from "lit-html/directives/live.js";
export { ref } from "lit-html/directives/ref.js";
JS
echo 'export { Marked } from "marked";' >"$work/marked.js"
echo 'export { default } from "dompurify";' >"$work/dompurify.js"
{
    echo 'import hljs from "highlight.js/lib/core";'
    for language in bash css diff go ini javascript json markdown python rust sql typescript xml yaml; do
        echo "import $language from \"highlight.js/lib/languages/$language\"; hljs.registerLanguage(\"$language\", $language);"
    done
    echo 'export default hljs;'
} >"$work/highlight.js"

bundle() { # bundle NAME VERSION PACKAGE
    "$work/node_modules/@esbuild/$(node -p 'process.platform + "-" + process.arch')/bin/esbuild" "$work/$1.js" --bundle --minify --format=esm \
        --target=es2022 --conditions=production --legal-comments=inline --charset=utf8 --log-level=warning --outfile="$work/out/$1-$2.js"
    cp "$work/node_modules/$3/LICENSE" "$work/out/$1-$2.LICENSE.txt"
}
bundle lit-html "$lit_html" lit-html
bundle marked "$marked" marked
bundle dompurify "$dompurify" dompurify
bundle highlight "$highlight" highlight.js

if [[ "$mode" != --accept && -f "$vendor/hashes.json" ]]; then
    same "$work/out"
fi
rm -rf "$vendor"
mkdir -p "$vendor"
cp "$work/out"/* "$vendor/"
hashes "$vendor" >"$work/hashes.json"
mv "$work/hashes.json" "$vendor/hashes.json"
ls -l "$vendor"
