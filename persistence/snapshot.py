"""Folded state on disk, so that a start replays little.

    snapshots/{seq:016d}.json.z = zlib(canonical JSON)
    {seq, id, chain, epoch, folds: {name: {v, state}}, held: [{seq, stream, line}], state_sha}

`state_sha` is the SHA-256 of the canonical JSON of `folds`: the same state has the same hash, on every machine and by
every way of restoring. A snapshot counts only when it was read back and its hash is right; three are kept.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from persistence.disk import Disk, replace
from persistence.errors import Damaged
from persistence.events import Json

KEPT = 3
SUFFIX = ".json.z"
DIGITS = 16  #: of the seq in a name
OTHERWISE = "an older one or the log is used"


def canonical(data: Json) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def state_sha(sections: Mapping[str, Json]) -> str:
    """The hash by which two states are compared."""
    return hashlib.sha256(canonical(sections)).hexdigest()


@dataclass(frozen=True)
class Held:
    """A record that nobody here understands, carried on with its bytes until somebody does."""

    seq: int
    stream: str | None
    line: str


@dataclass(frozen=True)
class Snapshot:
    """State after the record `seq`, with its checksum and its id (empty where an older program wrote the snapshot)."""

    seq: int
    chain: str
    epoch: int
    folds: Mapping[str, Json]
    held: tuple[Held, ...] = ()
    id: str = ""

    @property
    def text(self) -> bytes:
        """Its canonical JSON."""
        body = {
            "seq": self.seq,
            "id": self.id,
            "chain": self.chain,
            "epoch": self.epoch,
            "folds": self.folds,
            "held": [{"seq": one.seq, "stream": one.stream, "line": one.line} for one in self.held],
            "state_sha": state_sha(self.folds),
        }
        return canonical(body)

    def encode(self) -> bytes:
        """The file's bytes."""
        return zlib.compress(self.text, 1)


def decode(data: bytes, name: str) -> Snapshot:
    """The snapshot in a file's bytes. Raises Damaged."""
    return parse(inflated(data, name), name)


def inflated(data: bytes, name: str) -> bytes:
    """The JSON in a file's bytes. Raises Damaged."""
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise Damaged(f"snapshot {name} cannot be read: {error}", hint=OTHERWISE) from error


def parse(text: bytes, name: str) -> Snapshot:
    """The snapshot in this JSON. Raises Damaged."""
    try:
        body = json.loads(text)
        snapshot = Snapshot(
            seq=body["seq"],
            chain=body["chain"],
            epoch=body["epoch"],
            folds={**body["folds"]},  # which must be an object
            held=tuple(Held(**one) for one in body["held"]),
            id=body.get("id", ""),
        )
        intact = state_sha(snapshot.folds) == body["state_sha"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"snapshot {name} cannot be read: {error}", hint=OTHERWISE) from error
    if not intact:
        raise Damaged(f"snapshot {name} does not have the hash it names", hint=OTHERWISE)
    return snapshot


def path_of(directory: Path, seq: int) -> Path:
    """Where the snapshot at `seq` is kept."""
    return directory / f"{seq:0{DIGITS}d}{SUFFIX}"


def listed(directory: Path) -> tuple[Path, ...]:
    """The snapshot files, newest first. Whatever else lies there must not pass for a newer one."""
    return tuple(sorted(directory.glob("[0-9]" * DIGITS + SUFFIX), reverse=True))


def write(disk: Disk, directory: Path, snapshot: Snapshot) -> Path:
    """Writes a snapshot, proves it by reading it, and lets go of all but the newest three. Raises Damaged."""
    path = path_of(directory, snapshot.seq)
    replace(disk, path, snapshot.encode())
    decode(path.read_bytes(), path.name)
    for old in listed(directory)[KEPT:]:
        disk.unlink(old)
    return path
