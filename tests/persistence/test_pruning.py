"""What of the log may go, and that nothing is missed afterwards."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import Damaged, Newer, NotFound
from persistence.events import UserMessage
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.scan import segment_name, segments
from persistence.snapshot import listed
from persistence.streams import STREAMS
from persistence.upkeep import SNAPSHOT_SECONDS
from persistence.wal import Wal
from tests.persistence.journals import LEDGER, Ledger, enter, killed, means, opened, prompt, say, texts

SESSIONS = ("a", "b")


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Wal.open.__func__.__kwdefaults__, "segment_bytes", 4000)  # type: ignore[attr-defined]


async def grown(journal: Journal, rounds: int = 3, first: int = 0) -> None:
    """Several segments, all but the last of them in chunks, and a snapshot for each round."""
    for n in range(first, first + rounds):
        for session in SESSIONS:
            await say(journal, *(f"{n} {word} {'x' * 300}" for word in ("one", "two", "three", "four")), stream=session)
            await journal.seal(session)
        await journal.snapshot()


def bases(root: Path) -> list[int]:
    return segments(SystemDisk(), root / "wal")


async def said(journal: Journal) -> list[list[str]]:
    return [texts(await journal.read(session)) for session in SESSIONS]


async def test_what_every_kept_snapshot_and_the_chunks_have_goes_and_nothing_is_missed(tmp_path: Path) -> None:
    async with opened(tmp_path / "here") as journal:
        await grown(journal)
        before, state, conversations = bases(journal.paths.root), journal.state_sha(), await said(journal)
        dropped = await journal.prune()
        assert dropped > 0
        assert bases(journal.paths.root) == before[dropped:]
        assert await said(journal) == conversations
        copy = killed(journal.paths.root, tmp_path / "copies")
    for path in listed(copy / "snapshots")[:2]:
        path.write_bytes(b"?")
    async with opened(copy) as journal:
        assert journal.state_sha() == state, "also from the oldest snapshot alone"
        assert await said(journal) == conversations
        assert "begins at" not in journal.loss
        await say(journal, "on", stream="a")
        await grown(journal, first=3)
        assert await journal.prune() > 0


async def test_nothing_goes_before_there_are_three_snapshots(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await grown(journal, rounds=2)
        assert len(bases(tmp_path)) > 2
        assert await journal.prune() == 0


async def test_with_a_store_nothing_goes_that_it_does_not_have(tmp_path: Path) -> None:
    async with opened(tmp_path, with_means=replace(means(), replicated=True)) as journal:
        await grown(journal)
        before = bases(tmp_path)
        assert await journal.prune(1) == 0
        assert await journal.prune(before[1] - 1) == 0
        assert await journal.prune(before[1]) == 1
        assert bases(tmp_path) == before[1:]


@pytest.mark.parametrize("replicated", [False, True])
async def test_upkeep_prunes_by_itself_only_where_there_is_no_store(tmp_path: Path, replicated: bool) -> None:
    made = replace(means(), replicated=replicated)
    async with opened(tmp_path, with_means=made) as journal:
        await grown(journal)
        assert bases(tmp_path)[0] == 1
        made.clock.advance(SNAPSHOT_SECONDS)  # type: ignore[attr-defined]
        tending = asyncio.create_task(journal.tend())
        newest = listed(journal.paths.snapshots)[0]
        await say(journal, "one more", stream="a")
        while listed(journal.paths.snapshots)[0] == newest or (bases(tmp_path)[0] == 1 and not replicated):
            await asyncio.sleep(0.001)
        tending.cancel()
        await asyncio.wait([tending])
        assert journal.trouble == ""
        assert (bases(tmp_path)[0] == 1) is replicated


async def test_a_chunk_whose_file_is_gone_is_made_again_before_its_records_go(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await grown(journal)
        conversations = await said(journal)
    for path in (tmp_path / "chunks").rglob("*"):
        if path.is_file():
            path.unlink()
    async with opened(tmp_path, with_means=means(seed=1)) as journal:
        assert await journal.prune() > 0
        assert journal.missing() != []
        for session in SESSIONS:
            for ref in journal.streams(STREAMS)[session].chunks[1:]:
                journal.chunk(ref.sha256)
        assert await said(journal) == conversations


async def test_records_whose_chunk_cannot_be_made_again_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await grown(journal)
        sha = journal.streams(STREAMS)["a"].chunks[0].sha256
    (tmp_path / "chunks" / sha[:2] / sha[2:]).unlink()
    path = tmp_path / "wal" / segment_name(1)
    path.write_bytes(path.read_bytes().replace(b"0 two", b"0 owt", 1))
    async with opened(tmp_path, with_means=means(seed=1)) as journal:
        with pytest.raises(NotFound):
            await journal.prune()
        assert bases(tmp_path)[0] == 1
        assert len((await said(journal))[0]) == 11


# ---------------------------------------------------------------- a log without its beginning


async def pruned(root: Path) -> str:
    async with opened(root) as journal:
        await grown(journal)
        assert await journal.prune() > 0
        return journal.state_sha()


async def test_a_new_fold_begins_where_the_log_does_and_says_so(tmp_path: Path) -> None:
    await pruned(tmp_path)
    late = Fold("late", 1, Ledger, Ledger(), enter, True, (UserMessage,))
    async with opened(tmp_path, LEDGER, late) as journal:
        assert journal.streams(LEDGER)["a"].count == 12
        assert "what late shows leaves out" in journal.loss
        assert len((await said(journal))[0]) == 12
        await say(journal, "on", stream="a")
        assert journal.streams(late)["a"].count == 1


@dataclass(frozen=True, slots=True)
class Renamed:
    number: int = 0


def count(state: Renamed, _: object) -> Renamed:
    return Renamed(state.number + 1)


def lifted(states: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {stream: {"number": state["count"]} for stream, state in states.items()}


async def test_an_older_state_is_lifted_where_there_are_steps(tmp_path: Path) -> None:
    await pruned(tmp_path)
    fold = Fold("ledger", 2, Renamed, Renamed(), count, True, (UserMessage,), {1: lifted})
    async with opened(tmp_path, fold) as journal:
        assert journal.streams(fold)["a"] == Renamed(12)
        assert journal.loss == ""


async def test_a_state_of_a_later_release_stops_the_start_rather_than_being_forgotten(tmp_path: Path) -> None:
    later = Fold("ledger", 2, Ledger, Ledger(), enter, True, (UserMessage,))
    async with opened(tmp_path, later) as journal:
        await grown(journal)
        await journal.prune()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "LOCK"}
    with pytest.raises(Newer, match="version 2"):
        await Journal.open(tmp_path, (LEDGER,), means())
    assert {path: path.read_bytes() for path in files} == files
    async with opened(tmp_path, later) as journal:
        assert journal.loss == ""


async def test_a_log_without_its_beginning_and_without_a_snapshot_declares_what_is_lost(tmp_path: Path) -> None:
    await pruned(tmp_path)
    begin = bases(tmp_path)[0]
    for path in listed(tmp_path / "snapshots"):
        path.unlink()
    async with opened(tmp_path) as journal:
        assert f"records 1-{begin - 1} could not be read" in journal.loss
        await journal.commit(prompt("on"), stream="a")
    async with opened(tmp_path) as journal:
        assert "could not be read" not in journal.loss, "what is declared is not new"


def test_damage_is_not_newer() -> None:
    assert not issubclass(Damaged, Newer)
