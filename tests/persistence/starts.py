"""Lives of an agent, one after the other: started from whatever sources there are, talked to, copied, ended."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from persistence.cascade import Archived, ClaimWith, Recovered, Sources, recover
from persistence.clock import FakeClock
from persistence.compaction import compact, newest
from persistence.disk import Disk, SystemDisk
from persistence.errors import StoreUnreachable
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.orphans import ORPHANS
from persistence.replay import Means, Paths
from persistence.replica import Replica
from persistence.store import Found, Store
from tests.persistence.journals import LEDGER, STREAM, answer, commit, ended, means, say

FOLDS: tuple[Fold[Any], ...] = (LEDGER, ORPHANS)
OTHER = "01BX5ZZKBKACTAV9WEVGEMMVRZ"  #: a session of somebody else: an id occurs in one history only
PATIENCE_S = 20.0  #: for a store in memory; nothing waits for so long unless it is broken


class Silent:
    """A store that gives no answer."""

    url = "s3://silent"

    def _none(self) -> StoreUnreachable:
        return StoreUnreachable("s3://silent gives no answer")

    def create(self, key: str, data: bytes) -> None:
        raise self._none()

    def put(self, key: str, data: bytes) -> None:
        raise self._none()

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        raise self._none()

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        raise self._none()

    def delete(self, key: str) -> None:
        raise self._none()

    def close(self) -> None:
        pass


class Agent:
    """Everything that lives on: the sources, the clock, and the number of the next instance."""

    def __init__(
        self,
        seed: int,
        store: Store | None = None,
        archive: Archived | None = None,
        folds: tuple[Fold[Any], ...] = FOLDS,
    ) -> None:
        self.store = store
        self.archive = archive
        self.folds = folds
        self.clock = FakeClock()
        self.rng = random.Random(seed)
        self.instances = 0

    def means(self, disk: Disk | None = None) -> Means:
        made = means(disk, self.clock, seed=self.rng.getrandbits(32))
        store = self.store

        def fetch(kind: Literal["chunk", "blob"], sha: str) -> bytes:
            assert store is not None
            return store.get(f"{kind}/{sha}")

        return replace(made, fetch=fetch) if store else made

    def recover(self, root: Path, *, disk: Disk | None = None, patience_s: float = PATIENCE_S) -> Recovered:
        self.instances += 1
        claim_with = ClaimWith(f"writer-{self.instances}", "r", self.rng.randbytes) if self.store else None
        sources = Sources(self.store, self.archive, claim_with, patience_s)
        return recover(Paths(root), self.folds, self.means(disk), sources)

    @asynccontextmanager
    async def life(self, root: Path) -> AsyncIterator["Life"]:
        recovered = await asyncio.to_thread(self.recover, root)
        journal = await Journal.open(root, self.folds, self.means(), recovered.origin)
        life = Life(self, journal, recovered)
        try:
            yield life
        finally:
            await journal.close()


class Life:
    """One instance, from its start to its end."""

    def __init__(self, agent: Agent, journal: Journal, recovered: Recovered) -> None:
        self.journal = journal
        self.recovered = recovered
        self.replica: Replica | None = None
        if agent.store and recovered.claimed:
            self.replica = Replica(
                agent.store,
                recovered.claimed,
                journal,
                release="r",
                clock=agent.clock,
                entropy=agent.rng.randbytes,
            )

    async def talk(self, about: str, times: int = 3, stream: str = STREAM) -> None:
        for number in range(times):
            await say(self.journal, f"{about}, question {number}", stream=stream)
            await commit(self.journal, answer(f"{about}, answer {number}"), ended(), stream=stream)

    async def flush(self) -> None:
        assert self.replica
        await asyncio.to_thread(self.replica.flush)

    async def compact(self) -> None:
        assert self.replica
        await self.journal.seal(STREAM)
        await commit(self.journal, answer("in no chunk yet"), ended())
        await self.journal.snapshot()
        await self.compact_as_it_is()

    async def compact_as_it_is(self) -> None:
        assert self.replica
        await self.flush()
        taken = newest(SystemDisk(), self.journal.paths.snapshots)
        await asyncio.to_thread(compact, self.replica, taken)

    @property
    def state(self) -> tuple[int, str]:
        return self.journal.seq, self.journal.state_sha()


def machine_lost(root: Path) -> None:
    """The whole disk is gone."""
    shutil.rmtree(root)
