// The page's files as a whole. Run with: node --test tests/page/

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

const STATIC = new URL("../../gateway/static/", import.meta.url);
const text = (path) => readFileSync(new URL(path, STATIC), "utf8");
const files = readdirSync(STATIC, { recursive: true }).map(String).sort();
const modules = files.filter((path) => path.endsWith(".js") && path !== "early.js");
const ours = [...modules, "early.js"].filter((path) => !path.startsWith("vendor/"));

test("the vendored files are exactly those whose hashes are kept", () => {
  const hash = (name) => `sha384-${createHash("sha384").update(readFileSync(new URL(`vendor/${name}`, STATIC))).digest("base64")}`;
  const names = readdirSync(new URL("vendor/", STATIC)).filter((name) => name !== "hashes.json").sort();
  assert.deepEqual(Object.fromEntries(names.map((name) => [name, hash(name)])), JSON.parse(text("vendor/hashes.json")));
});

test("every vendored library comes with its licence", () => {
  const libraries = files.filter((path) => /^vendor\/.*\.js$/.test(path));
  const licences = libraries.map((path) => path.replace(/\.js$/, ".LICENSE.txt"));
  assert.deepEqual(licences.filter((path) => !files.includes(path)), []);
});

test("index.html preloads every module, so that none waits for another", () => {
  const preloaded = [...text("index.html").matchAll(/modulepreload" href="static\/([^"]+)"/g)].map((match) => match[1]);
  assert.deepEqual(preloaded.sort(), modules.filter((path) => path !== "app.js"));
});

test("index.html holds no script and no style of its own, as the policy demands", () => {
  assert.doesNotMatch(text("index.html"), /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/);
});

test("no module turns a string into markup or code, or names another host", () => {
  const forbidden = /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|unsafeHTML|https?:\/\//;
  assert.deepEqual(ours.filter((path) => forbidden.test(text(path))), []);
});

test("no address is built from the query, and from the hash only a session's id", () => {
  const readers = ours.filter((path) => /location\.search|URLSearchParams|location\.hash(?!\s*=[^=])/.test(text(path)));
  assert.deepEqual(readers, ["start.js"]);
});

test("nothing that could be a token is kept in the browser's storage", () => {
  const keepers = ours.filter((path) => /localStorage|sessionStorage|document\.cookie|indexedDB/.test(text(path)));
  assert.deepEqual(keepers.sort(), ["early.js", "keep.js", "theme.js"]);
  assert.deepEqual([...text("keep.js").matchAll(/[`"](finn\.[a-z]+)/g)].map((match) => match[1]).sort(), ["finn.draft", "finn.draft", "finn.outbox", "finn.outbox"]);
});
