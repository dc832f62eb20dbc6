"""What leaves for the store: every durable record once, in its own bytes, in runs that prove themselves."""

import asyncio
import random
from pathlib import Path

import pytest

from persistence.chunks import SEAL_BYTES
from persistence.codec import BLOB_BYTES
from persistence.disk import SystemDisk
from persistence.errors import Damaged, NotFound
from persistence.events import FileChanged
from persistence.frame import GENESIS, encode
from persistence.journal import Journal
from persistence.runs import Run, Runs
from persistence.scan import segments
from persistence.snapshot import decode, listed
from persistence.streams import STREAMS
from persistence.wal import Head, Pending, Wal
from tests.persistence.journals import STREAM, checkpoint, commit, means, opened, say, texts
from tests.persistence.logs import Log, gap, last_file, lines, tail

PLENTY = 1 << 20


def proven(run: Run) -> list[bytes]:
    """The records of a run, each held against the one before."""
    digest, found = bytes.fromhex(run.chain_in), []
    for frame in run.body.splitlines(keepends=True):
        line = frame[83:-1]
        again, digest = encode(line, digest)
        assert again == frame
        found.append(line)
    assert digest.hex() == run.chain_out
    assert run.last - run.first + 1 == len(found)
    return found


def shipped(journal: Journal, after: int, limit: int) -> list[bytes]:
    found: list[bytes] = []
    while after < journal.durable:
        run = journal.frames(after, limit)
        assert run.first == after + 1
        found += proven(run)
        after = run.last
    return found


async def test_every_record_goes_once_in_its_own_bytes_whatever_the_limit(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    async with opened(tmp_path) as journal:
        for _ in range(5):
            await say(journal, *("x" * draw.randrange(3000) for _ in range(20)))
            assert shipped(journal, 0, draw.choice((1, 2000, PLENTY))) == lines(tmp_path)
    async with opened(tmp_path) as journal:
        after = draw.randrange(journal.durable)
        assert shipped(journal, after, 5000) == lines(tmp_path)[after:]


async def test_a_run_begins_at_genesis_and_links_to_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, *"abcdef")
        first = journal.frames(0, 600)
        second = journal.frames(first.last, PLENTY)
        assert first.chain_in == GENESIS.hex()
        assert second.chain_in == first.chain_out
        assert second.last == journal.durable


async def test_a_limit_below_one_record_gives_that_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "x" * 5000)
        run = journal.frames(1, 10)
        assert (run.first, run.last) == (2, 2)


def test_runs_go_on_into_the_next_segment_without_its_control_lines(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=700, quiet_s=0.001)
    log.say(*"abcdefgh")
    runs = Runs(SystemDisk(), log.dir, lambda: log.wal.head.seq)
    assert len(log.wal.segments()) > 2
    assert proven(runs.after(0, PLENTY)) == lines(tmp_path)
    log.say("i", "j")
    assert proven(runs.after(8, PLENTY)) == lines(tmp_path)[8:]
    log.close()


def test_what_is_not_known_to_be_durable_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say(*"abc")
    log.close()
    runs = Runs(SystemDisk(), log.dir, lambda: 2)
    assert runs.after(0, PLENTY).last == 2
    with pytest.raises(NotFound, match="after 2"):
        runs.after(2, PLENTY)


def test_damage_ends_a_run_and_only_whole_records_go(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say("one", "two", "three")
    log.close()
    path = last_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"text":"two"', b'"text":"owt"'))
    log = Log(tmp_path)
    log.add(gap(2, 2))
    runs = Runs(SystemDisk(), log.dir, lambda: log.wal.head.seq)
    first, second = runs.after(0, PLENTY), runs.after(1, PLENTY)
    assert (first.first, first.last) == (1, 1)
    assert (second.first, second.last) == (3, 4)
    assert proven(first) + proven(second) == lines(tmp_path)
    log.close()


def test_a_flaw_around_a_record_is_not_carried_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say("one", "two", "three")
    log.close()
    whole = Runs(SystemDisk(), log.dir, lambda: 3).after(0, PLENTY)
    path = last_file(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b'"text":"two"') - 150
    crc = data.index(b"\n", at) + 10
    data[crc] ^= 1
    path.write_bytes(data)
    assert Runs(SystemDisk(), log.dir, lambda: 3).after(0, PLENTY) == whole


def test_what_the_log_no_longer_has_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=700)
    log.say(*"abcdefgh")
    log.wal.drop(segments(SystemDisk(), log.dir)[0])
    with pytest.raises(NotFound, match="no longer"):
        Runs(SystemDisk(), log.dir, lambda: 8).after(0, PLENTY)
    log.close()


async def test_a_run_names_the_blobs_of_its_records_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        text = "é" * BLOB_BYTES
        await say(journal, text, "small", text)
        sha = journal.blobs.put(b"a file")
        change = FileChanged(root="workspace", path="a", sha256=sha, bytes=6)
        await commit(journal, change, change.model_copy(update={"sha256": None}), stream=None)
        run = journal.frames(0, PLENTY)
        assert [journal.blob(sha) for sha in run.blobs] == [text.encode(), b"a file"]


async def test_growth_is_told_once_it_is_durable_and_not_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        grown = asyncio.create_task(journal.growth(journal.durable))
        await asyncio.sleep(0)
        assert not grown.done()
        (record,) = await say(journal, "one")
        assert await grown == journal.durable == record.seq
        assert await journal.growth(0) == record.seq


async def test_a_chunk_is_given_whole_and_made_again_where_its_file_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one", "x" * SEAL_BYTES)
        await commit(journal, checkpoint("not sealed"))
        await journal.seal(STREAM)
        sha = journal.streams(STREAMS)[STREAM].chunks[0].sha256
        whole = journal.chunk(sha)
        path = tmp_path / "chunks" / sha[:2] / sha[2:]
        path.unlink()
        assert journal.chunk(sha) == whole == path.read_bytes()
        path.write_bytes(b"?")
        (tmp_path / "wal" / "0000000000000001.wal").write_bytes(b"")
        with pytest.raises(Damaged):
            journal.chunk(sha)


async def test_a_log_that_begins_behind_its_snapshot_is_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, *"abc")
        await journal.seal(STREAM)
    (path,) = listed(tmp_path / "snapshots")
    snapshot = decode(path.read_bytes(), path.name)
    (segment,) = (tmp_path / "wal").glob("*.wal")
    segment.unlink()
    made = means(seed=1)
    head = Head(snapshot.seq, bytes.fromhex(snapshot.chain), snapshot.seq)
    wal = Wal.open(
        made.disk, tmp_path / "wal", head=head, epoch=2, ids=made.ids, clock=made.clock, deliver=lambda *_: None
    )
    wal.append(Pending(tail("d"), None))
    wal.close()
    async with opened(tmp_path, with_means=made) as journal:
        assert journal.loss == ""
        assert (journal.seq, journal.epoch) == (snapshot.seq + 1, 2)
        assert texts(await journal.read(STREAM)) == ["a", "b", "c"]
        run = journal.frames(snapshot.seq, PLENTY)
        assert (run.first, run.last, run.chain_in) == (snapshot.seq + 1, snapshot.seq + 1, snapshot.chain)
