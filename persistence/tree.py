"""What a commit of the archive holds, and how git is told.

    STATE.json                      {seq, chain_sha, epoch, manifest, state_sha, …}: what this commit is
    snapshot.json                   the whole snapshot, canonical JSON
    sessions/<id>/<first>.jsonl     a sealed chunk, written once        tail.jsonl   the records that no chunk holds yet
    grimoires/…  workspace/…        the files, as they are
    .beads/issues.jsonl             the beads, as br reads them
    blobs/ab/cdef…                  long texts, and files whose names git or a server would not take

Everything but STATE.json and the tails is proven by the hash under which the snapshot knows it, so a restore believes
no name in a tree. That is also why a commit knows without reading what has not changed since the one before. The file
of the beads is for people and for br: the snapshot itself holds them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

from persistence.errors import Damaged, Newer
from persistence.picture import Picture
from persistence.snapshot import Snapshot, parse, state_sha

STATE = "STATE.json"
SNAPSHOT = "snapshot.json"
TAIL = "tail.jsonl"
SESSIONS = "sessions/"
BLOBS = "blobs/"
BEADS = ".beads/issues.jsonl"
VERSION = 1  #: of this layout
AUTHOR = "finn <finn@localhost>"

PLAIN, EXECUTABLE, LINK = "100644", "100755", "120000"

Kind = Literal["text", "chunk", "blob"]


class Entry(NamedTuple):
    """A file of the tree: its mode, the SHA-256 of its bytes, and where those are (`text` has them itself)."""

    mode: str
    sha256: str
    kind: Kind
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class State:
    """What a commit says it is. `tails` are the hashes of the tails' bytes by session, `commit` its id in git."""

    seq: int
    chain_sha: str
    epoch: int
    manifest: int
    state_sha: str
    time: int
    snapshot_sha256: str
    tails: Mapping[str, str] = field(default_factory=dict)
    v: int = VERSION
    commit: str = ""

    def encode(self) -> bytes:
        """The bytes of STATE.json."""
        body = asdict(self)
        del body["commit"]
        return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"


def decode(data: bytes, commit: str) -> State:
    """The state in the bytes of a commit's STATE.json. Raises Damaged, Newer."""
    name = f"{STATE} of commit {commit[:12]}"
    try:
        body = json.loads(data)
        if isinstance(body, dict) and isinstance(body.get("v"), int) and body["v"] > VERSION:
            raise Newer(f"{name} was written by a later release", hint="install that release")
        state = State(**body, commit=commit)
        numbers = (state.seq, state.epoch, state.manifest, state.time, state.v)
        texts = (state.chain_sha, state.state_sha, state.snapshot_sha256, *state.tails, *state.tails.values())
        if any(type(one) is not int or one < 0 for one in numbers) or not all(isinstance(one, str) for one in texts):
            raise ValueError("its values are not of the kinds they should be")
        if len(bytes.fromhex(state.chain_sha)) != 32:
            raise ValueError("its digest is none")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{name} cannot be read: {error}", hint="another source is used") from error
    return state


def state_of(picture: Picture) -> State:
    """What the commit of this picture will say."""
    return State(
        seq=picture.seq,
        chain_sha=picture.chain,
        epoch=picture.epoch,
        manifest=picture.manifest,
        state_sha=picture.state_sha,
        time=picture.time,
        snapshot_sha256=sha256(picture.text).hexdigest(),
        tails={name: _sha(lines) for name, lines in sorted(picture.tails.items())},
    )


def snapshot_of(state: State, text: bytes) -> Snapshot:
    """The snapshot in the bytes of snapshot.json, proven by what the commit says of it. Raises Damaged."""
    name = f"{SNAPSHOT} of commit {state.commit[:12]}"
    if sha256(text).hexdigest() != state.snapshot_sha256:
        raise Damaged(f"{name} does not have the hash that {STATE} names", hint="another source is used")
    taken = parse(text, name)
    if (taken.seq, taken.chain, state_sha(taken.folds)) != (state.seq, state.chain_sha, state.state_sha):
        raise Damaged(f"{name} is not of the record that {STATE} names", hint="another source is used")
    return taken


