// Opens a session file with Pi's own SessionManager and tells what it sees, as JSON.
//   node open.mjs FILE SESSION_DIR

const pi = new URL("node_modules/@mariozechner/pi-coding-agent/dist/core/session-manager.js", import.meta.url);
const { SessionManager } = await import(pi);
const [file, folder] = process.argv.slice(2);
const session = SessionManager.open(file, folder);
const tree = (nodes) => nodes.map((node) => [node.entry.id, tree(node.children)]);

console.log(
  JSON.stringify({
    header: session.getHeader(),
    id: session.getSessionId(),
    cwd: session.getCwd(),
    name: session.getSessionName() ?? null,
    entries: session.getEntries(),
    leaf: session.getLeafId(),
    branch: session.getBranch().map((entry) => entry.id),
    tree: tree(session.getTree()),
    context: session.buildSessionContext(),
  }),
);
