"""Whether the store proves itself: `finn verify --store`.

    manifests, linked by their hashes ─▶ snapshots, segments ─▶ tail ─▶ chunks and blobs that any of it names

Everything that is kept is read once and hashed; nothing is written, and a writer that works meanwhile is not disturbed:
what it removes while this reads was garbage, so a look is taken again where something is gone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from persistence import needs, segment
from persistence.blobs import Kind
from persistence.clock import Clock
from persistence.codec import blobs_in
from persistence.errors import Damaged, NotFound
from persistence.layout import KEPT, LogObject, Manifest, Seg, Snap, log_key, manifest_key
from persistence.remote import Tip, look, together
from persistence.segment import Span
from persistence.shelf import linked, opened_snapshot, verified, verified_body
from persistence.snapshot import Snapshot
from persistence.store import Store


@dataclass(frozen=True)
class Audit:
    """What was proven, and every fault as a sentence. Without a manifest there is nothing to prove."""

    ok: bool
    last_seq: int
    epoch: int
    manifest: int
    objects: int
    bytes: int
    problems: tuple[str, ...]


def audit(store: Store, *, clock: Clock) -> Audit:
    """Reads and proves all that the kept manifests name. Raises StoreError, Newer, Damaged (no manifest is sound)."""
    tip = look(store, clock=clock)
    if tip is None:
        return Audit(True, 0, 0, 0, 0, 0, ())
    reading = _Reading(store, tip)
    reading.all()
    problems = tuple(dict.fromkeys((*tip.problems, *reading.problems)))
    return Audit(not problems, tip.seq, tip.epoch, tip.m, reading.objects, reading.bytes, problems)


class _Reading:
    """What was read so far."""

    def __init__(self, store: Store, tip: Tip) -> None:
        self.problems: list[str] = []
        self.objects = 1 + len(tip.tail)  # the look has proven them
        self.bytes = sum(len(one.body) for one in tip.tail)
        self._store = store
        self._tip = tip
        self._chunks: set[str] = set()
        self._blobs: set[str] = set()

    def all(self) -> None:
        manifests = list(self._manifests())
        self._follow(self._tip)
        segs = {seg.key: seg for manifest in manifests for seg in manifest.segs}
        snaps = {snap.key: snap for manifest in manifests if (snap := manifest.snap)}
        known = {snap.seq: snap.chain for snap in snaps.values()}
        self._each([partial(self._seg, seg, known) for seg in segs.values()])
        self._each([partial(self._snap, snap) for snap in snaps.values()])
        for one in self._tip.tail:
            self._guarded(partial(self._object, one, known))
        self._each([partial(self._body, "chunk", sha) for sha in sorted(self._chunks)])
        self._each([partial(self._body, "blob", sha) for sha in sorted(self._blobs)])

    def _manifests(self) -> Iterable[Manifest]:
        """Those that are kept, newest first."""
        manifest = self._tip.manifest
        for _ in range(KEPT):
            yield manifest
            if manifest.m <= 1:
                return
            try:
                manifest = linked(self._store, manifest)
            except NotFound:
                return
            except Damaged as problem:
                if problem.message not in self.problems:
                    self.problems.append(problem.message)
                return
            self.objects += 1

    def _follow(self, tip: Tip) -> None:
        """The newest manifest's segments lead to one another and to the tail."""
        before = None
        for seg in (*tip.manifest.segs,):
            if before and seg.first == before.last + 1 and seg.chain_in != before.chain_out:
                self.problems.append(f"{seg.key} does not follow {before.key}")
            before = seg
        ends = (before.last, before.chain_out) if before else None
        if ends and ends != (tip.manifest.log_seq, tip.manifest.log_chain):
            self.problems.append(f"{manifest_key(tip.manifest.m)}: its tail does not follow its segments")
        if not tip.complete:
            self.problems.append("no state can be made of what is there: the log's beginning has no snapshot")

    def _seg(self, seg: Seg, known: Mapping[int, str]) -> None:
        body = verified(self._store, seg.key, seg.sha256, seg.bytes)
        self._read(len(body))
        self._span(segment.proven(body, seg.first, seg.last, seg.chain_in, seg.chain_out, seg.key, known), seg.key)

    def _object(self, one: LogObject, known: Mapping[int, str]) -> None:
        head = one.header
        ends = (head.first, head.last, head.chain_in, head.chain_out)
        self._span(segment.proven(one.body, *ends, log_key(head.n), known), log_key(head.n))

    def _span(self, span: Span, name: str) -> None:
        found = segment.frames(span.body, span.first, span.chain_in, name)
        self._blobs.update(blobs_in(one.line for one in found))

    def _snap(self, snap: Snap) -> None:
        data = verified(self._store, snap.key, snap.sha256, snap.bytes)
        self._read(len(data))
        snapshot = opened_snapshot(data, snap)
        self._chunks.update(needs.chunks(snapshot))
        self._blobs.update(_files(snapshot))

    def _body(self, kind: Kind, sha: str) -> None:
        try:
            data = verified_body(self._store, kind, sha)
        except NotFound as error:
            raise Damaged(f"{kind} {sha} is named and is not there") from error
        self._read(len(data))
        if kind == "chunk":
            self._blobs.update(blobs_in(data.splitlines()))

    def _read(self, size: int) -> None:
        self.objects += 1
        self.bytes += size

    def _each(self, calls: Iterable[Callable[[], None]]) -> None:
        together([partial(self._guarded, call) for call in calls])

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Damaged as problem:
            self.problems.append(problem.message)


def _files(snapshot: Snapshot) -> Iterable[str]:
    """The bytes of the files that there are, where the snapshot knows files."""
    section = snapshot.folds.get("files", {}).get("state", {})
    return (kept["sha256"] for kept in section.get("files", {}).values() if kept.get("sha256"))
