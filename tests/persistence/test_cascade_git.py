"""A start whose past is in git: alone, beside a store, and where the store comes back."""

import asyncio
from pathlib import Path

import pytest

from persistence.drill import drill_archive
from persistence.errors import SourceSilent
from persistence.git import Remote
from persistence.replay import Paths
from persistence.stores.memory import MemoryStore
from tests.persistence.archives import archive, picture
from tests.persistence.journals import STREAM, say, texts
from tests.persistence.starts import Agent, Silent, machine_lost


async def archived(agent: Agent, root: Path) -> tuple[int, str]:
    """A life that ends with a commit; its git folder is then what a remote has."""
    async with agent.life(root) as life:
        await life.talk("first")
        await life.journal.seal(STREAM)
        await life.talk("second")
        assert archive(root).commit(await picture(life.journal), life.journal)
        if life.replica:
            await life.compact()
        return life.state


async def heard(agent: Agent, root: Path) -> list[str]:
    async with agent.life(root) as life:
        return texts(await life.journal.read(STREAM, limit=1000))


ALL = [f"{about}, question {n}" for about in ("first", "second") for n in range(3)]


async def test_git_alone_brings_a_lost_machine_back(seed: int, tmp_path: Path) -> None:
    await archived(Agent(seed), tmp_path / "a")
    agent = Agent(seed, archive=archive(tmp_path / "b", tmp_path / "a/git"))
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.journal.epoch) == ("git", 2)
        assert life.journal.loss == ""
        assert texts(await life.journal.read(STREAM, limit=1000)) == ALL


async def test_git_stands_in_for_a_store_that_does_not_answer_and_claims_nothing(seed: int, tmp_path: Path) -> None:
    await archived(Agent(seed), tmp_path / "a")
    agent = Agent(seed, Silent(), archive(tmp_path / "b", tmp_path / "a/git"))
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.recovered.claimed) == ("git", None)
        assert "no answer" in life.recovered.degraded


async def test_an_empty_store_gets_what_came_from_git(seed: int, tmp_path: Path) -> None:
    await archived(Agent(seed), tmp_path / "a")
    agent = Agent(seed, MemoryStore(), archive(tmp_path / "b", tmp_path / "a/git"))
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.recovered.degraded) == ("git", "")
        await life.flush()
        await life.compact()
    machine_lost(tmp_path / "b")
    agent.archive = None
    assert await heard(agent, tmp_path / "b") == ALL


async def test_the_store_is_taken_before_git(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, MemoryStore())
    await archived(agent, tmp_path / "a")
    agent.archive = archive(tmp_path / "b", tmp_path / "a/git")
    async with agent.life(tmp_path / "b") as life:
        assert life.recovered.origin.source == "store"
    assert not (tmp_path / "b/git").exists()


async def test_what_was_said_while_only_git_answered_becomes_an_orphan_of_the_store(seed: int, tmp_path: Path) -> None:
    store = MemoryStore()
    agent = Agent(seed, store)
    await archived(agent, tmp_path / "a")
    agent.store, agent.archive = Silent(), archive(tmp_path / "b", tmp_path / "a/git")
    async with agent.life(tmp_path / "b") as life:
        await say(life.journal, "said in between")
    agent.store = store
    async with agent.life(tmp_path / "b") as life:
        assert life.recovered.origin.source == "store"
        assert life.recovered.orphans >= 1
        assert life.journal.loss == ""
    orphans = b"".join(data for key, data in store.objects.items() if key.startswith("orphans/"))
    assert b"said in between" in orphans


async def test_a_remote_out_of_reach_is_not_an_empty_one(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, archive=archive(tmp_path / "b", Remote("http://127.0.0.1:1/state.git")))
    with pytest.raises(SourceSilent):
        await asyncio.to_thread(agent.recover, tmp_path / "b")


async def test_a_first_start_without_a_remote_asks_no_git(seed: int, tmp_path: Path) -> None:
    class Untouched:
        remote = None

        def latest(self) -> None:
            raise AssertionError("git was asked")

        restore = latest

    agent = Agent(seed, archive=Untouched())  # type: ignore[arg-type]
    async with agent.life(tmp_path / "b") as life:
        assert life.recovered.origin.source == "template"


async def test_a_drill_from_git_has_the_hash_that_is_here(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed)
    await archived(agent, tmp_path / "a")
    done = await asyncio.to_thread(
        drill_archive, archive(tmp_path / "a"), Paths(tmp_path / "a"), agent.means(), _made(tmp_path / "drill")
    )
    assert (done.ok, done.why, done.source) == (True, "", "git")
    assert len(done.state_sha) == 64


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
