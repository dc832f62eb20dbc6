"""One time that this process has the log: from its recovery to the fence, or to the stop.

    claimed at the start ───────────────────────┐
    the store was silent ─▶ claimed when it     ├▶ replicate ─▶ upkeep, orphans, collection ─▶ released, or fenced
     answers, if the log there is this one's past ┘ ◀── StoreLost: it was emptied or set back under us

Nothing here is called on the event loop that waits for the store: that is done in threads, which may hang.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from gateway.copies import Tier, Trouble
from gateway.ground import Ground, Writer
from gateway.replication import Replication, pause_s
from gateway.threads import Thread
from persistence import compaction, orphans, standby, unfenced
from persistence.ancestry import Place
from persistence.cascade import Recovered, beginning
from persistence.claim import Claimed, anew, overtaken
from persistence.collection import Mentions, collect
from persistence.errors import (
    Damaged,
    Fenced,
    FinnError,
    Headless,
    NotFound,
    OtherHistory,
    StoreError,
    StoreLost,
    first,
)
from persistence.journal import Journal
from persistence.layout import NOTHING, manifest_key
from persistence.orphans import ORPHANS
from persistence.relation import digest_at, is_after, relate
from persistence.remote import Tip, look
from persistence.replica import OBJECT_BYTES, Replica
from persistence.runs import between
from persistence.store import Store
from persistence.streams import STREAMS
from persistence.wal import Head

AGAIN_S = 0.25  #: between two attempts of the last flush
ELSEWHERE_S = 600.0  #: before a store with somebody else's history is looked at again

log = logging.getLogger("finn.primary")


class Here:
    """The log as it is copied: what this disk has, and what it still has to fetch.

    A snapshot is full of hashes, few of which are of blobs. Only for those that are known to be is another copy asked.
    """

    def __init__(self, journal: Journal) -> None:
        self.frames = journal.frames
        self.chunk = journal.chunk
        self._journal = journal
        self._absent: frozenset[str] = frozenset()

    @property
    def durable(self) -> int:
        return self._journal.durable

    def blob(self, sha: str) -> bytes:
        if sha not in self._absent and not self._journal.blobs.has(sha):
            raise NotFound(f"there is no blob {sha} here", hint="run finn verify")
        return self._journal.blob(sha)

    def look(self) -> None:
        """Sees anew what is not on this disk. Raises StorageError."""
        self._absent = frozenset(sha for _, sha in self._journal.missing())


class Primary:
    """The log of one life and its replica. `serve` must be running.

    `ground` says where in the store to write; it waits for the store and raises StoreError where that is not known.
    `replica` is there once the log is claimed and proven to be this one's. `missing` is how many chunks and blobs are
    only in the store yet.
    """

    def __init__(
        self, writer: Writer, store: Store, ground: Callable[[], Ground], journal: Journal, recovered: Recovered
    ) -> None:
        self.journal = journal
        self.replica: Replica | None = None
        self.replication: Replication | None = None
        self.claimed = recovered.claimed
        self.missing = 0
        self._writer = writer
        self._store = store
        self._ground = ground
        self._here = Here(journal)
        self._copying, self._filling = Thread("finn-replica"), Thread("finn-fill")
        self._mentions: Mentions = {}
        self._collected: int | None = None  # the last log object when garbage was searched for
        self._trouble = Trouble().heard(recovered.degraded, writer.clock.now())

    async def serve(self) -> None:
        """Claims the log if that is still to be done, and replicates it until it is cancelled. Raises Fenced."""
        while True:
            claimed = self.claimed or await self._claim_late()
            try:
                await self._replicate(claimed)
            except* StoreLost as lost:
                await self._begin_again(first(lost))

    async def _begin_again(self, lost: BaseException) -> None:
        """The store has not what it had confirmed: nothing here leans on that from now on, and it is claimed anew."""
        log.error("%s", lost)
        self._trouble = Trouble(str(lost), self._writer.clock.now())
        self.claimed = self.replica = self.replication = None
        with suppress(FinnError, OSError):  # which is about what could go now, and nothing is to go
            await self.journal.prune(0)

    async def _replicate(self, claimed: Claimed) -> None:
        writer = self._writer
        ground = await self._copying.run(self._ground)
        replica = self.replica = Replica(
            ground.own, claimed, self._here, release=writer.release, clock=writer.clock, entropy=writer.entropy
        )
        replication = self.replication = Replication(
            self.journal, replica, self._copying, writer.clock, writer.entropy, self._upkeep
        )
        await asyncio.to_thread(standby.unmark, writer.disk, writer.paths.root)
        async with asyncio.TaskGroup() as group:
            group.create_task(replication.serve())
            group.create_task(self._settle_in())

    # ------------------------------------------------------------ the claim of a start without the store

    async def _claim_late(self) -> Claimed:
        failures = 0
        while True:
            try:
                claimed = await self._copying.run(self._claim)
            except Fenced as fenced:
                self.journal.fence(fenced.message)
                raise
            except (FinnError, OSError) as error:
                self._trouble = self._trouble.heard(str(error), self._writer.clock.now())
                failures += 1
                elsewhere = isinstance(error, OtherHistory)
                await self._writer.clock.sleep(ELSEWHERE_S if elsewhere else pause_s(failures, self._writer.entropy))
            else:
                _tell(claimed.tip.problems)
                self.journal.reign(claimed.epoch, claimed.tip.problems)
                return claimed

    def _claim(self) -> Claimed:
        """Raises Fenced, and what may be tried again."""
        ground = self._ground()
        try:
            tip = look(ground.own, clock=self._writer.clock)
        except Headless:
            tip = None  # nothing can be made of what is there; what is here goes there again
        self._require_past(ground.own, tip)
        self.claimed = ground.claim(self._writer, tip, self.journal.epoch)
        writer = self._writer
        if self._require_past(ground.own, self.claimed.tip):  # between look and fence another may have brought more
            start = beginning(writer.disk, writer.paths)
            self.claimed = anew(ground.own, self.claimed, start, entropy=writer.entropy)
        return self.claimed

    def _require_past(self, store: Store, tip: Tip | None) -> bool:
        """The log in the store must be the beginning of this one. Raises Fenced, OtherHistory.

        Whether it ends before this one's records begin, so that what is between is only in the snapshot here.
        """
        if tip is None or not tip.seq:
            return False
        disk, wal, seq = self._writer.disk, self._writer.paths.wal, self.journal.durable
        chain = digest_at(disk, wal, seq) or NOTHING
        stand = relate(disk, wal, Head(seq, bytes.fromhex(chain), seq), store, tip)
        if stand.relation == "unrelated":
            journal = self.journal
            mine = Place(journal.epoch, seq, chain, frozenset(journal.streams(STREAMS)))
            if is_after(disk, wal, mine, journal.reigns, store, tip):
                return True
            raise OtherHistory(f"{store.url} holds another history", hint="choose another FINN_STORE_URL")
        if stand.relation not in ("same", "ahead"):
            raise overtaken(manifest_key(tip.m))
        return False

    # ------------------------------------------------------------ upkeep

    async def _upkeep(self) -> None:
        """After a flush: the tail is put together where it has grown long, or where nothing can be made of it alone."""
        replica = self.replica
        if replica is None:
            return
        _tell(replica.problems)
        replica.problems = ()
        if compaction.due(replica.tail_objects, replica.tail_bytes) or not replica.complete:
            await self._compact(replica)

    async def _compact(self, replica: Replica) -> None:
        """Puts the tail together, beside the newest snapshot, and lets go of what is no longer needed here."""
        if not replica.complete:
            await self.journal.snapshot()
        compacted = await self._copying.run(self._compacted, replica)
        _tell(compacted.problems)
        await self.journal.prune(compaction.settled(compacted.manifest))

    def _compacted(self, replica: Replica) -> compaction.Compacted:
        assert self.replication is not None
        snap = replica.manifest.snap
        taken = compaction.newest(self._writer.disk, self._writer.paths.snapshots, after=snap.seq if snap else 0)
        if taken is not None:
            self._here.look()
        return compaction.compact(replica, taken, breathe=self.replication.breathe)

    async def catch_up(self) -> None:
        """Everything that is durable now is in the store after this. Raises StoreError."""
        if self.replication is None:
            raise StoreError(self._trouble.error or f"{self._store.url} has not answered yet")
        await self.replication.catch_up()

    async def bring_orphans(self) -> None:
        """What fenced writers had acknowledged becomes part of the log, and goes from where they had put it."""
        journal, store = self.journal, self._store
        if self.replication is None:
            return
        await self.replication.catch_up()  # what is held back is not known to be brought in yet
        search = await self._filling.run(orphans.find, store, journal.whole(ORPHANS).done, journal.blobs)
        _tell(search.problems)
        for one in search.orphans:
            brought = await orphans.bring_in(journal, self._writer.disk, one)
            log.warning("brought in %d records that another instance had kept back", brought)
        if journal.whole(ORPHANS).done:
            await self.replication.catch_up()
            await self._filling.run(orphans.clear, store, journal.whole(ORPHANS).done, self.replication.confirmed)

    async def collect(self) -> None:
        """What nobody needs any more goes from the store. An idle log has no new garbage, so it is not searched."""
        replica, replication = self.replica, self.replication
        if replica is None or replication is None or replica.n == self._collected:
            return
        clock, entropy = self._writer.clock, self._writer.entropy
        problems = await self._copying.run(
            collect, replica, self._mentions, clock=clock, entropy=entropy, breathe=replication.breathe
        )
        self._collected = replica.n
        _tell(problems)
        if not replica.manifest.conditional:
            await self._filling.run(unfenced.clear, self._store, self._writer.name, clock=clock)

    async def note_commit(self, commit: str) -> None:
        """The archive's newest commit stands in the next manifest, so that each tier knows how far the other is.

        It says that the store has all that the commit has, so that a start need not fetch it to know: nothing is said
        while records are on their way. Raises StoreError.
        """
        if self.replica is not None and self.replication is not None and not self.replication.lag_seq:
            await self._copying.run(lambda replica: replica.publish(archived=commit), self.replica)

    async def _settle_in(self) -> None:
        """What a primary does once: it takes up what others kept back, and brings home what only the store has."""
        for step in (self.bring_orphans, self._fetch_home):
            await self._until_done(step)

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        """Takes a step again while the store does not answer. What else stands in its way is told, once."""
        failures = 0
        while True:
            try:
                await step()
                break
            except (Fenced, StoreLost):
                raise
            except StoreError as error:
                log.info("tried again: %s", error)
                failures += 1
                await self._writer.clock.sleep(pause_s(failures, self._writer.entropy))
            except (FinnError, OSError) as error:
                log.error("%s", error)  # orphans are looked for again within the hour, the rest when it is read
                break

    async def _fetch_home(self) -> None:
        """What a chunk names is known once it is here, so it is looked again until nothing new is missing."""
        journal, lost = self.journal, set[str]()
        while wanted := [one for one in await self._filling.run(journal.missing) if one[1] not in lost]:
            self.missing = len(wanted)
            for kind, sha in wanted:
                try:
                    await self._filling.run(journal.chunk if kind == "chunk" else journal.blob, sha)
                except (NotFound, Damaged) as error:
                    lost.add(sha)
                    log.error("a %s is nowhere to be had: %s", kind, error)
                self.missing -= 1

    # ------------------------------------------------------------ the end

    @property
    def is_overtaken(self) -> bool:
        """After a fence: whether another has the log. Not so where the claim held and only the histories parted."""
        return self.claimed is None or self.replica is not None

    async def keep_back(self) -> None:
        """After a fence: what was acknowledged beyond it is safe here, and goes to the store for the successor."""
        if self.replica is None:
            return  # where the two logs parted, the next recovery finds out
        try:
            await Thread("finn-orphans").run(self._keep_back, self.replica)
        except (FinnError, OSError) as error:
            log.error("what was acknowledged after the fence is in quarantine, and not in the store yet: %s", error)

    def _keep_back(self, replica: Replica) -> None:
        runs = list(between(self.journal.frames, replica.confirmed, self.journal.durable, OBJECT_BYTES))
        quarantine = self._writer.paths.quarantine
        orphans.keep(self._store, self._writer.disk, quarantine, replica.epoch, replica.writer, runs, self.journal.blob)

    async def flush(self) -> None:
        """Returns when everything is in the store, however often it takes. Raises Fenced."""
        replication = self.replication
        while replication is not None and replication.lag_seq:
            await replication.attempt()
            if replication.trouble.error:
                await self._writer.clock.sleep(AGAIN_S)

    async def release(self) -> None:
        """Says that this writer stops, if the store has everything: a successor need not wait."""
        if self.replica is not None and self.replication is not None and not self.replication.lag_seq:
            await self.journal.snapshot()
            await self._compact(self.replica)
            await self._copying.run(self.replica.release)

    def end(self) -> None:
        """Lets go, waiting for nothing."""
        self._copying.end()
        self._filling.end()

    # ------------------------------------------------------------ facts

    def tier(self) -> Tier:
        """The store as this primary knows it."""
        replication, place = self.replication, self._store.url
        if replication is None or self.replica is None:
            return Tier("store", None, trouble=self._trouble, place=place)
        return Tier(
            "store",
            replication.confirmed,
            replication.lag_seq,
            replication.lag_s,
            replication.confirmed_at,
            _size(self.replica),
            replication.trouble,
            place,
        )


def _size(replica: Replica) -> int:
    """What the log takes in the store: its snapshot, its segments and its tail."""
    manifest = replica.manifest
    return (manifest.snap.bytes if manifest.snap else 0) + sum(seg.bytes for seg in manifest.segs) + replica.tail_bytes


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        log.warning("%s", problem)
