"""What nobody needs any more goes from the store, a day after nobody needed it.

    manifest m-7 … m     are kept, and all that they name        boundary: where the oldest of them begins in the log
    log/…                below the boundary                       first into a manifest, and only then deleted
    seg/ snap/           that none of them names
    chunk/ blob/         whose hash stands nowhere in them: not in a snapshot, a segment, a log object, a kept chunk

A writer that was stopped for hours and goes on could create an object whose name was collected; so the boundary stands
in a manifest before anything goes, nothing younger than a day goes, and who was silent for an hour reads the newest
manifest before it trusts its own success. A day is measured by the store's own clock: from an object's time to that of
the newest manifest. Whoever cannot be sure what is needed (a kept object that cannot be read) deletes no bodies.
"""

from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from itertools import chain, islice, takewhile
from typing import Literal

from persistence import needs
from persistence.blobs import Kind
from persistence.clock import Clock, Entropy
from persistence.compaction import Breathe, nobody_waits
from persistence.errors import Damaged, NotFound
from persistence.layout import (
    COLLECTED,
    HINT,
    KEPT,
    Manifest,
    chunk_key,
    decode_manifest,
    digest,
    encode_hint,
    log_key,
    manifest_key,
    number,
)
from persistence.replica import Replica
from persistence.store import Found, Store

AGE_S = 24 * 3600.0  #: what is younger is not collected, whatever it is
LISTED = 20_000  #: names looked at below one prefix in one run; the next begins elsewhere
PROVEN_S = 10.0  #: after so long it is proven again that the log is ours

Mentions = MutableMapping[str, frozenset[str]]  #: what a chunk mentions, by its name; a chunk never changes


# ---------------------------------------------------------------- decisions


def boundary(newest_first: Sequence[Manifest]) -> int:
    """Below which log objects may go once one more manifest stands, and the oldest of these is kept no longer."""
    return min(manifest.log_from for manifest in newest_first[: KEPT - 1])


def old(found: Found, now: float) -> bool:
    """Whether the object is old enough to go; `now` is of the store's clock."""
    return now - found.modified > AGE_S


def named(manifests: Iterable[Manifest]) -> frozenset[str]:
    """The keys of the segments and snapshots in these manifests."""
    keys: set[str] = set()
    for manifest in manifests:
        keys.update(seg.key for seg in manifest.segs)
        keys.update({manifest.snap.key} if manifest.snap else ())
    return frozenset(keys)


# ---------------------------------------------------------------- effects


def collect(
    replica: Replica, mentions: Mentions, *, clock: Clock, entropy: Entropy, breathe: Breathe = nobody_waits
) -> tuple[str, ...]:
    """Deletes what nobody needs; as sentences, what could not be decided.

    Called by the thread that flushes; `breathe` may flush, and nothing else.
    `mentions` is kept by the caller from one time to the next, so that a chunk is read once. Raises StoreError (it is
    done again another day), Fenced.
    """
    return _Sweep(replica, mentions, clock, entropy, breathe).run()


