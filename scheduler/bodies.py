"""Chunks and blobs, as the doctor finds them: each that something names is read, and has to hold what its name says.

state ─▶ chunks ─▶ blobs        files of the agent ─▶ blobs
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from persistence.blobs import Blobs
from persistence.chunks import ChunkRef
from persistence.codec import blobs_in
from persistence.errors import Damaged, FinnError, NotFound
from persistence.files import FILES
from persistence.streams import STREAMS
from scheduler.conversations import Conversation, Sessions


@dataclass(frozen=True)
class Kind:
    """One folder of them. `missing` and `damaged` are hashes, of those that are named; `spare` are named by nothing."""

    folder: Path
    named: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    spare: tuple[str, ...]

    def path(self, sha: str) -> Path:
        """Where it is kept."""
        return self.folder / sha[:2] / sha[2:]


@dataclass(frozen=True)
class Bodies:
    """`refs` and `files` say what a hash is of: a stretch of a session, or a file below the data directory."""

    chunks: Kind
    blobs: Kind
    refs: Mapping[str, tuple[str, ChunkRef]]
    files: Mapping[str, Path]


def looked_through(sessions: Sessions, conversations: Collection[Conversation]) -> Bodies:
    """All of them. Raises OSError."""
    folded, paths = sessions.past.folded, sessions.paths
    streams = folded.streams(STREAMS)
    refs = {ref.sha256: (name, ref) for name, stream in streams.items() for ref in stream.chunks}
    known = any(fold.name == FILES.name for fold in folded.folds)
    kept = folded.whole(FILES).files if known else {}
    files = {one.sha256: paths.root / name for name, one in kept.items() if one.sha256}
    held = blobs_in(one.line.encode() for one in sessions.past.held)
    named = dict.fromkeys([*files, *held, *(sha for one in conversations for sha in one.blobs)])
    read = {one.session for one in conversations if one.whole}  # then each of its chunks was read, and proven by that
    proven = {sha for sha, (name, _) in refs.items() if name in read}
    return Bodies(_kind(sessions, paths.chunks, refs, proven), _kind(sessions, paths.blobs, named), refs, files)


def _kind(sessions: Sessions, folder: Path, named: Iterable[str], proven: Collection[str] = ()) -> Kind:
    shelf, wanted = Blobs(sessions.disk, folder), dict.fromkeys(named)
    found: dict[type[FinnError], list[str]] = {NotFound: [], Damaged: []}
    for sha in (one for one in wanted if one not in proven):
        try:
            shelf.get(sha)
        except (NotFound, Damaged) as problem:
            found[type(problem)].append(sha)
    there = (f"{path.parent.name}{path.name}" for path in folder.glob("??/" + "?" * 62))
    spare = tuple(sorted(sha for sha in there if sha not in wanted))
    return Kind(folder, len(wanted), tuple(found[NotFound]), tuple(found[Damaged]), spare)


def holds(path: Path, sha: str) -> bytes | None:
    """The bytes of a file, where they are what this hash names."""
    if path.is_symlink() or not path.is_file():
        return None
    data = path.read_bytes()
    return data if sha256(data).hexdigest() == sha else None
