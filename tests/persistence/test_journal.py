"""The door to the log: what is seen when, what is kept, and what a start finds."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from persistence import events, upcast
from persistence.chunks import SEAL_BYTES
from persistence.clock import FakeClock
from persistence.codec import BLOB_BYTES, rest
from persistence.disk import SystemDisk
from persistence.errors import Locked, StorageClosed, StorageError, StorageFull
from persistence.events import (
    OWNER,
    SYSTEM,
    ChunkSealed,
    Event,
    GapDeclared,
    LogRecovered,
    Record,
    SessionCreated,
    UserMessage,
)
from persistence.fold import Fold
from persistence.frame import encode
from persistence.journal import Journal
from persistence.lock import hold
from persistence.origin import Origin
from persistence.recovery import inspect
from persistence.reigns import Reign, Reigns
from persistence.replay import Paths, prepare
from persistence.scan import BLOCK_BYTES
from persistence.snapshot import listed, path_of
from persistence.streams import STREAMS
from persistence.upkeep import SNAPSHOT_RECORDS
from tests.persistence.journals import (
    LEDGER,
    STREAM,
    Ledger,
    answer,
    checkpoint,
    commit,
    ended,
    enter,
    killed,
    logged,
    means,
    opened,
    prompt,
    say,
    texts,
)
from tests.persistence.logs import FaultyDisk

# ---------------------------------------------------------------- commit


async def test_a_record_is_folded_then_shown_then_told_then_returned(tmp_path: Path) -> None:
    order: list[str] = []

    def step(ledger: Ledger, record: Record) -> Ledger:
        order.append("fold")
        return enter(ledger, record)

    fold = Fold("ledger", 1, Ledger, Ledger(), step, True, (UserMessage,))
    async with opened(tmp_path, fold) as journal:
        subscription = journal.subscribe(STREAM)
        put = subscription.put
        subscription.put = lambda item: (order.append("subscriber"), put(item))[1]  # type: ignore[func-returns-value,method-assign]
        journal.listen(lambda record: order.append(f"listener {journal.streams(fold)[STREAM].count}"))
        await journal.commit(prompt("hi"), stream=STREAM)
        order.append("caller")
    assert order == ["fold", "subscriber", "listener 1", "caller"]


async def test_everybody_sees_the_order_of_the_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        seen: list[int] = []
        journal.listen(lambda record: seen.append(record.seq))
        first = journal.seq + 1
        records = await asyncio.gather(*(journal.commit(prompt(str(n)), stream=STREAM) for n in range(200)))
    assert seen == [record.seq for record in records] == list(range(first, first + 200))
    assert [record.seq for record in logged(tmp_path)] == list(range(1, first + 200))


async def test_nothing_is_seen_before_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        seen: list[bool] = []
        journal.listen(lambda record: seen.append(logged(tmp_path)[-1].seq >= record.seq))
        await say(journal, "one", "two")
        assert seen == [True, True]


async def test_a_full_disk_changes_nothing_and_the_next_commit_works(tmp_path: Path) -> None:
    disk = FaultyDisk(number=errno.ENOSPC, of=["write"])
    async with opened(tmp_path, with_means=means(disk)) as journal:
        await say(journal, "one")
        seen: list[Record] = []
        journal.listen(seen.append)
        before, head = journal.state_sha(), journal.seq
        disk.nth = disk.calls + 1
        with pytest.raises(StorageFull):
            await say(journal, "lost")
        assert (journal.state_sha(), journal.seq, seen) == (before, head, [])
        (record,) = await say(journal, "two")
        assert record.seq == head + 1
        assert texts(await journal.read(STREAM)) == ["one", "two"]
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "two"]


async def test_a_caller_that_gave_up_does_not_keep_its_record_from_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        gone = asyncio.create_task(journal.commit(prompt("gone"), stream=STREAM))
        await asyncio.sleep(0)
        gone.cancel()
        await say(journal, "here")
        assert texts(await journal.read(STREAM)) == ["gone", "here"]


async def test_a_large_event_is_the_same_live_and_read_back(tmp_path: Path) -> None:
    text = "é" * BLOB_BYTES
    async with opened(tmp_path) as journal:
        (record,) = await say(journal, text)
        assert len(record.line) < 1000
        assert texts((record,)) == texts(await journal.read(STREAM)) == [text]
        state = journal.state_sha()
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == [text]
        assert journal.state_sha() == state


async def test_a_secret_is_in_no_file_and_in_no_state(tmp_path: Path) -> None:
    secret = "sk-0123456789abcdef"
    async with opened(tmp_path, with_means=means(secrets={"KEY": secret})) as journal:
        (record,) = await say(journal, f"my key is {secret}")
        assert texts((record,)) == ["my key is [REDACTED:KEY]"]
        assert journal.redact(secret) == "[REDACTED:KEY]"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


async def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one")
    with pytest.raises(StorageClosed):
        await say(journal, "two")


# ---------------------------------------------------------------- one writer


async def test_a_second_journal_on_the_same_directory_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        with pytest.raises(Locked):
            await Journal.open(tmp_path, (LEDGER,), means())
        await say(journal, "still here")
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == ["still here"]


async def test_a_start_that_fails_lets_go_of_the_directory(tmp_path: Path) -> None:
    disk = FaultyDisk(nth=1, number=errno.ENOSPC, forever=True, of=["write"])
    with pytest.raises(StorageFull):
        await Journal.open(tmp_path, (LEDGER,), means(disk))
    async with opened(tmp_path) as journal:
        await say(journal, "one")


# ---------------------------------------------------------------- every way to the same state


async def lived(root: Path) -> str:
    """A log with chunks, a tail, an open message and three snapshots; gives its state."""
    async with opened(root) as journal:
        for n in range(4):
            await commit(journal, SessionCreated(title=f"{n}"), stream=f"session {n}")
            await say(journal, "one", "two", stream=f"session {n}")
            await commit(journal, checkpoint("th"), answer("three"), ended(), stream=f"session {n}")
            await journal.seal(f"session {n}")
            await journal.snapshot()
        await commit(journal, prompt("four"), checkpoint("fi"), stream="session 0")
        return journal.state_sha()


def _nothing(root: Path) -> None:
    """A clean stop and a start."""


def _no_last_snapshot(root: Path) -> None:
    listed(root / "snapshots")[0].unlink()


def _damaged_snapshots(root: Path) -> None:
    for path in listed(root / "snapshots")[:2]:
        path.write_bytes(path.read_bytes()[:-20])


def _no_snapshots(root: Path) -> None:
    for path in listed(root / "snapshots"):
        path.unlink()


@pytest.mark.parametrize("change", [_nothing, _no_last_snapshot, _damaged_snapshots, _no_snapshots])
async def test_every_way_of_starting_gives_the_same_state(tmp_path: Path, change: Callable[[Path], None]) -> None:
    state = await lived(tmp_path)
    change(tmp_path)
    async with opened(tmp_path) as journal:
        assert journal.state_sha() == state
        assert ("json.z" in journal.loss) is (change is _damaged_snapshots)
        assert texts(await journal.read("session 0")) == ["one", "two", "four"]
        (record,) = await say(journal, "five", stream="session 0")
        state = journal.state_sha()
        stream = journal.streams(STREAMS)["session 0"]
        assert stream.tail_count == 3
        assert record.seq == journal.seq
    async with opened(tmp_path) as journal:
        assert journal.state_sha() == state


async def test_a_clean_stop_leaves_nothing_to_replay_and_a_start_writes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "LOCK"}
    async with opened(tmp_path) as journal:
        assert path_of(journal.paths.snapshots, journal.seq).exists()
        assert journal.source == "local"
        assert journal.loss == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "LOCK"} == before


async def test_the_first_start_says_that_it_was_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        assert journal.source == "template"
    (record,) = logged(tmp_path)
    assert record.event == LogRecovered(source="template", last_seq=0, epoch=1)
    assert record.by == SYSTEM


async def test_what_was_lost_behind_a_snapshot_is_a_gap_and_its_numbers_are_never_used_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "whole") as journal:
        await say(journal, "one")
        root = killed(tmp_path / "whole", tmp_path / "copies")
        lost = await say(journal, "two", "three")
    for path in listed(tmp_path / "whole" / "snapshots"):
        (root / "snapshots" / path.name).write_bytes(path.read_bytes())
    async with opened(root) as journal:
        gap, recovered = logged(root)[-2:]
        assert isinstance(gap.event, GapDeclared)
        assert (gap.event.first, gap.event.last) == (lost[0].seq, lost[-1].seq)
        assert gap.seq == lost[-1].seq + 1
        assert isinstance(recovered.event, LogRecovered)
        assert recovered.event.damaged == (lost[0].seq,)
        assert f"{lost[0].seq}-{lost[-1].seq}" in journal.loss
        assert journal.streams(LEDGER)[STREAM].count == 3, "the snapshot saw them"
        assert texts(await journal.read(STREAM)) == ["one"]
        await say(journal, "four")
    async with opened(root) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "four"]
        assert journal.loss == "", "what is declared is not new"


async def test_a_damaged_record_in_the_middle_is_told_and_the_rest_is_served(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        said = await say(journal, "one", "two", "three")
    _no_snapshots(tmp_path)
    (segment,) = (tmp_path / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes().replace(b'"text":"two"', b'"text":"owt"'))
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "three"]
        assert f"records {said[1].seq}-{said[1].seq} could not be read" in journal.loss
        assert any(b"owt" in path.read_bytes() for path in journal.paths.quarantine.iterdir())


async def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "whole") as journal:
        await say(journal, "one", "two")
        root = killed(tmp_path / "whole", tmp_path / "copies")
    (segment,) = (root / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes()[:-7])
    async with opened(root) as journal:
        assert texts(await journal.read(STREAM)) == ["one"]
        recovered = logged(root)[-1].event
        assert isinstance(recovered, LogRecovered)
        assert recovered.torn_bytes > 0


async def test_whole_records_behind_a_hole_that_a_power_cut_left_are_no_part_of_the_state(tmp_path: Path) -> None:
    async with opened(tmp_path / "whole") as journal:
        await say(journal, "one")
        root = killed(tmp_path / "whole", tmp_path / "copies")
    (segment,) = (root / "wal").glob("*.wal")
    data = segment.read_bytes()
    hole = -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
    whole = data + b"".join(_unsynced(root, ["lost " * 200] * 4))
    segment.write_bytes(whole[:hole] + bytes(BLOCK_BYTES) + whole[hole + BLOCK_BYTES :])
    async with opened(root) as journal:
        assert texts(await journal.read(STREAM)) == ["one"]
        assert journal.streams(LEDGER)[STREAM].count == 1
        recovered = logged(root)[-1].event
        assert isinstance(recovered, LogRecovered)
        assert recovered.torn_bytes > 0


def _unsynced(root: Path, prompts: list[str]) -> list[bytes]:
    """The frames of a batch behind the log's end."""
    seq, digest, _ = inspect(SystemDisk(), root / "wal").head
    frames = []
    for number, text in enumerate(prompts, seq + 1):
        begin = b'{"seq":%d,"id":"%026d","ts":0,"epoch":1,"d":%d,' % (number, number, seq)
        frame, digest = encode(begin + rest(prompt(text), STREAM, OWNER), digest)
        frames.append(frame)
    return frames


