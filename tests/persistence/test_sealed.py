"""A start that takes finished segments at one hash finds what a start finds that reads every record."""

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from persistence import recovery, replay
from persistence.clock import FakeClock
from persistence.disk import Disk, SystemDisk
from persistence.events import ChunkSealed, SessionCreated
from persistence.journal import Journal
from persistence.scan import Found, segment_name, segments, walk
from persistence.sealed import proven
from persistence.wal import Wal
from tests.conftest import count
from tests.persistence.journals import checkpoint, commit, logged, means, opened, say, texts
from tests.persistence.logs import flip, parts

SESSIONS = ("a", 'b "quoted" \\ ü', "c")


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Wal.open.__func__.__kwdefaults__, "segment_bytes", 3000)  # type: ignore[attr-defined]


async def lived(root: Path) -> list[list[str]]:
    """Several segments with tails, chunks, watermarks and records of no session, all of it in a snapshot."""
    async with opened(root) as journal:
        for n in range(5):
            await commit(journal, SessionCreated(title="x"), stream=None)
            for session in SESSIONS:
                await say(journal, f"{n} one {'x' * 100}", f"{n} two", stream=session)
            await commit(journal, checkpoint("open"), stream="c")
            if n == 2:
                await journal.seal("a")
        return await said(journal)


async def said(journal: Journal) -> list[list[str]]:
    return [texts(await journal.read(session)) for session in SESSIONS]


def proofs(root: Path) -> list[bool]:
    """Of every finished segment, whether it proves itself."""
    wal = root / "wal"
    bases = segments(SystemDisk(), wal)
    return [proven(SystemDisk(), wal, base, after) is not None for base, after in pairwise(bases)]


async def test_the_same_is_found_as_by_reading_every_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = await lived(tmp_path)
    assert len(proofs(tmp_path)) > 2
    assert all(proofs(tmp_path))
    read: list[int] = []

    def walked(disk: Disk, wal: Path, bases: list[int]) -> Iterator[Found]:
        read.extend(bases)
        return walk(disk, wal, bases)

    monkeypatch.setattr(recovery, "walk", walked)
    async with opened(tmp_path) as journal:
        quick = journal.replayed
        assert read == [_last(tmp_path)], "of the others no record was read by itself"
        assert await said(journal) == conversations
    monkeypatch.setattr(replay, "proven", lambda *_: None)
    async with opened(tmp_path) as journal:
        slow = journal.replayed
    for session in SESSIONS:
        assert quick.tails.between(session, 0, 10**6) == slow.tails.between(session, 0, 10**6)
    assert (quick.head, quick.epoch, quick.problems) == (slow.head, slow.epoch, slow.problems)
    assert any(isinstance(record.event, ChunkSealed) for record in logged(tmp_path))


async def test_ids_go_on_behind_a_segment_that_was_only_indexed(tmp_path: Path) -> None:
    """Also where the next one holds no record yet, under a clock that went back."""
    await lived(tmp_path)
    path = tmp_path / "wal" / segment_name(_last(tmp_path))
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")
    last = logged(tmp_path)[-1]
    clock = FakeClock()
    clock.advance(-3600)
    async with opened(tmp_path, with_means=means(clock=clock, seed=9)) as journal:
        (record,) = await say(journal, "on", stream="a")
    assert record.id > last.id


async def test_one_changed_byte_in_a_finished_segment_is_found_and_nothing_else_suffers(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    conversations = await lived(tmp_path / "whole")
    bytes_of_finished = [part for part in parts(tmp_path / "whole") if part.segment != _last(tmp_path / "whole")]
    records = {record.seq: record for record in logged(tmp_path / "whole")}
    for n in range(count(25, 1000)):
        root = tmp_path / str(n)
        shutil.copytree(tmp_path / "whole", root)
        part = draw.choice(bytes_of_finished)
        flip(root, part, 1 << draw.randrange(8))
        assert not all(proofs(root)), part
        async with opened(root, with_means=means(seed=n)) as journal:
            found = await said(journal)
            record = records.get(part.seq or 0)
            lost = record.event.text if record and record.type == "user_message" else None  # type: ignore[attr-defined]
            expected = [
                [text for text in one if text != lost or text in now] for one, now in _pairs(conversations, found)
            ]
            assert found == expected, part
            assert found == conversations or journal.loss, part
        shutil.rmtree(root)


def _pairs(before: list[list[str]], now: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    return list(zip(before, now, strict=True))


def _last(root: Path) -> int:
    return segments(SystemDisk(), root / "wal")[-1]
