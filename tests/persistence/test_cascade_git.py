"""A start whose past is in git: alone, beside a store, and where the store comes back."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persistence.archive import Archive
from persistence.drill import drill_archive
from persistence.errors import SourceSilent, StoreUnreachable
from persistence.git import Remote
from persistence.replay import Paths
from persistence.stores.memory import MemoryStore
from tests.persistence.archives import archive, picture
from tests.persistence.journals import STREAM, say, texts
from tests.persistence.starts import OTHER, Agent, Silent, machine_lost


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


async def parted(agent: Agent, root: Path, *, compacted: bool = True) -> None:
    """A life of which the store has the first half and git all: the store was away, or was set back."""
    async with agent.life(root) as life:
        await life.talk("first")
        await (life.compact() if compacted else life.flush())
        await life.talk("second")
        assert archive(root).commit(await picture(life.journal), life.journal)


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
        assert (life.recovered.origin.source, life.recovered.origin.problems) == ("store", ())


# ---------------------------------------------------------------- a store that is behind


@pytest.mark.parametrize("compacted", [True, False])
async def test_git_is_taken_where_it_goes_on_from_where_the_store_ends(
    seed: int, tmp_path: Path, compacted: bool
) -> None:
    agent = Agent(seed, MemoryStore())
    await parted(agent, tmp_path / "a", compacted=compacted)
    agent.archive = archive(tmp_path / "b", tmp_path / "a/git")
    async with agent.life(tmp_path / "b") as life:
        origin = life.recovered.origin
        assert (origin.source, life.recovered.degraded, life.recovered.claimed is not None) == ("git", "", True)
        assert "git was taken" in "\n".join(origin.problems)
        assert texts(await life.journal.read(STREAM, limit=1000)) == ALL
        assert life.journal.epoch > 2
        await life.talk("third", 1)
        await life.flush()
        await life.compact()
    machine_lost(tmp_path / "b")
    agent.archive = None
    assert await heard(agent, tmp_path / "b") == [*ALL, "third, question 0"], "the store has all of it again"


async def test_a_start_from_git_that_is_cut_off_after_its_claim_is_made_again(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, MemoryStore())
    await parted(agent, tmp_path / "a")
    agent.archive = archive(tmp_path / "b", tmp_path / "a/git")
    (await asyncio.to_thread(agent.recover, tmp_path / "b")).origin.lock.release()
    machine_lost(tmp_path / "b")
    agent.archive = archive(tmp_path / "c", tmp_path / "a/git")
    async with agent.life(tmp_path / "c") as life:
        assert life.recovered.claimed is not None
        assert texts(await life.journal.read(STREAM, limit=1000)) == ALL


async def test_what_a_writer_brings_before_it_is_fenced_counts(seed: int, tmp_path: Path) -> None:
    store = MemoryStore()
    agent = Agent(seed, store)
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.compact()
        await life.talk("second")
        assert archive(tmp_path / "a").commit(await picture(life.journal), life.journal)
        await life.talk("third", 1)
        assert life.replica
        agent.archive = Late(archive(tmp_path / "b", tmp_path / "a/git"), life.replica.flush)
        recovered = await asyncio.to_thread(agent.recover, tmp_path / "b")
        assert (recovered.origin.source, recovered.claimed is not None) == ("store", True)
        recovered.origin.lock.release()
    agent.archive = None
    assert await heard(agent, tmp_path / "b") == [*ALL, "third, question 0"]


async def test_git_of_another_history_is_told_and_the_store_is_taken(seed: int, tmp_path: Path) -> None:
    async with Agent(seed).life(tmp_path / "other") as life:
        await life.talk("somebody else's", 9, stream=OTHER)
        assert archive(tmp_path / "other").commit(await picture(life.journal), life.journal)
    agent = Agent(seed + 1, MemoryStore())
    await parted(agent, tmp_path / "a")
    agent.archive = archive(tmp_path / "b", tmp_path / "other/git")
    async with agent.life(tmp_path / "b") as life:
        assert life.recovered.origin.source == "store"
        assert "another history" in "\n".join(life.recovered.origin.problems)
        assert texts(await life.journal.read(STREAM, limit=1000)) == ALL[:3]


async def test_a_git_that_does_not_answer_holds_up_no_start_whose_store_does(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, MemoryStore())
    await parted(agent, tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        remote = Remote(f"http://127.0.0.1:{mute.getsockname()[1]}/state.git")
        agent.archive = archive(tmp_path / "b", remote)
        recovered = await asyncio.to_thread(agent.recover, tmp_path / "b", patience_s=0.5)
    recovered.origin.lock.release()
    assert (recovered.origin.source, recovered.claimed is not None) == ("store", True)
    assert "could not be compared" in "\n".join(recovered.origin.problems)


async def test_a_start_from_git_whose_store_refuses_to_be_claimed_is_kept_by_the_next_one(
    seed: int, tmp_path: Path
) -> None:
    store = MemoryStore()
    agent = Agent(seed, store)
    await parted(agent, tmp_path / "a")
    agent.store, agent.archive = Unclaimed(store), archive(tmp_path / "b", tmp_path / "a/git")
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.recovered.claimed) == ("git", None)
        assert "no claims today" in life.recovered.degraded
    agent.store, agent.archive = store, None
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.degraded, life.recovered.claimed is not None) == ("", True)
        await life.flush()
        await life.compact()
    machine_lost(tmp_path / "b")
    assert await heard(agent, tmp_path / "b") == ALL


async def test_a_commit_that_the_manifest_names_is_not_fetched(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, MemoryStore())
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        commit = archive(tmp_path / "a").commit(await picture(life.journal), life.journal)
        await life.compact()
        assert life.replica and commit
        life.replica.publish(archived=commit)
    agent.archive = archive(tmp_path / "b", tmp_path / "a/git")
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.recovered.origin.problems) == ("store", ())
    assert not list((tmp_path / "b/git/objects/pack").iterdir()), "it was only asked what there is"


async def test_a_log_that_is_here_costs_no_request_to_git(seed: int, tmp_path: Path) -> None:
    agent = Agent(seed, MemoryStore())
    await archived(agent, tmp_path / "a")
    agent.archive = Untouched(remote="somewhere")
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "local"


class Untouched:
    """A git that is not to be asked."""

    def __init__(self, remote: object = None) -> None:
        self.remote = remote

    def _asked(self, *_: object, **__: object) -> Any:
        raise AssertionError("git was asked")

    heads = latest = kin = restore = _asked


class Late:
    """A git during whose answer something happens elsewhere."""

    def __init__(self, real: Archive, then: Callable[[], object]) -> None:
        self._real = real
        self._then = then

    def restore(self, *args: Any, **named: Any) -> Any:
        self._then()
        return self._real.restore(*args, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Unclaimed(MemoryStore):
    """A store that shows what it has and takes nothing."""

    def __init__(self, real: MemoryStore) -> None:
        super().__init__()
        self.objects = real.objects

    def create(self, key: str, data: bytes) -> None:
        raise StoreUnreachable("no claims today")


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
    agent = Agent(seed, archive=Untouched())
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
