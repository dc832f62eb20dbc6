"""What a fenced writer had acknowledged comes back: once, marked, in its place, and never as what it is not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from persistence import orphans
from persistence.disk import SystemDisk
from persistence.errors import StorageFailed, StoreError, StoreUnreachable
from persistence.events import (
    OWNER,
    EntryRecovered,
    Event,
    FileChanged,
    Record,
    SessionCreated,
    TurnStarted,
    UserMessage,
)
from persistence.journal import Journal
from persistence.layout import blob_key, bytes_of, decode_object, encode_object
from persistence.orphans import ORPHANS, Orphans, bring_in, clear, find, keep
from persistence.runs import Run
from persistence.segment import digests
from persistence.stores.memory import MemoryStore
from persistence.upcast import as_said
from tests.persistence.journals import LEDGER, STREAM, answer, checkpoint, commit, ended, killed, opened, prompt, say
from tests.persistence.writers import Watched

OTHER = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
LONG = "x" * 300_000
PREFIX = "orphans/1-one/"


class Parted:
    """A writer `old` that was fenced after the records that it shares with `new`, which lives."""

    def __init__(self, old: Journal, new: Journal, shared: list[Record]) -> None:
        self.old = old
        self.new = new
        self.shared = shared
        self.store = MemoryStore()

    def keep(self, quarantine: Path, limit: int = 1 << 20) -> int:
        """The fenced writer keeps what only it has."""
        return keep(self.store, SystemDisk(), quarantine, 1, "one", self.runs(limit), self.old.blob)

    def runs(self, limit: int = 1 << 20) -> list[Run]:
        runs: list[Run] = []
        seq = self.shared[-1].seq
        while seq < self.old.seq:
            runs.append(self.old.frames(seq, limit))
            seq = runs[-1].last
        return runs

    def found(self) -> tuple[Orphans, ...]:
        search = find(self.store, self.new.whole(ORPHANS).done, self.new.blobs)
        assert not search.problems, search.problems
        return search.orphans

    async def import_all(self) -> int:
        return sum([await bring_in(self.new, SystemDisk(), one) for one in self.found()])

    async def recovered(self, stream: str = STREAM) -> list[Record]:
        return [one for one in await self.new.read(stream) if isinstance(one.event, EntryRecovered)]


@asynccontextmanager
async def parted(tmp_path: Path, *said: Event, stream: str = STREAM) -> AsyncIterator[Parted]:
    """Two lives with a shared past; the fenced one has said more."""
    async with opened(tmp_path / "old", LEDGER, ORPHANS) as old:
        shared = await say(old, "shared")
        shared += await commit(old, answer("shared answer"))
        copy = killed(tmp_path / "old", tmp_path / "copies")
        for event in said:
            await old.commit(event, stream=stream, by=OWNER)
        async with opened(copy, LEDGER, ORPHANS) as new:
            await say(new, "said to the successor")
            yield Parted(old, new, shared)


def frame_of(pair: Parted, record: Record) -> str | None:
    """The checksum that the log of the fenced writer has for its record."""
    return next(found for run in pair.runs() if (found := digests(run.body).get(record.seq)))


def said(record: Record) -> Any:
    return as_said(record).event


async def test_what_was_acknowledged_comes_back_as_it_was_said_and_marked(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("lost?"), answer("no")) as pair:
        assert pair.keep(tmp_path / "q") == 1
        assert await pair.import_all() == 2
        first, second = await pair.recovered()
        assert (said(first).text, said(second).text) == ("lost?", "no")
        old = (await pair.old.read(STREAM))[-2:]
        assert [as_said(one).time for one in (first, second)] == [one.time for one in old]
        assert [one.event.origin for one in (first, second) if isinstance(one.event, EntryRecovered)] == [
            f"{one.entry}/{frame_of(pair, one)}" for one in old
        ]


async def test_an_orphan_stands_below_what_it_was_said_below_under_its_new_name(tmp_path: Path) -> None:
    async with parted(tmp_path) as pair:
        asked = (await say(pair.old, "question"))[0]
        shared = pair.shared[-1].entry
        await commit(pair.old, TurnStarted(turn="t", entry=asked.entry, parent=shared))
        told = (await commit(pair.old, answer("first").model_copy(update={"parent": asked.entry})))[0]
        await commit(pair.old, answer("second").model_copy(update={"parent": told.entry}), ended())
        pair.keep(tmp_path / "q")
        await pair.import_all()
        one, two, three = await pair.recovered()
        assert [said(record).parent for record in (one, two, three)] == [shared, one.entry, two.entry]


async def test_a_message_that_never_got_its_turn_stands_below_the_orphan_before_it(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("one", "a"), prompt("two", "b")) as pair:
        pair.keep(tmp_path / "q")
        await pair.import_all()
        one, two = await pair.recovered()
        assert [said(one).parent, said(two).parent] == [None, one.entry]


async def test_a_session_that_only_the_fenced_writer_had_comes_back(tmp_path: Path) -> None:
    async with parted(tmp_path, SessionCreated(title="New"), prompt("in it"), stream=OTHER) as pair:
        pair.keep(tmp_path / "q")
        await pair.import_all()
        assert [type(said(one)) for one in await pair.recovered(OTHER)] == [SessionCreated, UserMessage]


async def test_bookkeeping_of_the_lost_reign_does_not_come_back(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a"), checkpoint("half"), answer("whole"), ended()) as pair:
        await pair.old.seal(STREAM)
        pair.keep(tmp_path / "q")
        assert await pair.import_all() == 2


async def test_a_long_text_comes_back_whole(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt(LONG)) as pair:
        pair.keep(tmp_path / "q")
        await pair.import_all()
        assert [said(one).text for one in await pair.recovered()] == [LONG]
        assert not pair.new.loss


async def test_a_file_of_the_fenced_writer_lands_in_quarantine_and_changes_no_living_one(tmp_path: Path) -> None:
    async with parted(tmp_path) as pair:
        sha = pair.old.blobs.put(b"what I wrote")
        await commit(
            pair.old, FileChanged(root="grimoires", path="memory/../NOTES.md", sha256=sha, bytes=12), stream=None
        )
        pair.keep(tmp_path / "q")
        assert await pair.import_all() == 1
        kept = [path for path in pair.new.paths.quarantine.iterdir() if path.suffix == ".md"]
        assert [path.read_bytes() for path in kept] == [b"what I wrote"]
        assert kept[0].parent == pair.new.paths.quarantine


async def test_what_was_brought_in_is_not_found_again_and_goes_once_the_store_has_the_record(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a"), prompt("b")) as pair:
        pair.keep(tmp_path / "q", limit=1)
        before = pair.new.seq
        assert await pair.import_all() == 2
        assert pair.found() == ()
        done = pair.new.whole(ORPHANS).done
        pair.store.put("orphans/9-other/0000000000000001.wal", b"not looked at yet")
        assert clear(pair.store, done, before) == 0
        assert clear(pair.store, done, pair.new.seq) == 2
        left = [key for key in pair.store.objects if key.startswith("orphans/")]
        assert left == ["orphans/9-other/0000000000000001.wal"]
        assert clear(pair.store, done, pair.new.seq) == 0


@pytest.mark.parametrize("commits", range(4))
async def test_an_import_that_is_cut_short_anywhere_brings_each_in_once(tmp_path: Path, commits: int) -> None:
    async with parted(tmp_path, prompt("a"), prompt("b"), answer("c")) as pair:
        pair.keep(tmp_path / "q")
        commit, left = pair.new.commit, [None] * commits

        async def failing(event: Event, **kwargs: Any) -> Record:
            if not left:
                raise StorageFailed("cut")
            left.pop()
            return await commit(event, **kwargs)

        pair.new.commit = failing  # type: ignore[method-assign]
        with pytest.raises(StorageFailed):
            await pair.import_all()
        pair.new.commit = commit  # type: ignore[method-assign]
        await pair.import_all()
        assert [said(one).text for one in await pair.recovered()] == ["a", "b", "c"]
        assert len(pair.new.whole(ORPHANS).done) == 1


async def test_what_comes_in_later_of_the_same_writer_finds_its_parents(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a")) as pair:
        pair.keep(tmp_path / "q", limit=1)
        await pair.import_all()
        last = (await pair.old.read(STREAM))[-1]
        await commit(pair.old, answer("b").model_copy(update={"parent": last.entry}))
        pair.keep(tmp_path / "q", limit=1)
        assert await pair.import_all() == 1
        one, two = await pair.recovered()
        assert said(two).parent == one.entry


async def test_the_state_after_an_import_is_that_of_the_log(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a"), answer("b")) as pair:
        pair.keep(tmp_path / "q")
        await pair.import_all()
        async with opened(killed(pair.new.paths.root, tmp_path / "again"), LEDGER, ORPHANS) as again:
            assert again.state_sha() == pair.new.state_sha()
            assert [type(one.event) for one in (await again.read(STREAM))[-2:]] == [EntryRecovered] * 2
            assert again.whole(ORPHANS).done.keys() == {f"{PREFIX}{pair.runs()[0].first:016d}.wal"}


async def test_what_this_log_has_itself_does_not_come_in_a_second_time(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a"), answer("b")) as pair:
        pair.keep(tmp_path / "q")
        last = (await pair.old.read(STREAM))[-1]
        await commit(pair.old, answer("c").model_copy(update={"parent": last.entry}))
        for one in find(pair.store, {}, pair.old.blobs).orphans:
            assert await bring_in(pair.old, SystemDisk(), one) == 0
        assert not [one for one in await pair.old.read(STREAM) if isinstance(one.event, EntryRecovered)]
        assert len(pair.old.whole(ORPHANS).done) == 1


async def test_two_writers_that_shared_an_epoch_both_get_theirs_back(tmp_path: Path) -> None:
    async with parted(tmp_path / "a", prompt("of the one")) as pair, parted(tmp_path / "b", prompt("of two")) as other:
        pair.keep(tmp_path / "q")
        keep(pair.store, SystemDisk(), tmp_path / "q", 1, "two", other.runs(), other.old.blob)
        assert (await pair.old.read(STREAM))[-1].entry == (await other.old.read(STREAM))[-1].entry
        assert await pair.import_all() == 2
        assert [said(one).text for one in await pair.recovered()] == ["of the one", "of two"]


# ---------------------------------------------------------------- keeping


async def test_it_is_safe_in_quarantine_before_the_store_is_asked(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a")) as pair:

        def away(call: str, key: str) -> None:
            raise StoreUnreachable("away")

        with pytest.raises(StoreError):
            keep(Watched(pair.store, before=away), SystemDisk(), tmp_path / "q", 1, "one", pair.runs(), pair.old.blob)
        frames, note = sorted((tmp_path / "q").iterdir(), key=lambda path: path.suffix, reverse=True)
        assert frames.read_bytes() == pair.runs()[0].body
        assert b"acknowledged here" in note.read_bytes()


async def test_keeping_again_changes_nothing(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt(LONG), prompt("b")) as pair:
        pair.keep(tmp_path / "q")
        before = dict(pair.store.objects)
        pair.keep(tmp_path / "q")
        assert pair.store.objects == before


async def test_blobs_are_there_before_the_object_that_names_them(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt(LONG)) as pair:
        watched = Watched(pair.store)
        keep(watched, SystemDisk(), tmp_path / "q", 1, "one", pair.runs(), pair.old.blob)
        assert [key.partition("/")[0] for _, key in watched.calls] == ["blob", "orphans"]


# ---------------------------------------------------------------- what others may have put there


def forged(pair: Parted, change: str) -> bytes:
    """An object of orphans, changed in one respect."""
    key = next(key for key in pair.store.objects if key.startswith(PREFIX))
    one = decode_object(pair.store.objects[key], key)
    if change == "another writer":
        return bytes_of(encode_object(replace(one.header, writer="two"), one.body))
    if change == "another beginning":
        return bytes_of(encode_object(replace(one.header, chain_in="ab" * 32), one.body))
    if change == "a record left out":
        end = one.body.index(b"\n", one.body.index(b"\n") + 1) + 1
        start = one.body.index(b"\n") + 1
        return bytes_of(encode_object(one.header, one.body[:start] + one.body[end:]))
    if change == "no frames":
        return bytes_of(encode_object(one.header, b"what is this"))
    return pair.store.objects[key][:-2]


@pytest.mark.parametrize(
    "change", ["another writer", "another beginning", "a record left out", "no frames", "cut short"]
)
async def test_what_is_not_what_it_says_is_told_and_left_alone(tmp_path: Path, change: str) -> None:
    async with parted(tmp_path, prompt("a"), prompt("b"), prompt("c")) as pair:
        pair.keep(tmp_path / "q")
        key = next(key for key in pair.store.objects if key.startswith(PREFIX))
        pair.store.objects[key] = forged(pair, change)
        search = find(pair.store, {}, pair.new.blobs)
        assert search.orphans == ()
        assert key in search.problems[0]
        assert key in pair.store.objects


async def test_more_than_memory_should_hold_comes_with_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parted(tmp_path, prompt("a"), prompt("b"), prompt("c")) as pair:
        pair.keep(tmp_path / "q", limit=1)
        one = len(next(data for key, data in pair.store.objects.items() if key.startswith(PREFIX)))
        monkeypatch.setattr(orphans, "FOUND_BYTES", one * 3 // 2)
        assert [await pair.import_all() for _ in range(4)] == [1, 1, 1, 0]
        assert [said(one).text for one in await pair.recovered()] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["orphans/x", "orphans/1-one/1.wal", "orphans/1-one/a/0000000000000001.wal"])
async def test_a_strange_name_is_told_and_left_alone(tmp_path: Path, name: str) -> None:
    async with parted(tmp_path) as pair:
        pair.store.put(name, b"?")
        assert name in find(pair.store, {}, pair.new.blobs).problems[0]


async def test_a_session_whose_name_is_a_path_is_not_brought_in(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt("a"), stream="../../evil") as pair:
        pair.keep(tmp_path / "q")
        search = find(pair.store, {}, pair.new.blobs)
        assert search.orphans == ()
        assert "no session" in search.problems[0]


async def test_a_blob_that_is_not_what_its_name_says_is_not_taken(tmp_path: Path) -> None:
    async with parted(tmp_path, prompt(LONG)) as pair:
        pair.keep(tmp_path / "q")
        sha = pair.runs()[0].blobs[0]
        pair.store.objects[blob_key(sha)] = b"poison"
        search = find(pair.store, {}, pair.new.blobs)
        assert list(pair.new.paths.blobs.glob("*/*")) == []
        assert "cannot read this text" in said_first(search.orphans).text


def said_first(found: tuple[Orphans, ...]) -> Any:
    return found[0].records[0].event
