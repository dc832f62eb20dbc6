"""The copies of the log beyond this machine: the store within a second, git within the hour.

    recover ─▶ attach(journal) ─▶ tasks: replicate, orphans, fill, scheduler ─▶ finish
       ▲            └ the store was silent: claimed once it answers, if the log there is this one's past
       └── stand_by ◀── retire ◀── Fenced: another instance has taken over

Made only where a store or a git remote is set; without one none of this is imported. What may hang is called in threads
of its own, so that no copy ever holds up a prompt or the end of the process.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.archiving import Archiving
from gateway.copies import Tier
from gateway.ground import Ground, find
from gateway.replication import Replication, pause_s
from gateway.settings import Settings
from gateway.sources import store_of
from gateway.threads import Thread
from persistence import cascade, compaction, orphans, standby, unfenced
from persistence.cascade import Recovered
from persistence.claim import Claimed, claim, overtaken
from persistence.clock import Clock, Entropy, Ids
from persistence.collection import Mentions, collect
from persistence.disk import Disk
from persistence.errors import Fenced, FinnError, NotFound, StorageError, StoreError, StoreRefused
from persistence.fold import Fold
from persistence.git import REMOTE_S
from persistence.journal import Journal
from persistence.layout import NOTHING, blob_key, chunk_key, manifest_key
from persistence.orphans import ORPHANS
from persistence.relation import digest_at, relate
from persistence.remote import Tip, look
from persistence.replay import Means, Paths
from persistence.replica import OBJECT_BYTES, Replica
from persistence.runs import Run
from persistence.store import Store
from persistence.wal import Head
from scheduler.health import Fact
from scheduler.scheduler import Scheduler, Task

PATIENCE_S = 5.0  #: a start waits so long for the copies, if the disk has the log itself
SETTLE_S = 60.0  #: after a claim, until what the one before kept back has surely arrived
HOUR_S, DAY_S = 3600.0, 86_400.0
FLUSH_SHARE, RELEASE_SHARE = 0.25, 0.15  #: of the budget of a stop
PUSH_S = 5.0  #: what a stop must have left to push as well
CLOSING_S = 0.5  #: what it leaves for closing the log
AGAIN_S = 0.25  #: between two attempts of the last flush
ANSWER_S, ARCHIVE_S = 10.0, 600.0  #: the longest that these tasks may take

UNFENCED = (
    "this store takes a second create of the same name, so two instances at once would not notice one another; "
    "run one only, or choose a store that knows If-None-Match"
)

log = logging.getLogger("finn.storage")


@dataclass
class _Life:
    """What one reign of this process has. `replica` is there once the log is claimed, and proven to be this one's.

    `ours`: the last claim is of this life, though it may have turned out that another log lies there.
    """

    journal: Journal
    recovered: Recovered
    here: "_Here"
    ours: bool = False
    replica: Replica | None = None
    replication: Replication | None = None


class _Here:
    """The log as it is copied: what this disk has, and what it still has to fetch.

    A snapshot is full of hashes, few of which are of blobs. Only for those that are known to be is another copy asked.
    """

    def __init__(self, journal: Journal) -> None:
        self.absent: frozenset[str] = frozenset()
        self.frames = journal.frames
        self.chunk = journal.chunk
        self._journal = journal

    @property
    def durable(self) -> int:
        return self._journal.durable

    def blob(self, sha: str) -> bytes:
        if sha not in self.absent and not self._journal.blobs.has(sha):
            raise NotFound(f"there is no blob {sha} here", hint="run finn verify")
        return self._journal.blob(sha)

    def look(self) -> None:
        """Sees anew what is not on this disk. Raises StorageError."""
        self.absent = frozenset(sha for _, sha in self._journal.missing())


class Storage:
    """What this process has to do with its copies, life after life."""

    def __init__(
        self, settings: Settings, release: str, *, disk: Disk, clock: Clock, entropy: Entropy, ids: Ids
    ) -> None:
        """Raises UsageError for a URL that names no store. Nothing is asked yet."""
        self.store = store_of(settings)
        self.archiving = Archiving(settings, disk, clock, ids) if settings.git_remote else None
        self._settings = settings
        self._paths = Paths(settings.data_dir)
        self._release = release
        self._disk = disk
        self._clock = clock
        self._entropy = entropy
        self._writer = entropy(8).hex()
        self._recovering, self._copying, self._asking, self._filling = (
            Thread(f"finn-{name}") for name in ("recovery", "replica", "standby", "fill")
        )
        self._life: _Life | None = None
        self._scheduler: Scheduler | None = None
        self._error = ""  # why the store cannot be used, while nothing is claimed
        self._since: float | None = None
        self._ground: Ground | None = None  # once the store has said what it holds
        self._fenced = False
        self._missing = 0
        self._mentions: Mentions = {}

    # ------------------------------------------------------------ before a life

    async def recover(self, folds: tuple[Fold[Any], ...], means: Means) -> Recovered:
        """What the log goes on from, claimed where a store answers. Raises what the cascade raises."""
        ground = await self._found()
        claim_with = cascade.ClaimWith(self._writer, self._release, self._entropy)
        recovered = await self._recovering.run(
            cascade.recover,
            self._paths,
            folds,
            means,
            store=ground.past if ground else self.store,
            archive=self.archiving.archive if self.archiving is not None else None,
            claim_with=claim_with if ground and ground.conditional else None,
            patience_s=PATIENCE_S if ground else 0.0,
        )
        if ground is None or ground.conditional or recovered.degraded:
            return recovered
        return await self._recovering.run(self._begin_unfenced, recovered)

    async def _found(self) -> Ground | None:
        """Where the past is; None where the store does not say."""
        if self.store is not None and self._ground is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    self._ground = await self._asking.run(self._find)
            except (FinnError, OSError) as error:  # a TimeoutError is one
                log.warning("the store does not say what it holds: %s", error)
        return self._ground

    def _find(self) -> Ground:
        return find(self._store(), self._writer, clock=self._clock, entropy=self._entropy)

    def _begin_unfenced(self, recovered: Recovered) -> Recovered:
        """Claims a prefix that nobody else writes. What the others wrote stays where it is."""
        try:
            claimed = self._claimed(recovered.origin.epoch)
        except StoreError as error:
            return replace(recovered, degraded=str(error))
        return replace(recovered, claimed=claimed, origin=replace(recovered.origin, epoch=claimed.epoch))

    async def stands_by(self) -> bool:
        """Whether this release was fenced on this data directory, and has not acted since."""
        if self.store is None:
            return False
        if self._fenced:
            return True
        mark = await asyncio.to_thread(standby.marked, self._disk, self._paths.root)
        return standby.stands_by(mark, self._release)

    async def stand_by(self) -> None:
        """Returns when the instance that has the agent has stopped cleanly, or is dead."""
        standing, failures = standby.Standing(), 0
        while not standing.may_act:
            try:
                standing = await self._asking.run(
                    standby.step, self._store(), standing, clock=self._clock, entropy=self._entropy
                )
                self._note(None)
                failures = 0
            except (FinnError, OSError) as error:
                self._note(error)
                failures += 1
            await self._clock.sleep(max(standby.LOOK_S, pause_s(failures, self._entropy) if failures else 0.0))

    async def mark(self, epoch: int = 0) -> None:
        """This release waits on this data directory from now on, also after a start, until it may act again."""
        self._fenced = True
        mark = standby.Mark(self._release, epoch, self._writer)
        try:
            await asyncio.to_thread(standby.mark, self._disk, self._paths.root, mark)
        except StorageError as error:
            log.error("this process knows that it was fenced, the next one on this disk will not: %s", error)

    # ------------------------------------------------------------ a life

    def attach(self, journal: Journal, recovered: Recovered) -> None:
        """Begins a life: from now on records wait for the store, where the settings say so."""
        self._life = _Life(journal, recovered, _Here(journal))
        self._note(StoreError(recovered.degraded) if recovered.degraded else None)
        if self._settings.durability == "store":
            journal.hold()
        self._scheduler = Scheduler(self._periodic(), self._clock)

    def tasks(self) -> Iterable[Coroutine[None, None, None]]:
        """What goes on beside the requests. Raises Fenced."""
        assert self._scheduler is not None
        return (self._scheduler.serve(), *((self._replicate(),) if self.store is not None else ()))

    async def _replicate(self) -> None:
        life = self._here()
        claimed = life.recovered.claimed or await self._claimed_late(life)
        assert self._ground is not None
        life.replica = Replica(
            self._ground.own, claimed, life.here, release=self._release, clock=self._clock, entropy=self._entropy
        )
        life.replication = Replication(
            life.journal, life.replica, self._copying, self._clock, self._entropy, self._upkeep
        )
        self._note(None)
        self._fenced = False
        await asyncio.to_thread(standby.unmark, self._disk, self._paths.root)
        async with asyncio.TaskGroup() as group:
            group.create_task(life.replication.serve())
            group.create_task(self._settle_in())

    async def _claimed_late(self, life: _Life) -> Claimed:
        """The claim that a start without the store could not make. Raises Fenced where another log is there now."""
        failures = 0
        while True:
            try:
                claimed = await self._copying.run(self._claim, life)
            except Fenced as fenced:
                life.journal.fence(fenced.message)
                raise
            except (FinnError, OSError) as error:
                self._note(error)
                failures += 1
                await self._clock.sleep(pause_s(failures, self._entropy))
            else:
                life.journal.reign(claimed.epoch)
                return claimed

    def _claim(self, life: _Life) -> Claimed:
        """Raises Fenced, and what may be tried again."""
        self._ground = self._ground or self._find()
        store, journal = self._ground.own, life.journal
        tip = look(store, clock=self._clock)
        self._require_past(journal, store, tip)
        claimed = self._claimed(journal.epoch, tip)
        life.ours = True
        self._require_past(journal, store, claimed.tip)  # between look and fence the other may have brought more
        return claimed

    def _claimed(self, floor: int, tip: Tip | None = None) -> Claimed:
        assert self._ground is not None
        return claim(
            self._ground.own,
            tip,
            writer=self._writer,
            release=self._release,
            entropy=self._entropy,
            clock=self._clock,
            floor=floor,
            start=cascade.beginning(self._disk, self._paths),
            conditional=self._ground.conditional,
        )

    def _require_past(self, journal: Journal, store: Store, tip: Tip | None) -> None:
        """The log in the store must be the beginning of this one. Raises Fenced, StoreRefused."""
        if tip is None or not tip.seq:
            return
        seq, wal = journal.durable, self._paths.wal
        chain = digest_at(self._disk, wal, seq) or NOTHING
        stand = relate(self._disk, wal, Head(seq, bytes.fromhex(chain), seq), store, tip)
        if stand.relation == "unrelated":
            raise StoreRefused(f"{store.url} holds another history", hint="choose another FINN_STORE_URL")
        if stand.relation not in ("same", "ahead"):
            raise overtaken(manifest_key(tip.m))

    async def admit(self) -> None:
        """Before a prompt: whether this writer still is the one, asked where the store was silent for a while."""
        if self._life is not None and self._life.replication is not None:
            await self._life.replication.admit()

    def fetch(self, kind: str, sha: str) -> bytes:
        """A chunk or blob that this disk does not have. In any thread; raises NotFound, StoreError."""
        key = {"chunk": chunk_key, "blob": blob_key}[kind](sha)
        if self._ground is None:
            raise NotFound(f"{kind} {sha} is not here", hint="no store has answered")
        try:
            return self._ground.own.get(key)
        except NotFound:
            if self._ground.own is self._ground.past:
                raise
            return self._ground.past.get(key)

    # ------------------------------------------------------------ upkeep

    async def _upkeep(self) -> None:
        """After a flush: the tail is put together where it has grown long."""
        life, replica = self._here(), self._here().replica
        assert replica is not None
        if compaction.due(replica.tail_objects, replica.tail_bytes) or not replica.manifest.complete:
            await self._compact(life, replica)

    async def _compact(self, life: _Life, replica: Replica) -> None:
        """Puts the tail together, beside the newest snapshot, and lets go of what is no longer needed here."""
        if not replica.manifest.complete:
            await life.journal.snapshot()
        compacted = await self._copying.run(self._compacted, life, replica)
        for problem in compacted.problems:
            log.warning("%s", problem)
        await life.journal.prune(compaction.settled(compacted.manifest))

    def _compacted(self, life: _Life, replica: Replica) -> compaction.Compacted:
        assert life.replication is not None
        snap = replica.manifest.snap
        taken = compaction.newest(self._disk, self._paths.snapshots, after=snap.seq if snap else 0)
        if taken is not None:
            life.here.look()
        return compaction.compact(replica, taken, breathe=life.replication.breathe)

    def _periodic(self) -> Iterable[Task]:
        interval = self._settings.sync_interval
        if self.store is not None:
            yield Task("replicate", interval, self._catch_up, timeout_s=max(interval, ANSWER_S))
            yield Task("orphans", HOUR_S, self._bring_orphans, timeout_s=HOUR_S, first_s=SETTLE_S)
            yield Task("prune", DAY_S, self._collect, timeout_s=HOUR_S)
        if self.archiving is not None:
            yield Task("archive", self._settings.archive_interval, self._archive, timeout_s=ARCHIVE_S)

    async def _catch_up(self) -> None:
        """The backstop of the replication: whatever woke nobody is in the store after this."""
        replication = self._here().replication
        if replication is None:
            raise StoreError(self._error or f"{self._store().url} has not answered yet")
        await replication.catch_up()

    async def _bring_orphans(self) -> None:
        """What fenced writers had acknowledged becomes part of the log, and goes from where they had put it."""
        life, store = self._here(), self._store()
        if life.replication is None:
            return
        journal = life.journal
        search = await self._filling.run(orphans.find, store, journal.whole(ORPHANS).done, journal.blobs)
        for problem in search.problems:
            log.warning("%s", problem)
        for one in search.orphans:
            count = await orphans.bring_in(journal, self._disk, one)
            log.warning("brought in %d records that another instance had kept back", count)
        if journal.whole(ORPHANS).done:
            await life.replication.catch_up()
            await self._filling.run(orphans.clear, store, journal.whole(ORPHANS).done, life.replication.confirmed)

    async def _collect(self) -> None:
        life = self._here()
        if life.replica is not None and life.replication is not None:
            collected = await self._copying.run(
                collect,
                life.replica,
                self._mentions,
                clock=self._clock,
                entropy=self._entropy,
                breathe=life.replication.breathe,
            )
            for problem in collected.problems:
                log.warning("%s", problem)
            if self._ground is not None and not self._ground.conditional:
                await self._filling.run(unfenced.clear, self._store(), self._writer, clock=self._clock)

    async def _archive(self, push_s: float | None = REMOTE_S) -> None:
        """A commit, a push, and the commit's name in the next manifest: each tier knows how far the other is."""
        life = self._here()
        assert self.archiving is not None
        replica = life.replica
        commit = await self.archiving.keep(life.journal, replica.manifest.m if replica else 0, push_s)
        if commit is not None and replica is not None:
            await self._copying.run(lambda: replica.publish(archived=commit))

    async def _settle_in(self) -> None:
        """What a new reign does once: it takes up what was kept back, and brings home what only the store has."""
        for step in (self._bring_orphans, self._fetch_home):
            try:
                await step()
            except Fenced:
                raise
            except (FinnError, OSError) as error:
                log.warning("%s", error)  # the hourly task tries the first again; the second comes when it is read

    async def _fetch_home(self) -> None:
        journal = self._here().journal
        missing = await self._filling.run(journal.missing)
        self._missing = len(missing)
        for kind, sha in missing:
            await self._filling.run(journal.chunk if kind == "chunk" else journal.blob, sha)
            self._missing -= 1

    # ------------------------------------------------------------ the end

    async def retire(self) -> None:
        """After a fence: what was acknowledged beyond it is kept, and this release waits here from now on."""
        life, self._life = self._life, None
        if life is None:
            return
        if not life.ours or life.replica is not None:
            await self.mark(life.journal.epoch)
        if life.replica is None:
            return  # where the two logs parted, the next recovery finds out
        try:
            await self._asking.run(self._keep_back, life, life.replica)
        except (FinnError, OSError) as error:
            log.error("what was acknowledged after the fence is in quarantine, and not in the store yet: %s", error)

    def _keep_back(self, life: _Life, replica: Replica) -> None:
        journal = life.journal
        runs = list(_runs(journal, replica.confirmed))
        orphans.keep(
            self._store(), self._disk, self._paths.quarantine, replica.epoch, replica.writer, runs, journal.blob
        )

    def hurry(self) -> None:
        """Uploads what there is at once."""
        if self._life is not None and self._life.replication is not None:
            self._life.replication.hurry()

    async def finish(self, budget_s: float, end: float) -> None:
        """The last flush, the release, the last commit. What hangs is left behind when its time is over.

        `end` is when the budget of the stop is used up, on the clock that never goes back.
        """
        life = self._life
        if life is None:
            return
        if life.replication is not None and life.replica is not None:
            await _within(budget_s * FLUSH_SHARE, self._flush_all(life.replication), "the last flush")
            if life.replication.lag_seq == 0:
                await _within(budget_s * RELEASE_SHARE, self._release_log(life, life.replica), "the release")
        if self.archiving is not None:
            left = end - self._clock.monotonic() - CLOSING_S
            await _within(left, self._archive(left if left > PUSH_S else None), "the last commit")

    async def _flush_all(self, replication: Replication) -> None:
        while replication.lag_seq:
            await replication.attempt()
            if replication.error:
                await self._clock.sleep(AGAIN_S)

    async def _release_log(self, life: _Life, replica: Replica) -> None:
        await life.journal.snapshot()
        await self._compact(life, replica)
        await self._copying.run(replica.release)

    def end(self) -> None:
        """Lets go of everything, waiting for nothing."""
        for thread in (self._recovering, self._copying, self._asking, self._filling):
            thread.end()
        if self.archiving is not None:
            self.archiving.end()

    # ------------------------------------------------------------ facts

    def tiers(self) -> Sequence[Tier]:
        """The copies as this process knows them."""
        seq = self._life.journal.seq if self._life else 0
        git = (self.archiving.tier(seq),) if self.archiving is not None else ()
        return (*((self._tier(),) if self.store is not None else ()), *git)

    def _tier(self) -> Tier:
        life, place = self._life, self._store().url
        replication = life.replication if life else None
        if life is None or replication is None or life.replica is None:
            return Tier("store", None, error=self._error, since=self._since, place=place)
        return Tier(
            "store",
            replication.confirmed,
            replication.lag_seq,
            replication.lag_s,
            replication.confirmed_at,
            error=replication.error,
            since=replication.since,
            bytes=_size(life.replica),
            place=place,
        )

    def facts(self) -> Iterable[Fact]:
        """The same for health, and how the tasks stand."""
        if self.store is not None:
            tier = self._tier()
            yield Fact("store:durability", self._settings.durability)
            if tier.last_seq is not None:
                yield Fact("store:lagSeq", tier.lag_seq)
                yield Fact("store:lagSeconds", round(tier.lag_s, 3), "s")
            if tier.error:
                yield Fact("store:lastError", tier.error, output=tier.error)
                yield Fact("store:failingSeconds", round(self._clock.now() - (tier.since or self._clock.now()), 3), "s")
            if self._ground is not None and not self._ground.conditional:
                yield Fact("store:unfenced", True, output=UNFENCED)
            if self._missing:
                yield Fact("store:toFetch", self._missing)
        if self.archiving is not None:
            yield from self.archiving.facts(self._life.journal.seq if self._life else 0)
        now = self._clock.monotonic()
        for run in self._scheduler.runs if self._scheduler is not None else ():
            yield Fact(f"task:{run.task.name}", run.breaker.state(now), output=run.last_error)

    def _note(self, error: FinnError | OSError | None) -> None:
        """Why the store cannot be used before anything is claimed, and since when."""
        self._error = str(error) if error else ""
        self._since = (self._since or self._clock.now()) if error else None

    def _here(self) -> _Life:
        assert self._life is not None
        return self._life

    def _store(self) -> Store:
        assert self.store is not None
        return self.store


def _size(replica: Replica) -> int:
    """What the log takes in the store: its snapshot, its segments and its tail."""
    manifest = replica.manifest
    return (manifest.snap.bytes if manifest.snap else 0) + sum(seg.bytes for seg in manifest.segs) + replica.tail_bytes


def _runs(journal: Journal, after: int) -> Iterable[Run]:
    """The records after a seq, in runs."""
    while journal.durable > after:
        run = journal.frames(after, OBJECT_BYTES)
        yield run
        after = run.last


async def _within(seconds: float, step: Coroutine[None, None, None], what: str) -> None:
    """Takes a step of the stop, so long at most. The log on this disk has it all, whatever becomes of the step."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await step
    except TimeoutError:
        log.warning("%s did not end in time", what)
    except (FinnError, OSError) as error:
        log.warning("%s failed: %s", what, error)
