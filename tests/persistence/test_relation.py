"""How two logs stand to one another."""

import asyncio
from pathlib import Path

from persistence.disk import SystemDisk
from persistence.layout import NOTHING
from persistence.relation import Stand, digest_at, relate
from persistence.remote import look
from persistence.scan import Good, scan
from persistence.stores.memory import MemoryStore
from persistence.wal import Head
from tests.persistence.journals import STREAM, killed
from tests.persistence.logs import Log
from tests.persistence.starts import OTHER, Agent, Life


def head_of(root: Path) -> Head:
    last = [found for found in scan(SystemDisk(), root / "wal") if isinstance(found, Good)][-1]
    return Head(last.seq, bytes.fromhex(last.checksum), last.seq)


def stand(root: Path, store: MemoryStore, agent: Agent) -> Stand:
    tip = look(store, clock=agent.clock)
    assert tip
    return relate(SystemDisk(), root / "wal", head_of(root), store, tip)


async def test_every_relation_is_told_from_the_digests_alone(seed: int, tmp_path: Path) -> None:
    store, copies = MemoryStore(), tmp_path / "copies"
    agent, root = Agent(seed, store), tmp_path / "a"

    async def said(life: Life, about: str) -> Path:
        await life.talk(about)
        return killed(root, copies)

    async with agent.life(root) as life:
        early = await said(life, "early")
        common = life.journal.seq
        await life.flush()
        assert await asyncio.to_thread(stand, killed(root, copies), store, agent) == Stand("same", common)
        late = await said(life, "late")
        assert await asyncio.to_thread(stand, late, store, agent) == Stand("ahead", common)
        await life.flush()
        assert await asyncio.to_thread(stand, early, store, agent) == Stand("behind", common)
        await life.compact()
        await life.compact()
        assert (await asyncio.to_thread(stand, early, store, agent)).relation == "beyond"
        middle = killed(root, copies)
        parted = life.journal.seq
        await life.talk("there")
        await life.flush()
    async with Agent(seed + 1).life(middle) as other:
        await other.talk("here")
    assert await asyncio.to_thread(stand, middle, store, agent) == Stand("diverged", parted)
    async with Agent(seed + 2).life(tmp_path / "b") as stranger:
        await stranger.talk("somebody else", 12, OTHER)
    assert (await asyncio.to_thread(stand, tmp_path / "b", store, agent)).relation == "unrelated"


async def test_a_log_that_parted_before_all_that_the_store_still_has_is_known_by_its_reign(
    seed: int, tmp_path: Path
) -> None:
    """A zombie's log: the store's next writer compacted everything away that both had."""
    store, copies = MemoryStore(), tmp_path / "copies"
    agent, root = Agent(seed, store), tmp_path / "a"
    async with agent.life(root) as life:
        await life.talk("early")
        await life.flush()
        common = life.journal.seq
        zombie = killed(root, copies)
    async with Agent(seed + 1).life(zombie) as other:
        await other.talk("acknowledged by the zombie")
    async with agent.life(root) as life:
        for about in ("there", "and there"):
            await life.talk(about)
            await life.compact()
        await life.journal.seal(STREAM)
        await life.journal.snapshot()
        await life.compact()
    assert await asyncio.to_thread(stand, zombie, store, agent) == Stand("diverged", common)
    async with agent.life(zombie) as life:
        assert life.recovered.orphans == 1
        assert life.recovered.origin.discarded[0][0] == common + 1


def test_the_digest_of_any_record_is_found_also_across_segments(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    written = log.say(*map(str, range(20)))
    log.close()
    for one in written:
        assert digest_at(SystemDisk(), tmp_path / "wal", one.seq) == one.checksum
    assert digest_at(SystemDisk(), tmp_path / "wal", 0) == NOTHING
    assert digest_at(SystemDisk(), tmp_path / "wal", 99) is None
