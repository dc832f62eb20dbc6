"""A log in memory with all that a snapshot leans on, and what a store gives back of it."""

import random
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count

from persistence import needs
from persistence.clock import FakeClock
from persistence.collection import collect, manifests
from persistence.compaction import Snapped, compact, snapped
from persistence.errors import Fenced, NotFound, StoreError
from persistence.layout import Manifest, blob_key, chunk_key, decode_object, log_key
from persistence.remote import look
from persistence.replica import Replica
from persistence.snapshot import Snapshot, decode
from persistence.store import Store
from tests.persistence.writers import Records, Writer


class Library(Records):
    """Records of one stream with blobs, sealed now and then, with files, and snapshots of it."""

    def __init__(self, rng: random.Random, blobs: float = 0.2) -> None:
        """`blobs` is the share of records whose text is one."""
        super().__init__()
        self.chunks: dict[str, bytes] = {}
        self.files: dict[str, str] = {}
        self.taken: Snapped | None = None
        self.refs: list[dict[str, object]] = []
        self.tail_first: int | None = None
        self._rng = rng
        self._share = blobs

    def talk(self, size: int = 200) -> None:
        """A record of about that size; now and then one whose text is a blob."""
        text = self._rng.randbytes(max(1, size // 2)).hex()
        blob = self._blob(text.encode()) if self._rng.random() < self._share else ""
        self.tail_first = self.tail_first or self.durable + 1
        self.say(text[:size] if not blob else f'","blobs":"{blob}', blobs=(blob,) if blob else ())

    def write(self, path: str, data: bytes) -> None:
        """A file that has these bytes now."""
        self.files[path] = self._blob(data)
        self.say(f'","sha256":"{self.files[path]}', blobs=(self.files[path],))

    def seal(self) -> None:
        """The stream's tail becomes a chunk."""
        if self.tail_first is None:
            return
        first, last = self.tail_first, self.durable
        data = b"".join(line[83:] for line in self.span(first, last).splitlines(keepends=True))
        sha = sha256(data).hexdigest()
        self.chunks[sha] = data
        self.refs.append({"sha256": sha, "first": first, "last": last, "count": 1, "bytes": len(data)})
        self.tail_first = None
        self.say(f'","sha256":"{sha}')

    def snapshot(self) -> Snapped:
        """What a snapshot of now is."""
        stream = {"chunks": list(self.refs), "tail_first": self.tail_first}
        folds = {"stream": {"v": 1, "state": {"s": stream}}, "files": {"v": 1, "state": dict(self.files)}}
        data = Snapshot(self.durable, self.chain(self.durable), 1, folds).encode()
        self.taken = snapped(data, "snapshot")
        return self.taken

    def chunk(self, sha: str) -> bytes:
        if sha not in self.chunks:
            raise NotFound(f"there is no chunk {sha}")
        return self.chunks[sha]

    def _blob(self, data: bytes) -> str:
        sha = sha256(data).hexdigest()
        self.blobs[sha] = data
        return sha


class Ship:
    """An instance of the program at sea: it says things, brings them to a store that fails, and is relieved."""

    def __init__(self, store: Store, library: Library, clock: FakeClock) -> None:
        self.store = store
        self.library = library
        self.clock = clock
        self.replica: Replica | None = None
        self.relieved: list[Replica] = []
        self.mentions: dict[str, frozenset[str]] = {}
        self._names = count(1)

    def sail(self, rng: random.Random) -> None:
        """One step of the voyage."""
        steps = (self._talk, self._talk, self._flush, self._flush, self._compact, self._seal, self._claim, self._zombie)
        self.clock.advance(rng.choice((1.0, 60.0, 7200.0)))
        with suppress(StoreError):
            rng.choice(steps)(rng)

    def arrive(self) -> None:
        """All that is left to do, where nothing fails any more."""
        self._ready().flush()
        compact(self._ready(), self.library.taken)

    def _ready(self) -> Replica:
        if self.replica is None:
            self._claim(random.Random(0))
        assert self.replica is not None
        return self.replica

    def _talk(self, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 6)):
            self.library.talk(rng.choice((20, 200, 1500)))
        if rng.random() < 0.3:
            self.library.write(rng.choice("abc"), rng.choice((b"old", b"new", rng.randbytes(9))))

    def _flush(self, rng: random.Random) -> None:
        self._ready().flush()

    def _compact(self, rng: random.Random) -> None:
        replica = self._ready()

        def breathe() -> None:
            if rng.random() < 0.2:
                self._talk(rng)
                replica.flush()

        compact(replica, self.library.taken, breathe=breathe)

    def collect(self, rng: random.Random) -> None:
        """What nobody needs any more goes, while records come in."""
        replica = self._ready()

        def breathe() -> None:
            if rng.random() < 0.1:
                self._talk(rng)
                replica.flush()

        collect(replica, self.mentions, clock=self.clock, entropy=rng.randbytes, breathe=breathe)

    def _seal(self, rng: random.Random) -> None:
        self.library.seal()
        self.library.snapshot()

    def _claim(self, rng: random.Random) -> None:
        """Another instance takes over, with the same local log: what is not up yet is not lost."""
        writer = Writer(self.store, f"w{next(self._names)}", self.library)
        writer.clock = self.clock
        self.relieved += [self.replica] if self.replica else []
        self.replica = None
        self.replica = writer.replica()

    def _zombie(self, rng: random.Random) -> None:
        """One that was relieved goes on as if it were not."""
        if self.relieved and self.replica:
            with suppress(Fenced):
                old = rng.choice(self.relieved)
                rng.choice((lambda: compact(old, self.library.taken), old.flush, old.check, old.release))()


def restorable(store: Store, records: Library) -> int:
    """Proves that every kept manifest leads to the same end, with all that it leans on. Returns the end's seq."""
    tip = look(store, clock=FakeClock(), threads=1)
    if tip is None:
        return 0
    assert not tip.problems, tip.problems
    for manifest in manifests(store, tip.manifest):
        if not manifest.complete:
            continue  # the first of a log that begins in the middle: its snapshot comes with the next
        frames = b"".join(_frames(store, manifest, tip.n))
        floor = _floor(store, manifest)
        expected = records.span(floor, tip.seq)
        assert frames.endswith(expected), f"manifest {manifest.m} does not give the records {floor}-{tip.seq}"
        for sha in needs.mentioned(frames) & records.blobs.keys():
            assert store.get(blob_key(sha)) == records.blobs[sha]
        if manifest.snap:
            _whole(store, store.get(manifest.snap.key), records)
    return tip.seq


def _frames(store: Store, manifest: Manifest, last: int) -> Iterator[bytes]:
    for seg in manifest.segs:
        body = store.get(seg.key)
        assert sha256(body).hexdigest() == seg.sha256
        yield body
    for n in range(manifest.log_from, last + 1):
        yield decode_object(store.get(log_key(n)), log_key(n)).body


def _floor(store: Store, manifest: Manifest) -> int:
    return needs.floor(decode(store.get(manifest.snap.key), manifest.snap.key)) if manifest.snap else 1


def _whole(store: Store, data: bytes, records: Library) -> None:
    snapshot, text = needs.opened(data, "snapshot")
    for sha in needs.chunks(snapshot):
        chunk = store.get(chunk_key(sha))
        assert sha256(chunk).hexdigest() == sha
        for blob in needs.quoted(chunk) & records.blobs.keys():
            assert store.get(blob_key(blob)) == records.blobs[blob]
    for blob in needs.quoted(text) & records.blobs.keys():
        assert store.get(blob_key(blob)) == records.blobs[blob]
