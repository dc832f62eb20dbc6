"""The copies of the log beyond this machine: the store within a second, git within the hour.

    recover ─▶ attach(journal): a primary ─▶ serve ─▶ finish
       ▲                                     │
       └────────── stand_by ◀── retire ◀── Fenced: another instance has taken over

Made only where a store or a git remote is set; without one none of this is imported. What may hang is called in threads
of its own, so that no copy ever holds up a prompt or the end of the process.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.archiving import Archiving
from gateway.budget import Budget, within
from gateway.copies import Tier, Trouble
from gateway.ground import Ground, Writer, find
from gateway.metered import Metered
from gateway.primary import Primary
from gateway.replication import pause_s
from gateway.settings import Settings
from gateway.sources import archive_of, remote_of, store_of
from gateway.threads import Thread
from persistence import cascade, standby
from persistence.archive import Archive
from persistence.cascade import Recovered
from persistence.clock import Clock, Entropy, Ids
from persistence.disk import Disk
from persistence.errors import FinnError, NotFound, StorageError, StoreError, StoreUnreachable
from persistence.fold import Fold
from persistence.git import REMOTE_S
from persistence.journal import Journal
from persistence.layout import blob_key, chunk_key
from persistence.measure import Observe, unobserved
from persistence.replay import Means, Paths
from persistence.store import Store
from scheduler.health import Fact

PATIENCE_S = 5.0  #: a start waits so long for the copies, if the disk has the log itself
FLUSH_SHARE, RELEASE_SHARE = 0.25, 0.15  #: of the budget of a stop
PUSH_S = 5.0  #: what a stop must have left to push as well
CLOSING_S = 0.5  #: what it leaves for closing the log
KEYS = {"chunk": chunk_key, "blob": blob_key}
UNFENCED = (
    "this store takes a second create of the same name, so two instances at once would not notice one another; "
    "run one only, or choose a store that knows If-None-Match"
)

log = logging.getLogger("finn.storage")


class Storage:
    """What this process has to do with its copies, life after life."""

    def __init__(
        self,
        settings: Settings,
        release: str,
        *,
        disk: Disk,
        clock: Clock,
        entropy: Entropy,
        ids: Ids,
        observe: Observe = unobserved,
    ) -> None:
        """Raises UsageError for a URL that names no store. Nothing is asked yet."""
        store = store_of(settings)
        self.store: Store | None = Metered(store, clock, observe) if store is not None else None
        self.archiving = Archiving(settings, disk, clock, ids) if settings.git_remote else None
        self._settings = settings
        self._writer = Writer(entropy(8).hex(), release, Paths(settings.data_dir), disk, clock, entropy)
        self._clock = clock
        self._ids = ids
        self._asking, self._drilling = Thread("finn-store"), Thread("finn-drill")
        self._ground: Ground | None = None  # once the store has said what it holds
        self._journal: Journal | None = None
        self._primary: Primary | None = None
        self._fenced = False
        self._trouble = Trouble()  # why the store cannot be used, while nothing is recovered or this process stands by

    # ------------------------------------------------------------ before a life

    async def recover(self, folds: tuple[Fold[Any], ...], means: Means) -> Recovered:
        """What the log goes on from, claimed where a store answers. Raises what the cascade raises."""
        ground, thread = await self._found(), Thread("finn-recovery")
        writer = self._writer
        claim_with = cascade.ClaimWith(writer.name, writer.release, writer.entropy)
        sources = cascade.Sources(
            store=ground.past if ground else self.store,
            archive=self.archiving.archive if self.archiving is not None else None,
            claim_with=claim_with if ground and ground.conditional else None,
            patience_s=PATIENCE_S,
            silence="" if ground or self.store is None else self._trouble.error,
        )
        recovered = await thread.run(cascade.recover, writer.paths, folds, means, sources)
        if ground is not None:
            problems = (*ground.problems, *recovered.origin.problems)
            recovered = replace(recovered, origin=replace(recovered.origin, problems=problems))
            if not ground.conditional and not recovered.degraded:
                recovered = await thread.run(self._begin_unfenced, ground, recovered)
        thread.end()
        return recovered

    async def _found(self) -> Ground | None:
        """Where the past is; None where the store does not say."""
        if self.store is not None and self._ground is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._asking.run(self._find)
                self._note("")
            except TimeoutError:
                self._note(f"{self.store.url} has not said within {PATIENCE_S:g} s what it holds")
            except (FinnError, OSError) as error:
                self._note(str(error))
        if self._ground is None and self._trouble.error:
            log.warning("the store does not say what it holds: %s", self._trouble.error)
        return self._ground

    def _note(self, error: str) -> None:
        self._trouble = self._trouble.heard(error, self._clock.now())

    def _find(self) -> Ground:
        """Waits for the store; what it said once is so for this process."""
        if self._ground is None:
            self._ground = find(self._store(), self._writer)
        return self._ground

    def _begin_unfenced(self, ground: Ground, recovered: Recovered) -> Recovered:
        """Claims a prefix that nobody else writes. What the others wrote stays where it is."""
        try:
            claimed = ground.claim(self._writer, None, recovered.origin.epoch)
        except StoreError as error:
            return replace(recovered, degraded=str(error))
        return replace(recovered, claimed=claimed, origin=replace(recovered.origin, epoch=claimed.epoch))

    async def stands_by(self) -> bool:
        """Whether this release was fenced on this data directory, and has not acted since."""
        if self.store is None or self._fenced:
            return self._fenced
        mark = await asyncio.to_thread(standby.marked, self._writer.disk, self._writer.paths.root)
        return standby.stands_by(mark, self._writer.release)

    async def stand_by(self) -> None:
        """Returns when the instance that has the agent has stopped cleanly, or is dead."""
        writer, standing, failures, wait_s = self._writer, standby.Standing(), 0, 0.0
        while not standing.may_act:
            await writer.clock.sleep(wait_s)
            try:
                standing = await self._asking.run(
                    standby.step, self._store(), standing, clock=writer.clock, entropy=writer.entropy
                )
                self._note("")
                failures = 0
                if standing.may_act:
                    break
            except (FinnError, OSError) as error:
                self._note(str(error))
                failures += 1
            wait_s = max(standby.LOOK_S, pause_s(failures, writer.entropy) if failures else 0.0)
        self._fenced = False

    async def mark(self, epoch: int = 0) -> None:
        """This release waits on this data directory from now on, also after a start, until it may act again."""
        self._fenced = True
        writer = self._writer
        mark = standby.Mark(writer.release, epoch, writer.name)
        try:
            await asyncio.to_thread(standby.mark, writer.disk, writer.paths.root, mark)
        except StorageError as error:
            log.error("this process knows that it was fenced, the next one on this disk will not: %s", error)

    # ------------------------------------------------------------ a life

    def attach(self, journal: Journal, recovered: Recovered) -> None:
        """Begins a life: from now on records wait for the store, where the settings say so."""
        self._journal = journal
        if self._settings.durability == "store":
            journal.hold()
        if self.store is not None:
            self._primary = Primary(self._writer, self.store, self._find, journal, recovered)

    def serve(self) -> Iterable[Coroutine[None, None, None]]:
        """What goes on beside the requests and the tasks. Each raises Fenced."""
        if self._primary is not None:
            yield self._primary.serve()

    @property
    def primary(self) -> Primary | None:
        """The replica of this life, where there is a store."""
        return self._primary

    async def archive(self) -> None:
        """Commits what has changed, and pushes it. Raises Fenced, and what stands in the way now."""
        assert self._journal is not None
        await self._archive(self._journal, REMOTE_S)

    async def drill(self, folds: tuple[Fold[Any], ...], means: Means) -> None:
        """Makes a log of every copy, to see that it can be done. Raises what Drill.run raises."""
        from gateway.drilling import Drill  # few lives are that long

        if self.store is not None and self._ground is None:
            raise StoreUnreachable(self._trouble.error or f"{self.store.url} has not answered yet")
        store = self._ground.own if self._ground is not None else None
        archive = self._clone if self.archiving is not None else None
        await self._drilling.run(Drill(store, archive, self._writer.paths, folds, means).run)

    def _clone(self, root: Path) -> Archive:
        settings = self._settings
        return archive_of(settings, self._writer.disk, Paths(root), self._ids, remote_of(settings))

    async def _archive(self, journal: Journal, push_s: float | None) -> None:
        assert self.archiving is not None
        replica = self._primary.replica if self._primary is not None else None
        commit = await self.archiving.keep(journal, replica.manifest.m if replica else 0, push_s)
        if commit is not None and self._primary is not None:
            await self._primary.note_commit(commit)

    async def admit(self) -> None:
        """Before a prompt: whether this writer still is the one, asked where the store was silent for a while."""
        if self._primary is not None and self._primary.replication is not None:
            await self._primary.replication.admit()

    def fetch(self, kind: str, sha: str) -> bytes:
        """A chunk or blob that this disk does not have, from the store, else from git. In any thread.

        Raises NotFound, and StoreError where a copy that may have it gives no answer.
        """
        why: FinnError = NotFound(f"{kind} {sha} is not here")
        if self._ground is not None:
            try:
                data = self._ground.get(KEYS[kind](sha))
            except NotFound as error:
                why = error
            else:
                if sha256(data).hexdigest() == sha:
                    return data
                why = NotFound(f"{KEYS[kind](sha)} in {self._ground.own.url} does not hold what its name says")
        elif self.store is not None:
            why = StoreUnreachable(f"{kind} {sha} is not here, and {self.store.url} has not answered yet")
        if self.archiving is None:
            raise why
        try:
            data = self.archiving.body(sha)
        except NotFound as error:
            raise why from error
        log.warning("%s; git has it", why.message)
        return data

    # ------------------------------------------------------------ the end of a life, of the process

    async def remember(self) -> None:
        """After a fence: this release waits here from now on, if it was another writer that ended its life."""
        if self._primary is not None and self._primary.is_overtaken:
            await self.mark(self._primary.journal.epoch)

    async def retire(self) -> None:
        """After a fence: what was acknowledged beyond it is kept."""
        primary, self._primary = self._primary, None
        if primary is None:
            return
        await primary.keep_back()
        primary.end()

    def hurry(self) -> None:
        """Uploads what there is at once."""
        if self._primary is not None and self._primary.replication is not None:
            self._primary.replication.hurry()

    async def finish(self, journal: Journal, budget: Budget) -> None:
        """The last flush, the release, the last commit. What hangs is left behind when its time is over."""
        if self._primary is not None:
            await budget.share(FLUSH_SHARE, self._primary.flush(), "the last flush")
            await budget.share(RELEASE_SHARE, self._primary.release(), "the release")
        if self.archiving is not None:
            left = budget.left - CLOSING_S
            await within(left, self._archive(journal, left if left > PUSH_S else None), "the last commit")

    def end(self) -> None:
        """Lets go of everything, waiting for nothing."""
        self._asking.end()
        self._drilling.end()
        for each in (self._primary, self.archiving):
            if each is not None:
                each.end()

    # ------------------------------------------------------------ facts

    def tiers(self, seq: int) -> Sequence[Tier]:
        """The copies of a log that ends with `seq`, as this process knows them."""
        git = (self.archiving.tier(seq),) if self.archiving is not None else ()
        return (*((self._tier(),) if self.store is not None else ()), *git)

    def _tier(self) -> Tier:
        if self._primary is not None:
            return self._primary.tier()
        return Tier("store", None, trouble=self._trouble, place=self._store().url)

    def facts(self) -> Iterable[Fact]:
        """The same for health."""
        if self.store is not None:
            yield from self._store_facts(self._tier())
        if self.archiving is not None:
            yield from self.archiving.facts(self._journal.seq if self._journal is not None else 0)

    def _store_facts(self, tier: Tier) -> Iterable[Fact]:
        yield Fact("store:durability", self._settings.durability)
        if tier.last_seq is not None:
            yield Fact("store:lagSeq", tier.lag_seq)
            yield Fact("store:lagSeconds", round(tier.lag_s, 3), "s")
        if error := tier.trouble.error:
            now = self._clock.now()
            yield Fact("store:lastError", error, output=error)
            yield Fact("store:failingSeconds", round(now - (tier.trouble.since or now), 3), "s")
        if self._ground is not None and not self._ground.conditional:
            yield Fact("store:unfenced", True, output=UNFENCED)
        if self._primary is not None and self._primary.missing:
            yield Fact("store:toFetch", self._primary.missing)

    def _store(self) -> Store:
        assert self.store is not None
        return self.store
