"""What the replica is made of: the names of its objects, and the bytes of those that finn writes itself.

    log/{n:016d}.wal                        the tail, one object a flush: a header line, then the log's frames
    seg/{first:016d}-{sha[:16]}.wal         frames only: the tail's objects put together, never changed
    snap/{seq:016d}-{sha[:16]}.json.z       a snapshot, as on disk
    manifest/{m:012d}.json                  which of these are the replica; each names the one before by its hash
    manifest/HINT                           {m, n}: where to begin to look; advice, may be old or damaged
    chunk/{sha}  blob/{sha}                 bodies and bytes, named by their hash
    orphans/{epoch}-{writer}/{first:016d}.wal     what a fenced writer had acknowledged: a log object of its own
    knock                                   {nonce}: a standby asks whether the writer lives

    m ─▶ m+1 ─▶ …   epoch goes up with every claim      n ─▶ n+1 ─▶ …   every object names the one before by its hash

Only `log/` and `manifest/` are written by create-if-absent; whoever writes n+1 proves that nobody else did.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any

from persistence.errors import Damaged
from persistence.snapshot import canonical

NOTHING = "0" * 64  #: the hash before the first object, and before the first manifest
HINT = "manifest/HINT"
KNOCK = "knock"


def log_key(n: int) -> str:
    return f"log/{n:016d}.wal"


def manifest_key(m: int) -> str:
    return f"manifest/{m:012d}.json"


def seg_key(first: int, sha: str) -> str:
    return f"seg/{first:016d}-{sha[:16]}.wal"


def snap_key(seq: int, sha: str) -> str:
    return f"snap/{seq:016d}-{sha[:16]}.json.z"


def chunk_key(sha: str) -> str:
    return f"chunk/{sha}"


def blob_key(sha: str) -> str:
    return f"blob/{sha}"


def orphan_key(epoch: int, writer: str, first: int) -> str:
    return f"orphans/{epoch}-{writer}/{first:016d}.wal"


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a log object. An empty one (`last` = `first` - 1) is a fence, or the answer to a knock.

    `previous` is the SHA-256 of the whole object n-1, `chain_in` and `chain_out` the log's digest before the first and
    after the last record, in hex. `nonce` tells an own object from another's, `answers` is the nonce of a knock.
    """

    n: int
    epoch: int
    writer: str
    previous: str
    first: int
    last: int
    chain_in: str
    chain_out: str
    nonce: str
    answers: str = ""
    bytes_sha256: str = ""


@dataclass(frozen=True, slots=True)
class LogObject:
    """A log object as it was read: its header, its frames, and the hash that the next one names."""

    header: Header
    body: bytes
    sha256: str


def encode_object(header: Header, body: bytes) -> LogObject:
    """The object with the hash of its body in its header. Its bytes are `bytes_of` it."""
    header = replace(header, bytes_sha256=sha256(body).hexdigest())
    return LogObject(header, body, sha256(_object(header, body)).hexdigest())


def bytes_of(one: LogObject) -> bytes:
    """What the store keeps."""
    return _object(one.header, one.body)


def decode_object(data: bytes, key: str) -> LogObject:
    """The log object in these bytes. Raises Damaged."""
    line, found, body = data.partition(b"\n")
    header = _read(Header, line, key)
    if not found or sha256(body).hexdigest() != header.bytes_sha256 or _object(header, body) != data:
        raise Damaged(f"{key} does not hold what its header says", hint="run finn verify --store")
    return LogObject(header, body, sha256(data).hexdigest())


def _object(header: Header, body: bytes) -> bytes:
    return canonical(asdict(header)) + b"\n" + body


@dataclass(frozen=True, slots=True)
class Seg:
    """A run of frames in the store. `sha256` is of its bytes."""

    key: str
    sha256: str
    bytes: int
    first: int
    last: int
    chain_in: str
    chain_out: str


@dataclass(frozen=True, slots=True)
class Snap:
    """A snapshot in the store: `sha256` of its bytes, the seq and the log's digest at which it was taken."""

    key: str
    sha256: str
    bytes: int
    seq: int
    chain: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the replica consists of. `segs` begin at the snapshot's floor; what comes after them is in log/`log_from`…

    `previous` is the `self_sha256` of manifest m-1. `released`: the writer stopped cleanly, its successor need not
    wait. `conditional` False: the store ignores conditions, nothing here is fenced. `archived` is the commit of the
    git tier that its writer made last. Log objects below `gc_boundary` may be gone.
    """

    m: int
    epoch: int
    writer: str
    release: str
    nonce: str
    previous: str
    snap: Snap | None
    segs: tuple[Seg, ...]
    log_from: int
    gc_boundary: int
    released: bool = False
    conditional: bool = True
    archived: str = ""
    self_sha256: str = ""


def encode_manifest(manifest: Manifest) -> tuple[Manifest, bytes]:
    """The manifest with its own hash, and its bytes."""
    body = asdict(replace(manifest, self_sha256=""))
    sealed = replace(manifest, self_sha256=sha256(canonical(body)).hexdigest())
    return sealed, canonical(asdict(sealed))


def decode_manifest(data: bytes, key: str) -> Manifest:
    """The manifest in these bytes. Raises Damaged."""
    manifest: Manifest = _read(Manifest, data, key)
    try:
        manifest = replace(
            manifest,
            snap=Snap(**manifest.snap) if isinstance(manifest.snap, Mapping) else None,
            segs=tuple(Seg(**seg) for seg in manifest.segs if isinstance(seg, Mapping)),
        )
    except TypeError as error:
        raise Damaged(f"{key} is no manifest: {error}", hint="run finn verify --store") from error
    if encode_manifest(manifest) != (manifest, data):
        raise Damaged(f"{key} does not have the hash it names", hint="run finn verify --store")
    return manifest


def _read(shape: type[Any], data: bytes, key: str) -> Any:
    """A flat dataclass from a JSON object with exactly its fields and kinds of values."""
    try:
        body = json.loads(data)
        names = {field.name for field in fields(shape)}
        if not isinstance(body, dict) or set(body) != names:
            raise ValueError("its fields are not those of this program's version")
        whole = {name for name, value in body.items() if type(value) is int and value < 0}
        if whole:
            raise ValueError(f"{', '.join(sorted(whole))} below zero")
        return shape(**body)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{key} cannot be read: {error}", hint="run finn verify --store") from error
