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

Only `log/` and `manifest/` are written by create-if-absent; whoever writes n+1 proves that nobody else did. m and n
begin at 1. A header and a manifest are canonical JSON with the hash of themselves inside, so every byte is vouched for;
what does not say exactly what its name and its kind ask for is Damaged, and what a later release wrote is Newer.
"""

import json
import re
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any, Literal, TypeVar

from persistence.blobs import Kind
from persistence.errors import Damaged, Newer
from persistence.events import Json
from persistence.snapshot import canonical

Shape = TypeVar("Shape")

FORMAT = 1  #: of headers and manifests; what has a higher one is left to the release that wrote it
NOTHING = "0" * 64  #: the hash before the first object, and before the first manifest; the log's digest before seq 1
HINT = "manifest/HINT"
KNOCK = "knock"
COLLECTED = b"collected\n"  #: put in the place of manifest 1 when it goes, so that nobody can begin here again
PROVE = "run finn verify --store"
KEPT = 8  #: manifests that stay, and all that they name
LARGEST = 1 << 53  #: of every number: whole in the JSON of any reader

_HASHES = {
    *("sha256", "previous", "chain", "chain_in", "chain_out", "bytes_sha256", "self_sha256"),
    *("log_previous", "log_chain"),
}
_HASH = re.compile(r"[0-9a-f]{64}")
_WRITER = re.compile(r"[0-9A-Za-z_-]{1,64}")  # it is part of a key
_NUMBERED = {"log": re.compile(r"log/([0-9]{16})\.wal"), "manifest": re.compile(r"manifest/([0-9]{12})\.json")}
_NAMED = {kind: re.compile(rf"{kind}/({_HASH.pattern})") for kind in ("chunk", "blob")}
_ORPHAN = re.compile(rf"orphans/([0-9]{{1,15}})-({_WRITER.pattern})/([0-9]{{16}})\.wal")


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


def number(key: str, kind: Literal["log", "manifest"]) -> int | None:
    """The number in a key of that kind; None where it is no such key, and no business of ours."""
    match = _NUMBERED[kind].fullmatch(key)
    return int(match[1]) if match else None


def digest(key: str, kind: Kind) -> str | None:
    """The hash in a key of that kind; None as above."""
    match = _NAMED[kind].fullmatch(key)
    return match[1] if match else None


def orphan(key: str) -> tuple[int, str, int] | None:
    """The epoch, the writer and the first seq in the key of an object of orphans; None as above."""
    match = _ORPHAN.fullmatch(key)
    return (int(match[1]), match[2], int(match[3])) if match else None


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a log object. An empty one (`last` = `first` - 1) is a fence, or the answer to a knock.

    `previous` is the SHA-256 of the whole object n-1, `chain_in` and `chain_out` the log's digest before the first and
    after the last record, in hex; `chain_in` is empty where those before it are lost. `nonce` tells an own object from
    another's, `answers` is the nonce of a knock.
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
    v: int = FORMAT
    bytes_sha256: str = ""
    self_sha256: str = ""


@dataclass(frozen=True, slots=True)
class LogObject:
    """A log object as it was read: its header, its frames, and the hash that the next one names."""

    header: Header
    body: bytes
    sha256: str


def encode_object(header: Header, body: bytes) -> LogObject:
    """The object with the hashes of its body and of itself in its header. Its bytes are `bytes_of` it."""
    header = replace(header, bytes_sha256=sha256(body).hexdigest())
    header = replace(header, self_sha256=_hash(asdict(header)))
    return LogObject(header, body, sha256(_object(header, body)).hexdigest())


def bytes_of(one: LogObject) -> bytes:
    """What the store keeps."""
    return _object(one.header, one.body)


def decode_object(data: bytes, key: str) -> LogObject:
    """The log object in these bytes. Raises Damaged, Newer."""
    line, found, body = data.partition(b"\n")
    header = _read(Header, line, key)
    if not found or sha256(body).hexdigest() != header.bytes_sha256 or header.first > header.last + 1:
        raise Damaged(f"{key} does not hold what its header says", hint=PROVE)
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

    Where that begins is said, not inferred: `log_previous` is the hash of object log_from - 1, `log_seq` and
    `log_chain` the last seq before object log_from and the log's digest there. `previous` is the `self_sha256` of
    manifest m-1. `released`: the writer stopped cleanly, its successor need not wait. `conditional` False: the store
    ignores conditions, nothing here is fenced. `archived` is the commit of the git tier that its writer made last. Log
    objects below `gc_boundary` may be gone.
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
    log_previous: str
    log_seq: int
    log_chain: str
    gc_boundary: int
    released: bool = False
    conditional: bool = True
    archived: str = ""
    v: int = FORMAT
    self_sha256: str = ""

    @property
    def begins(self) -> int:
        """The first seq that the replica holds, apart from what its snapshot sums up."""
        return self.segs[0].first if self.segs else self.log_seq + 1

    @property
    def complete(self) -> bool:
        """Whether a state can be made of it: a log that begins later than at 1 needs the snapshot before that."""
        return self.begins == 1 or self.snap is not None


def encode_manifest(manifest: Manifest) -> tuple[Manifest, bytes]:
    """The manifest with its own hash, and its bytes."""
    sealed = replace(manifest, self_sha256=_hash(asdict(manifest)))
    return sealed, canonical(asdict(sealed))


def decode_manifest(data: bytes, key: str) -> Manifest:
    """The manifest in these bytes. Raises Damaged, Newer."""
    manifest = _read(Manifest, data, key)
    named = {seg.key: seg_key(seg.first, seg.sha256) for seg in manifest.segs}
    if manifest.snap:
        named[manifest.snap.key] = snap_key(manifest.snap.seq, manifest.snap.sha256)
    strays = [name for name, expected in named.items() if name != expected]
    if strays:
        raise Damaged(f"{key} names {strays[0]!r}, which is no name of what it should be", hint=PROVE)
    lasts = [0, *(seg.last for seg in manifest.segs)]
    in_order = all(last < seg.first <= seg.last for last, seg in zip(lasts, manifest.segs, strict=False))
    if not in_order or lasts[-1] > manifest.log_seq:
        raise Damaged(f"{key} has its segments in no order", hint=PROVE)
    return manifest


def encode_hint(m: int, n: int) -> bytes:
    return canonical({"m": m, "n": n})


def decode_hint(data: bytes) -> tuple[int, int]:
    """The manifest and the log object to begin with; zeros where the hint says nothing."""
    try:
        body = json.loads(data)
        return _field("m", int, body["m"]), _field("n", int, body["n"])
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return 0, 0


def encode_knock(nonce: str) -> bytes:
    return canonical({"nonce": nonce})


def decode_knock(data: bytes) -> str:
    """The nonce to answer with; empty where nobody asks in words that can be read."""
    try:
        nonce = json.loads(data)["nonce"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return ""
    return nonce if isinstance(nonce, str) and _WRITER.fullmatch(nonce) else ""


def _hash(body: dict[str, Json]) -> str:
    """The hash that a header or a manifest has inside: of itself with that field empty."""
    return sha256(canonical({**body, "self_sha256": ""})).hexdigest()


def _read(shape: type[Shape], data: bytes, key: str) -> Shape:
    """A dataclass from its canonical JSON. Every release proves the hash the same way before it looks at anything."""
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or canonical(body) != data or body.get("self_sha256") != _hash(body):
            raise ValueError("it does not have the hash it names")
        if type(body.get("v")) is int and body["v"] > FORMAT:
            raise Newer(f"{key} was written by a newer finn", hint="start the release that wrote it, or a later one")
        return _shaped(shape, body)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{key} cannot be read: {error}", hint=PROVE) from error


def _shaped(shape: type[Shape], body: Json) -> Shape:
    """A dataclass of exactly these fields, each of its kind. Raises ValueError."""
    kinds = {field.name: field.type for field in fields(shape)}  # type: ignore[arg-type]  # it is a dataclass
    if not isinstance(body, dict) or set(body) != set(kinds):
        raise ValueError(f"its fields are not those of a {shape.__name__}")
    return shape(**{name: _field(name, kinds[name], value) for name, value in body.items()})


def _field(name: str, kind: Any, value: Json) -> Any:
    if kind == tuple[Seg, ...] and isinstance(value, list):
        return tuple(_shaped(Seg, one) for one in value)
    if kind == Snap | None:
        return None if value is None else _shaped(Snap, value)
    right = type(value) is kind
    if kind is int:
        right = right and 0 <= value < LARGEST
    if name in _HASHES and not (name == "chain_in" and value == ""):
        right = right and _HASH.fullmatch(value) is not None
    if name == "v":
        right = right and value == FORMAT
    if name == "writer":
        right = right and _WRITER.fullmatch(value) is not None
    if not right:
        raise ValueError(f"its {name} is none")
    return value
