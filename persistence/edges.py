"""What a bead depends on: edges that are added, taken away, and refused where a bead would wait for itself.

asked: "blocks:bd-1", "bd-1", {"type", "depends_on_id"} ─▶ [(kind, id)] ─▶ dependencies, one to each bead
"""

from collections.abc import Iterable, Mapping

from persistence.bead import Bead
from persistence.errors import Ambiguous, Circular, Invalid, NotFound
from persistence.events import Json
from persistence.ready import BLOCKING, EXTERNAL, PARENT, ById, resolve

EDGES = (
    *BLOCKING,
    *(PARENT, "related", "discovered-from", "replies-to", "relates-to", "duplicates", "supersedes", "caused-by"),
)


def find(board: ById, name: str) -> Bead:
    """The bead that a name or a part of one means. Raises NotFound, Ambiguous."""
    found = resolve(name, board)
    if not found:
        raise NotFound(f"there is no bead {name[:64]!r}", hint="finn beads list shows them")
    if len(found) > 1:
        raise Ambiguous(f"{name[:64]!r} is part of {', '.join(found[:5])}", hint="say more of the id")
    return board[found[0]]


def edges_of(asked: Json) -> list[tuple[str, str]]:
    """`blocks:bd-1` and {"type", "depends_on_id"} alike; a bare id means `blocks`."""
    found = []
    for one in asked or ():
        if isinstance(one, str):
            kind, _, target = one.partition(":")
            found.append((kind, target) if kind in EDGES else ("blocks", one))
        else:
            found.append((str(one.get("type") or "blocks"), str(one.get("depends_on_id") or "")))
    return found


def linked(board: ById, bead: Bead, edges: Iterable[tuple[str, str]], at: str, author: str) -> Bead:
    """The bead with further edges; one to a bead that it has an edge to takes that one's place."""
    there = {str(edge["depends_on_id"]): dict(edge) for edge in bead.edges}
    for kind, name in edges:
        if kind not in EDGES:
            raise Invalid(f"{kind[:40]!r} is no kind of dependency", hint=f"there are {', '.join(EDGES)}")
        target = name if name.startswith(EXTERNAL) else _target(board, name)
        if target == bead.id:
            raise Circular(f"{bead.id} cannot depend on itself", hint="name another bead")
        if there.get(target, {}).get("type") != kind:
            edge = {"issue_id": bead.id, "depends_on_id": target, "type": kind, "created_at": at}
            there[target] = {**edge, "created_by": author, "metadata": "{}", "thread_id": ""}
            _refuse_circle(board, bead.id, target, kind)
    wanted = [there[target] for target in sorted(there)]
    return bead if wanted == list(bead.edges) else bead.having({"dependencies": wanted})


def _target(board: ById, name: str) -> str:
    try:
        return find(board, name).id
    except NotFound as error:
        raise Circular(error.message, hint=error.hint) from None


def _refuse_circle(board: ById, start: str, target: str, kind: str) -> None:
    if kind not in (*BLOCKING, PARENT):
        return
    front, seen = {target}, {target}
    while front:
        if start in front:
            raise Circular(f"{start} would wait for itself, by way of {target}", hint="take one dependency away")
        front = {
            str(edge["depends_on_id"])
            for name in front
            if name in board
            for edge in board[name].edges
            if edge["type"] in (*BLOCKING, PARENT)
        } - seen
        seen |= front


def relinked(board: ById, bead: Bead, fields: Mapping[str, Json], at: str, author: str) -> Bead:
    """The bead with the edges that a change asks for: further ones, fewer, another parent."""
    edges = edges_of(fields.get("dependencies"))
    gone = {find(board, one).id if one in board else one for one in fields.get("remove_dependencies") or ()}
    if "parent" in fields:
        gone |= {str(edge["depends_on_id"]) for edge in bead.edges if edge["type"] == PARENT}
        edges += [(PARENT, fields["parent"])] if fields["parent"] else []
    if gone:
        bead = bead.having({"dependencies": [dict(e) for e in bead.edges if e["depends_on_id"] not in gone]})
    return linked(board, bead, edges, at, author)