class _Sweep:
    """One run, from the proof that the log is ours to the last deletion."""

    def __init__(self, replica: Replica, mentions: Mentions, clock: Clock, entropy: Entropy, breathe: Breathe) -> None:
        self._replica = replica
        self._store: Store = replica.store
        self._mentions = mentions
        self._clock = clock
        self._entropy = entropy
        self._breathe = breathe
        self._proven = clock.monotonic()
        self._problems: list[str] = []

    def run(self) -> tuple[str, ...]:
        self._replica.prove()  # and settles what was sent and never answered: it may name what looks like garbage
        edge = boundary(self._kept())
        if edge > self._replica.manifest.gc_boundary:
            self._replica.publish(gc_boundary=edge)
        kept = self._kept()
        edge = self._replica.manifest.gc_boundary
        # Known to lie there before anything goes: a look that began at a hint from before would find a hole behind it.
        self._store.put(HINT, encode_hint(self._replica.manifest.m, self._replica.n))
        self._proven = self._clock.monotonic()
        self._now = self._store_now(kept[0])
        # From here on a blob that a flush names is put again, and what is known again is not deleted.
        self._replica.known.clear()
        self._delete(self._numbered("manifest", manifest_key(max(1, kept[0].m - KEPT + 1))))
        self._delete(self._numbered("log", log_key(edge)))
        keys = named(kept)
        self._delete(self._old(found for found in self._all("seg/", "snap/") if found.key not in keys))
        self._delete_bodies(kept, edge)
        return tuple(self._problems)

    def _kept(self) -> list[Manifest]:
        return manifests(self._store, self._replica.manifest, self._breathe)

    def _store_now(self, newest: Manifest) -> float:
        """The store's time, or what it was when the newest manifest was written."""
        self._breathe()
        listed = self._store.list("manifest/", manifest_key(newest.m - 1))
        return max((found.modified for found in listed), default=0.0)

    # ------------------------------------------------------------ what may go

    def _numbered(self, kind: Literal["log", "manifest"], before: str) -> Iterator[Found]:
        """The old objects of a numbered kind with a name before that one."""
        self._breathe()
        found = takewhile(lambda one: one.key < before, self._store.list(f"{kind}/"))
        return self._old(one for one in found if number(one.key, kind) is not None and one.bytes != len(COLLECTED))

    def _all(self, *prefixes: str) -> Iterator[Found]:
        for prefix in prefixes:
            self._breathe()
            yield from self._store.list(prefix)

    def _some(self, kind: Kind) -> Iterator[Found]:
        """The objects of a hashed kind; where there are very many, some of them, and others the next time."""
        self._breathe()
        start = f"{kind}/{self._entropy(32).hex()}"
        rest = takewhile(lambda one: one.key <= start, self._store.list(f"{kind}/"))
        return islice(chain(self._store.list(f"{kind}/", start), rest), LISTED)

    def _old(self, found: Iterable[Found]) -> Iterator[Found]:
        return (one for one in found if old(one, self._now))

    def _delete_bodies(self, kept: Sequence[Manifest], edge: int) -> None:
        try:
            mentioned, chunks = self._mentioned(kept, edge)
            self._delete(self._unmentioned("chunk", mentioned))
            blobs = list(self._unmentioned("blob", mentioned))
            if blobs:  # only then is it worth to read what the chunks say
                said = frozenset[str]().union(*(self._said(sha) for sha in sorted(chunks)))
                self._delete(iter([one for one in blobs if digest(one.key, "blob") not in said]))
        except (Damaged, NotFound) as error:
            self._problems.append(f"no chunk or blob was collected, for what is needed cannot be read: {error}")

    def _unmentioned(self, kind: Kind, mentioned: Collection[str]) -> Iterator[Found]:
        for found in self._old(self._some(kind)):
            sha = digest(found.key, kind)
            if sha is not None and sha not in mentioned:
                yield found

    # ------------------------------------------------------------ what is needed

    def _mentioned(self, kept: Sequence[Manifest], edge: int) -> tuple[set[str], set[str]]:
        """Every hash that stands in what is kept, but for chunks; and the chunks of the kept snapshots."""
        mentioned: set[str] = set()
        chunks: set[str] = set()
        for data in self._kept_bytes(kept, edge):
            mentioned |= needs.mentioned(data)
        for key in sorted({manifest.snap.key for manifest in kept if manifest.snap}):
            snapshot, text = needs.opened(self._get(key), key)
            chunks.update(needs.chunks(snapshot))
            mentioned |= needs.mentioned(text)
        return mentioned | chunks, chunks

    def _kept_bytes(self, kept: Sequence[Manifest], edge: int) -> Iterator[bytes]:
        for key in sorted({seg.key for manifest in kept for seg in manifest.segs}):
            yield self._get(key)
        for n in range(edge, self._replica.n + 1):
            yield self._get(log_key(n))
        for found in list(self._all("orphans/")):
            yield self._get(found.key)

    def _said(self, sha: str) -> frozenset[str]:
        """What a chunk mentions."""
        if sha not in self._mentions:
            try:
                data = self._replica.source.chunk(sha)
            except (Damaged, NotFound):
                data = self._get(chunk_key(sha))
            self._mentions[sha] = needs.mentioned(data)
        return self._mentions[sha]

    def _get(self, key: str) -> bytes:
        self._breathe()
        return self._store.get(key)

    # ------------------------------------------------------------ deleting

    def _delete(self, garbage: Iterator[Found]) -> None:
        for found in list(garbage):
            self._breathe()
            if found.key in self._replica.known:
                continue  # it was put again meanwhile
            self._prove()
            self._remove(found.key)

    def _remove(self, key: str) -> None:
        """The object is gone. Of the first manifest a mark stays, for that a log never began here proves nobody."""
        if key == manifest_key(1):
            self._store.put(key, COLLECTED)
        else:
            self._store.delete(key)

    def _prove(self) -> None:
        """Raises Fenced where another has the log: what it needs, we cannot know."""
        if self._clock.monotonic() - self._proven > PROVEN_S:
            self._replica.prove()
            self._proven = self._clock.monotonic()


def manifests(store: Store, newest: Manifest, breathe: Breathe = nobody_waits) -> list[Manifest]:
    """The newest manifests that are there and hold what they say, newest first; as many as are kept."""
    found = [newest]
    for m in range(newest.m - 1, max(newest.m - KEPT, -1), -1):
        breathe()
        try:
            found.append(decode_manifest(store.get(manifest_key(m)), manifest_key(m)))
        except (NotFound, Damaged):
            continue
    return found
