"""A replica made by hand, object by object, from a journal: what a store holds after a life."""

import dataclasses
import random
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from persistence.journal import Journal
from persistence.layout import (
    NOTHING,
    Header,
    LogObject,
    Manifest,
    Seg,
    Snap,
    blob_key,
    bytes_of,
    chunk_key,
    encode_hint,
    encode_manifest,
    encode_object,
    log_key,
    manifest_key,
    seg_key,
    snap_key,
)
from persistence.needs import floor
from persistence.snapshot import decode, listed
from persistence.stores.memory import MemoryStore
from persistence.streams import STREAMS
from tests.persistence.journals import STREAM, answer, commit, ended, opened, say

WRITER = "01ARZ3NDEKTSV4RRFFQ69G5WRT"
LONG = "x" * 300_000  #: longer than a record holds
NO_LIMIT = 1 << 30


class Life(NamedTuple):
    """A data directory that was lived in, and what its state was in the end."""

    root: Path
    seq: int
    chain: str
    state_sha: str


class Hand:
    """Writes objects as a writer would, one call each."""

    def __init__(self, store: MemoryStore, epoch: int = 1, start: tuple[int, str] = (0, NOTHING)) -> None:
        self.store = store
        self.epoch = epoch
        self.n = 0
        self.previous = NOTHING
        self.seq, self.chain = start
        self.segs: list[Seg] = []
        self.snap: Snap | None = None
        self.log_from = 1
        self.log_previous, self.log_seq, self.log_chain = NOTHING, *start
        self.manifests: list[Manifest] = []

    def log(self, journal: Journal, *, upto: int, limit: int = NO_LIMIT) -> None:
        """The log's records up to `upto`, in objects of at most `limit` bytes."""
        while self.seq < upto:
            run = journal.frames(self.seq, limit)
            if run.last > upto:
                raise AssertionError("a run that reaches too far: choose a smaller limit")
            for sha in run.blobs:
                self.store.put(blob_key(sha), journal.blob(sha))
            self._object(run.first, run.last, run.chain_in or self.chain, run.chain_out, run.body)

    def _object(self, first: int, last: int, chain_in: str, chain_out: str, body: bytes) -> LogObject:
        header = Header(
            self.n + 1, self.epoch, WRITER, self.previous, first, last, chain_in, chain_out, f"{self.n:032x}"
        )
        one = encode_object(header, body)
        self.store.create(log_key(one.header.n), bytes_of(one))
        self.n, self.previous, self.seq, self.chain = one.header.n, one.sha256, last, chain_out
        return one

    def seg(self, journal: Journal, first: int, last: int) -> Seg:
        """A segment of the log's records first..last, put there."""
        bodies, chain_in, chain_out, seq = [], "", "", first - 1
        while seq < last:
            run = journal.frames(seq, 1)
            chain_in, chain_out, seq = chain_in or run.chain_in, run.chain_out, run.last
            bodies.append(run.body)
        body = b"".join(bodies)
        sha = sha256(body).hexdigest()
        seg = Seg(seg_key(first, sha), sha, len(body), first, last, chain_in, chain_out)
        self.store.put(seg.key, body)
        return seg

    def snapshot(self, journal: Journal, index: int = 0) -> Snap:
        """The journal's newest snapshot (or an older one), with the chunks that it needs, put there."""
        data = listed(journal.paths.snapshots)[index].read_bytes()
        taken, sha = decode(data, "snapshot"), sha256(data).hexdigest()
        for state in taken.folds[STREAMS.name]["state"].values():
            for chunk in state["chunks"]:
                self.store.put(chunk_key(chunk["sha256"]), journal.chunk(chunk["sha256"]))
        snap = Snap(snap_key(taken.seq, sha), sha, len(data), taken.seq, taken.chain)
        self.store.put(snap.key, data)
        return snap

    def compact(self, journal: Journal, *, index: int = 0) -> None:
        """What the tail has goes into one more segment, the newest snapshot goes up, segments below its floor go."""
        if self.seq > self.log_seq:
            self.segs.append(self.seg(journal, self.log_seq + 1, self.seq))
        self.log_from, self.log_previous, self.log_seq, self.log_chain = self.n + 1, self.previous, self.seq, self.chain
        self.snap = self.snapshot(journal, index)
        low = floor(decode(self.store.get(self.snap.key), "snapshot"))
        self.segs = [seg for seg in self.segs if seg.last >= low]
        self.manifest()

    def manifest(self, **changes: object) -> Manifest:
        """The next manifest, of all that this hand has written."""
        before = self.manifests[-1] if self.manifests else None
        manifest = Manifest(
            m=before.m + 1 if before else 1,
            epoch=self.epoch,
            writer=WRITER,
            release="r",
            nonce=f"{len(self.manifests):032x}",
            previous=before.self_sha256 if before else NOTHING,
            snap=self.snap,
            segs=tuple(self.segs),
            log_from=self.log_from,
            log_previous=self.log_previous,
            log_seq=self.log_seq,
            log_chain=self.log_chain,
            gc_boundary=1,
        )
        manifest, data = encode_manifest(dataclasses.replace(manifest, **changes))  # type: ignore[arg-type]
        self.store.create(manifest_key(manifest.m), data)
        self.store.put("manifest/HINT", encode_hint(manifest.m, self.n))
        self.manifests.append(manifest)
        return manifest


async def lived(root: Path, store: MemoryStore, rng: random.Random, rounds: int = 4) -> Life:
    """A life of some rounds of talk, each sealed, snapshotted and compacted, and a tail that is in log objects only."""
    hand = Hand(store)
    hand.manifest()
    async with opened(root) as journal:
        for number in range(rounds):
            await _talk(journal, rng, f"round {number}")
            await journal.seal(STREAM)
            await _talk(journal, rng, f"unsealed {number}")
            await journal.snapshot()
            await say(journal, f"behind the snapshot {number}")
            hand.log(journal, upto=journal.seq, limit=1)
            hand.compact(journal)
        await _talk(journal, rng, "tail")
        hand.log(journal, upto=journal.seq, limit=1)
        return Life(root, journal.seq, journal._chain, journal.state_sha())


async def _talk(journal: Journal, rng: random.Random, about: str) -> None:
    for number in range(rng.randint(2, 5)):
        await say(journal, f"{about}, question {number}: {rng.getrandbits(64):x}")
        await commit(journal, answer(f"{about}, answer {number}: {rng.getrandbits(64):x}"), ended())
    if about.endswith("1"):
        await say(journal, f"{about} {LONG}")
