import asyncio
from pathlib import Path

import pytest

from persistence.audit import audit
from persistence.clock import FakeClock
from persistence.drill import drill_store, fetching
from persistence.errors import Damaged, NotFound, StoreUnreachable
from persistence.layout import manifest_key
from persistence.replay import Paths
from persistence.stores.memory import MemoryStore
from tests.persistence.journals import say
from tests.persistence.replicas import LONG
from tests.persistence.starts import FOLDS, Agent, Silent


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def agent(seed: int, store: MemoryStore) -> Agent:
    return Agent(seed, store)


async def lived(agent: Agent, root: Path) -> None:
    async with agent.life(root) as life:
        for about in ("first", "second", "third"):
            await life.talk(about)
            await say(life.journal, f"{about} {LONG}")
            await life.compact()
        await life.talk("tail")
        await life.flush()


def flip(store: MemoryStore, key: str) -> None:
    data = bytearray(store.objects[key])
    data[len(data) // 2] ^= 1
    store.objects[key] = bytes(data)


# ---------------------------------------------------------------- the drill


async def test_a_drill_folds_the_state_anew_and_finds_the_same_hash(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    await lived(agent, tmp_path / "a")
    objects = dict(store.objects)
    done = await asyncio.to_thread(drill_store, store, Paths(tmp_path / "a"), FOLDS, agent.means(), tmp_path / "drill")
    assert (done.source, done.ok, done.why) == ("store", True, "")
    assert done.seq > 0
    assert done.bytes > 0
    assert store.objects == objects


async def test_a_drill_sees_that_something_in_the_store_is_damaged(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    await lived(agent, tmp_path / "a")
    for key in [key for key in store.objects if key.startswith("seg/")]:
        flip(store, key)
    done = await asyncio.to_thread(drill_store, store, Paths(tmp_path / "a"), FOLDS, agent.means(), tmp_path / "drill")
    assert not done.ok
    assert "seg/" in done.why


async def test_a_drill_sees_another_state(agent: Agent, store: MemoryStore, tmp_path: Path) -> None:
    await lived(agent, tmp_path / "a")
    other = Agent(5, MemoryStore())
    await lived(other, tmp_path / "b")
    done = await asyncio.to_thread(drill_store, store, Paths(tmp_path / "b"), FOLDS, agent.means(), tmp_path / "drill")
    assert (done.ok, "another one" in done.why) == (False, True)


async def test_there_is_nothing_to_compare_before_the_first_snapshot(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.flush()
        with pytest.raises(NotFound):
            await asyncio.to_thread(drill_store, store, Paths(tmp_path / "a"), FOLDS, agent.means(), tmp_path / "drill")


def test_what_is_fetched_is_what_its_name_says_or_nothing(store: MemoryStore) -> None:
    store.put(f"blob/{'a' * 64}", b"something else")
    with pytest.raises(Damaged):
        fetching(store)("blob", "a" * 64)
    with pytest.raises(NotFound):
        fetching(store)("chunk", "a" * 64)


# ---------------------------------------------------------------- the audit


async def test_a_sound_store_proves_itself(agent: Agent, store: MemoryStore, tmp_path: Path) -> None:
    await lived(agent, tmp_path / "a")
    found = audit(store, clock=FakeClock())
    assert (found.ok, found.problems) == (True, ())
    assert found.last_seq > 0
    kinds = ("manifest/0", "snap/", "seg/", "chunk/", "blob/")
    assert found.objects >= sum(key.startswith(kinds) for key in store.objects) - 2


def test_an_empty_store_has_nothing_to_prove(store: MemoryStore) -> None:
    assert audit(store, clock=FakeClock()).manifest == 0


async def test_one_flipped_bit_in_anything_that_is_kept_is_named(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    await lived(agent, tmp_path / "a")
    whole = dict(store.objects)
    log_from = audit(store, clock=FakeClock()).manifest
    first = f"log/{_log_from(store, log_from):016d}.wal"
    kept = [key for key in whole if not key.startswith("log/") or key >= first]
    for key in kept:
        if key == "manifest/HINT":
            continue
        flip(store, key)
        found = audit(store, clock=FakeClock())
        assert not found.ok, key
        assert key.partition("/")[2][:16] in " ".join(found.problems), (key, found.problems)
        store.objects.clear()
        store.objects.update(whole)


async def test_what_is_named_and_gone_is_told(agent: Agent, store: MemoryStore, tmp_path: Path) -> None:
    await lived(agent, tmp_path / "a")
    for kind in ("chunk/", "blob/", "seg/", "snap/"):
        key = max(key for key in store.objects if key.startswith(kind))
        data = store.objects.pop(key)
        assert not audit(store, clock=FakeClock()).ok, key
        store.objects[key] = data


def test_a_store_that_gives_no_answer_is_not_called_sound() -> None:
    with pytest.raises(StoreUnreachable):
        audit(Silent(), clock=FakeClock())


def _log_from(store: MemoryStore, m: int) -> int:
    from persistence.layout import decode_manifest

    return decode_manifest(store.objects[manifest_key(m)], "manifest").log_from
