import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.blobs import Blobs
from persistence.chunks import ChunkRef, Chunks, Line, sealable
from persistence.disk import SystemDisk
from persistence.errors import Damaged
from persistence.events import ChunkSealed, Record
from persistence.journal import Journal
from persistence.streams import STREAMS
from tests.conftest import count
from tests.persistence.journals import STREAM, answer, checkpoint, commit, ended, opened, prompt

TYPES = {
    "u": "user_message",
    "c": "message_checkpointed",
    "a": "assistant_message",
    "f": "call_failed",
    "e": "turn_ended",
    "?": "of_the_future",
}


def lines(types: str) -> list[Line]:
    return [Line(seq, TYPES[one], "t", b"%d" % seq) for seq, one in enumerate(types)]


def sealed(types: str) -> str:
    return "".join(types[line.seq] for line in sealable(lines(types)))


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("", ""),
        ("ua", "ua"),
        ("ucca", "ua"),
        ("uccf", "uf"),
        ("ucce", "ue"),
        ("ucuca", "uua"),
        ("u?ca?", "u?a?"),
        ("uc", "u"),
        ("ucau", "uau"),
        ("ucaucc", "uau"),
        ("ucaucucuu", "uau"),
        ("c", ""),
    ],
)
def test_a_chunk_holds_whole_messages_without_the_checkpoints_they_replaced(tail: str, kept: str) -> None:
    assert sealed(tail) == kept


@given(st.text("ucafe?", max_size=30))
def test_sealing_again_what_a_chunk_was_sealed_from_gives_the_same_chunk(types: str) -> None:
    """A chunk that was lost can only be made again from the log if this holds."""
    tail = lines(types)
    kept = sealable(tail)
    if kept:
        assert sealable([line for line in tail if line.seq <= kept[-1].seq]) == kept
    assert all(line.type != "message_checkpointed" for line in kept)
    assert [line.seq for line in kept] == sorted({line.seq for line in kept})


def test_a_range_of_a_chunk_is_read_and_what_is_damaged_is_not(tmp_path: Path) -> None:
    chunks = Chunks(Blobs(SystemDisk(), tmp_path))
    written = [b'{"seq":%d,"id":"x"}' % seq for seq in (3, 5, 9)]
    sha, size = chunks.write(written)
    ref = ChunkRef(sha, 3, 9, 3, size)
    assert size == sum(len(line) + 1 for line in written)
    assert chunks.read(ref, 0, 100) == written
    assert chunks.read(ref, 3, 9) == written[1:2]
    assert chunks.read(ref, 5, 9) == []
    (tmp_path / sha[:2] / sha[2:]).write_bytes(b"damaged")
    assert chunks.read(ref, 0, 4) == written[:1]  # from memory
    with pytest.raises(Damaged):
        Chunks(Blobs(SystemDisk(), tmp_path)).read(ref, 0, 100)


SCRIPTS = {
    "u": prompt("u" * 40),
    "c": checkpoint("c" * 40),
    "a": answer("a" * 40),
    "e": ended(),
}


async def test_what_is_read_does_not_depend_on_where_it_was_sealed(tmp_path: Path, seed: int) -> None:
    """Over tail and chunks: every range, from either end, is that of the records as they were committed."""
    for n in range(count(12, 200)):
        draw = random.Random(seed + n)
        root = tmp_path / str(n)
        said: list[Record] = []
        async with opened(root) as journal:
            for _ in range(draw.randrange(1, 25)):
                said += await commit(journal, SCRIPTS[draw.choice("uuccae")])
                await commit(journal, prompt("elsewhere"), stream="other")
                if draw.random() < 0.2:
                    await journal.seal(STREAM)
            for _ in range(20):
                after, before = draw.randrange(0, journal.seq + 1), draw.randrange(1, journal.seq + 3)
                limit, last = draw.randrange(1, 12), draw.random() < 0.5
                live = [one.line for one in _kept(journal, said) if after < one.seq < before]
                expected = live[-limit:] if last else live[:limit]
                read = await journal.read(STREAM, after=after, before=before, limit=limit, last=last)
                assert [one.line for one in read] == expected, (seed + n, after, before, limit, last)
        async with opened(root) as journal:
            assert [one.line for one in await journal.read(STREAM)] == [one.line for one in _kept(journal, said)]


def _kept(journal: Journal, said: list[Record]) -> list[Record]:
    """Without the checkpoints that went with a chunk which ends behind them: what replaced them is in there."""
    last = max((chunk.last for chunk in journal.streams(STREAMS)[STREAM].chunks), default=0)
    return [record for record in said if record.type != "message_checkpointed" or record.seq > last]


async def test_sealing_is_a_record_that_says_what_it_moved(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        said = await commit(journal, prompt("one"), checkpoint("t"), answer("two"), prompt("three"), checkpoint("f"))
        seen: list[Record] = []
        journal.listen(seen.append)
        await journal.seal(STREAM)
        (sealed,) = (record.event for record in seen)
        assert isinstance(sealed, ChunkSealed)
        kept = [said[0], said[2], said[3]]
        assert (sealed.first, sealed.last, sealed.count) == (said[0].seq, said[3].seq, 3)
        assert sealed.bytes == sum(len(record.line) + 1 for record in kept)
        assert (sealed.tail_count, sealed.tail_bytes) == (4, sum(len(record.line) for record in said[:4]))
        stream = journal.streams(STREAMS)[STREAM]
        assert (stream.tail_count, stream.tail_bytes) == (1, len(said[4].line))
        assert stream.tail_first is not None
        assert said[3].seq < stream.tail_first <= said[4].seq
        await journal.seal(STREAM)
        assert len(seen) == 1, "nothing is finished, so nothing is sealed"