# ---------------------------------------------------------------- programs of other times


class Dreamed(Event):
    kind = "dreamed"
    v: ClassVar[int] = 1
    of: str


DREAMS = Fold("dreams", 1, Ledger, Ledger(), enter, True, (Dreamed,))
PROMPTS = Fold("prompts", 1, Ledger, Ledger(), enter, False, (UserMessage,))


@pytest.fixture
def dreaming(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches between a program that knows `dreamed` and one that does not."""

    def switch(knows: bool) -> None:
        kinds = {event.kind: event for event in events.EVENTS} | ({"dreamed": Dreamed} if knows else {})
        monkeypatch.setattr(upcast, "KINDS", kinds)
        monkeypatch.setattr(upcast.lift, "__defaults__", (kinds, upcast.UPCASTS))

    return switch


async def test_an_older_program_keeps_what_it_does_not_know_and_a_newer_one_folds_it(
    tmp_path: Path, dreaming: Callable[[bool], None]
) -> None:
    """Deploy, chat, roll back, chat, roll forward loses nothing."""
    new, old = (LEDGER, DREAMS, PROMPTS), (LEDGER,)
    dreaming(True)
    async with opened(tmp_path / "here", *new) as journal:
        await commit(journal, prompt("one"), Dreamed(of="sheep"), stream=STREAM)
        root = killed(tmp_path / "here", tmp_path / "copies")
        await commit(journal, prompt("two"), Dreamed(of="wolves"), stream=STREAM)
        new_state = journal.streams(DREAMS)[STREAM]
    dreaming(False)
    for path, held in ((tmp_path / "here", 0), (root, 1)):  # with its snapshot, and with the log alone
        for _ in range(2):
            async with opened(path, *old) as journal:
                assert len(journal.held) == held
                await say(journal, "rolled back")
                assert journal.streams(LEDGER)[STREAM].count > 1
    dreaming(True)
    async with opened(tmp_path / "here", *new) as journal:
        assert journal.loss == "", "a snapshot of another release is no loss: the log has everything"
        assert journal.streams(DREAMS)[STREAM] == new_state
        assert journal.whole(PROMPTS).count == 4, "also what came while nobody had that fold"
        assert journal.held == ()
    async with opened(root, LEDGER, DREAMS) as journal:
        assert journal.streams(DREAMS)[STREAM].count == 1
        state = journal.state_sha()
    _no_snapshots(root)
    async with opened(root, LEDGER, DREAMS) as journal:
        assert journal.state_sha() == state


async def test_an_unknown_record_is_kept_byte_for_byte_and_everything_else_works(
    tmp_path: Path, dreaming: Callable[[bool], None]
) -> None:
    dreaming(True)
    async with opened(tmp_path, LEDGER) as journal:
        (dream,) = await commit(journal, Dreamed(of="sheep"))
        await say(journal, "one")
    _no_snapshots(tmp_path)
    dreaming(False)
    for _ in range(2):
        async with opened(tmp_path, LEDGER) as journal:
            (held,) = journal.held
            assert (held.seq, held.stream, held.line.encode()) == (dream.seq, STREAM, dream.line)
            await journal.seal(STREAM)
            found = await journal.read(STREAM)
            assert dream.line in [record.line for record in found]
            await say(journal, "two")


# ---------------------------------------------------------------- upkeep


async def _until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.001)


async def test_a_tail_that_is_full_is_sealed_in_the_background(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        tending = asyncio.create_task(journal.tend())
        for _ in range(2):
            await say(journal, "x" * (SEAL_BYTES // 2))
        await _until(lambda: bool(journal.streams(STREAMS)[STREAM].chunks))
        tending.cancel()
        await asyncio.wait([tending])
        assert len(texts(await journal.read(STREAM))) == 2


async def test_a_snapshot_is_taken_after_so_many_records(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        tending = asyncio.create_task(journal.tend())
        for start in range(0, SNAPSHOT_RECORDS, 1000):
            await asyncio.gather(*(journal.commit(prompt("x")) for _ in range(start, start + 1000)))
        await _until(lambda: bool(listed(journal.paths.snapshots)))
        tending.cancel()
        await asyncio.wait([tending])


async def _fill(journal: Journal, segments: int) -> None:
    """Records of other sessions until the log has so many segments."""
    while len(list((journal.paths.wal).glob("*.wal"))) < segments:
        await asyncio.gather(*(say(journal, "x" * 200_000, stream=f"filler {n}") for n in range(20)))


async def test_a_start_replays_from_the_oldest_record_that_is_in_no_chunk(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one", "two")
        await _fill(journal, segments=2)
    async with opened(tmp_path) as journal:
        assert path_of(journal.paths.snapshots, journal.seq).exists()
        assert texts(await journal.read(STREAM)) == ["one", "two"]


async def test_a_tail_that_begins_far_back_is_sealed_so_that_a_start_need_not_go_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        tending = asyncio.create_task(journal.tend())
        await say(journal, "one")
        await _fill(journal, segments=4)
        await _until(lambda: bool(journal.streams(STREAMS)[STREAM].chunks))
        tending.cancel()
        await asyncio.wait([tending])
        assert texts(await journal.read(STREAM)) == ["one"]


class NoChunks(SystemDisk):
    """Refuses new files in chunks/ and snapshots/ while it is told to."""

    refusing = True

    def rename(self, old: Path, new: Path) -> None:
        if self.refusing and ("chunks" in new.parts or "snapshots" in new.parts):
            raise OSError(errno.ENOSPC, "full")
        super().rename(old, new)


async def test_a_disk_that_takes_no_chunk_stops_nothing_and_the_next_record_tries_again(tmp_path: Path) -> None:
    disk = NoChunks()
    async with opened(tmp_path, with_means=means(disk)) as journal:
        tending = asyncio.create_task(journal.tend())
        for _ in range(2):
            await say(journal, "x" * (SEAL_BYTES // 2))
        await _until(lambda: "no space left" in journal.trouble)
        assert not tending.done()
        disk.refusing = False
        await say(journal, "elsewhere", stream="other")
        await _until(lambda: bool(journal.streams(STREAMS)[STREAM].chunks))
        await _until(lambda: journal.trouble == "")
        tending.cancel()
        await asyncio.wait([tending])


async def test_the_end_is_clean_where_the_last_snapshot_finds_no_room(tmp_path: Path) -> None:
    async with opened(tmp_path, with_means=means(NoChunks())) as journal:
        await say(journal, "one")
    assert listed(tmp_path / "snapshots") == ()
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == ["one"]


async def test_a_snapshot_that_failed_is_taken_at_the_end(tmp_path: Path) -> None:
    disk = NoChunks()
    async with opened(tmp_path, with_means=means(disk)) as journal:
        await say(journal, "one")
        with pytest.raises(StorageError):
            await journal.snapshot()
        disk.refusing = False
    assert len(listed(tmp_path / "snapshots")) == 1


async def test_a_chunk_is_on_disk_before_the_record_that_names_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one", "two")
        found: list[bool] = []

        def look(record: Record) -> None:
            if isinstance(record.event, ChunkSealed):
                sha = record.event.sha256
                found.append((tmp_path / "chunks" / sha[:2] / sha[2:]).exists())

        journal.listen(look)
        await journal.seal(STREAM)
    assert found == [True]
    assert [record.by for record in logged(tmp_path)[-3:]] == [OWNER, OWNER, SYSTEM]


async def test_record_ids_increase_across_a_start_under_a_clock_that_went_back(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, with_means=means(clock=clock)) as journal:
        before = await journal.commit(SessionCreated(title=""), stream=STREAM)
    clock.advance(-3600)
    async with opened(tmp_path, with_means=means(clock=clock, seed=1)) as journal:
        after = await journal.commit(SessionCreated(title=""), stream=STREAM)
    assert after.id > before.id


# ---------------------------------------------------------------- after a recovery


async def test_a_journal_of_another_origin_writes_under_its_epoch_and_says_where_it_came_from(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one")
    lock = hold(tmp_path / "wal")
    origin = Origin("store", 7, lock, problems=("a manifest was damaged",), ms=12, bytes=345, discarded=((9, 10),))
    journal = await Journal.open(tmp_path, (LEDGER,), means(seed=1), origin)
    try:
        told = logged(tmp_path)[-1]
        assert told.epoch == journal.epoch == 7
        assert told.event == LogRecovered(
            source="store",
            last_seq=told.seq - 1,
            epoch=7,
            ms=12,
            bytes=345,
            discarded=((9, 10),),
            problems=("a manifest was damaged",),
        )
        assert (journal.source, journal.loss) == ("store", "a manifest was damaged")
        with pytest.raises(Locked):
            await Journal.open(tmp_path, (LEDGER,), means())
    finally:
        await journal.close()
    hold(tmp_path / "wal").release()


async def test_a_local_start_with_nothing_to_tell_tells_nothing_and_has_its_reign_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        head = journal.seq
    journal = await Journal.open(tmp_path, (LEDGER,), means(seed=1), Origin("local", 5, hold(tmp_path / "wal")))
    try:
        assert journal.seq == head
        assert journal.reigns == Reigns((Reign(1, 1), Reign(5, head + 1)))
        assert journal.reigns.holds(5, head, head)
        assert journal.reigns.holds(1, head, head)
        await say(journal, "one")
        assert journal.reigns == Reigns((Reign(1, 1), Reign(5, head + 1)))
    finally:
        await journal.close()


async def test_what_a_recovery_has_folded_is_not_read_again_and_what_it_cut_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "whole") as journal:
        await say(journal, "one", "two")
        root = killed(tmp_path / "whole", tmp_path / "copies")
    (segment,) = (root / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes()[:-7])
    made = means(seed=1)
    lock, replayed = prepare(Paths(root), (LEDGER,), made)
    assert replayed.damage == ()
    journal = await Journal.open(root, (LEDGER,), made, Origin("local", 3, lock, replayed=replayed))
    try:
        assert journal.replayed is replayed
        assert texts(await journal.read(STREAM)) == ["one"]
        told = logged(root)[-1].event
        assert isinstance(told, LogRecovered)
        assert (told.torn_bytes, told.epoch) == (replayed.repaired.torn_bytes, 3)
        assert told.torn_bytes > 0
    finally:
        await journal.close()


def test_a_recovery_that_an_older_release_told_is_read() -> None:
    event = upcast.lift("log_recovered", 1, {"source": "local", "last_seq": 9, "torn_bytes": 3, "damaged": [4]})
    assert event == LogRecovered(source="local", last_seq=9, epoch=None, torn_bytes=3, damaged=(4,))