def entries(picture: Picture, state: bytes = b"") -> dict[str, Entry]:
    """Every file of the tree but the long texts, by its path. `state` are the bytes of STATE.json."""
    tree = {
        STATE: Entry(PLAIN, sha256(state).hexdigest(), "text", state),
        SNAPSHOT: Entry(PLAIN, sha256(picture.text).hexdigest(), "text", picture.text),
    }
    for name, ref in picture.chunks:
        tree[f"{SESSIONS}{name}/{ref.first:016d}.jsonl"] = Entry(PLAIN, ref.sha256, "chunk")
    for name, lines in picture.tails.items():
        tree[tail_path(name)] = Entry(PLAIN, _sha(lines), "text", _text(lines))
    if picture.beads:
        tree[BEADS] = Entry(PLAIN, sha256(picture.beads).hexdigest(), "text", picture.beads)
    return tree | _files(picture)


def _files(picture: Picture) -> dict[str, Entry]:
    """The files that are there. Under an odd name, or where another path goes through theirs, by their hash alone."""
    there = {path: kept for path, kept in picture.files.items() if kept.there}
    folders = {path[:at] for path in there for at, sign in enumerate(path) if sign == "/"}
    tree = {}
    for path, kept in there.items():
        usable = plain(path) and path not in folders
        if kept.link is not None:
            if usable:  # for people: a restore has it from the snapshot, as it has every name
                link = kept.link.encode(errors="surrogateescape")
                tree[path] = Entry(LINK, sha256(link).hexdigest(), "text", link)
        elif kept.sha256 is not None:
            mode = EXECUTABLE if kept.executable and usable else PLAIN
            tree[path if usable else blob_path(kept.sha256)] = Entry(mode, kept.sha256, "blob")
    return tree


def plain(path: str) -> bool:
    """Whether every git, server and file system takes the path for nothing but a name."""
    return all(_is_plain(part) for part in path.split("/"))


@lru_cache(maxsize=4096)
def _is_plain(part: str) -> bool:
    """`isprintable` refuses what some take for nothing (`.g\\u200cit`), `.git…` and `git~…` are git's own."""
    return (
        part not in ("", ".", "..")
        and part.isprintable()
        and "\\" not in part
        and len(part.encode()) < 256
        and not part.casefold().startswith((".git", "git~"))
    )


def blob_path(sha: str) -> str:
    return f"{BLOBS}{sha[:2]}/{sha[2:]}"


def tail_path(stream: str) -> str:
    return f"{SESSIONS}{stream}/{TAIL}"


def _text(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _sha(lines: Iterable[bytes]) -> str:
    return sha256(_text(lines)).hexdigest()


# ---------------------------------------------------------------- what git reads


def message(state: State) -> str:
    """A commit's message: for a person the first line, for a program the rest."""
    return (
        f"finn at record {state.seq}\n\n"
        f"Seq: {state.seq}\nChain: {state.chain_sha}\nEpoch: {state.epoch}\nManifest: {state.manifest}\n"
        f"State: {state.state_sha}\n"
    )


def begun(ref: str, text: str, time: int, parents: tuple[str, ...]) -> Iterator[bytes]:
    """The beginning of a commit for `git fast-import`: with the first parent's tree, to be changed."""
    yield b"feature done\ncommit %b\nmark :1\n" % ref.encode()
    yield b"committer %b %d +0000\n" % (AUTHOR.encode(), time)
    yield _data(text.encode())
    for word, parent in zip((b"from", *[b"merge"] * len(parents)), parents, strict=False):
        yield b"%b %b\n" % (word, parent.encode())


def written(path: str, mode: str, data: bytes) -> Iterator[bytes]:
    yield b"M %b inline %b\n" % (mode.encode(), quoted(path))
    yield _data(data)


def removed(path: str) -> bytes:
    return b"D %b\n" % quoted(path)


def ended() -> bytes:
    """The end, and the question for the commit's id. Without it git makes nothing of what it read."""
    return b"get-mark :1\ndone\n"


def quoted(path: str) -> bytes:
    """The path as git reads it: always in quotes, so that no byte of it means anything."""
    raw = path.encode(errors="surrogateescape")
    return (
        b'"'
        + b"".join(b"\\%03o" % byte if byte < 32 or byte > 126 or byte in b'"\\' else bytes((byte,)) for byte in raw)
        + b'"'
    )


def _data(data: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(data), data)
