"""What is read when a chunk, a blob or a record of the log is missing or damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persistence.chunks import ChunkRef
from persistence.codec import BLOB_BYTES
from persistence.events import UserMessage
from persistence.streams import STREAMS
from tests.persistence.journals import (
    STREAM,
    answer,
    checkpoint,
    commit,
    means,
    opened,
    prompt,
    say,
    texts,
)

TEXTS = ["one", "two", "three"]


async def sealed(root: Path) -> ChunkRef:
    """A session of three prompts and an answer in a chunk, then one prompt in the tail. Nothing is in memory."""
    async with opened(root) as journal:
        await say(journal, *TEXTS)
        await commit(journal, checkpoint("f"), answer("four"))
        await say(journal, "elsewhere", stream="other")
        await journal.seal(STREAM)
        await say(journal, "five")
        return journal.streams(STREAMS)[STREAM].chunks[0]


def file_of(root: Path, ref: ChunkRef) -> Path:
    return root / "chunks" / ref.sha256[:2] / ref.sha256[2:]


def missing(path: Path) -> None:
    path.unlink()


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"two", b"owt"))


DAMAGES = pytest.mark.parametrize("damage", [missing, short, flipped])


@DAMAGES
async def test_a_lost_chunk_is_made_again_from_the_log(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    ref = await sealed(tmp_path)
    whole = file_of(tmp_path, ref).read_bytes()
    damage(file_of(tmp_path, ref))
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == [*TEXTS, "five"]
        assert journal.loss == ""
        assert file_of(tmp_path, ref).read_bytes() == whole
        assert list(journal.paths.quarantine.iterdir()) == []


@DAMAGES
@pytest.mark.parametrize("last", [False, True])
async def test_where_the_log_has_lost_a_record_too_the_rest_is_served_and_the_loss_told(
    tmp_path: Path, damage: Callable[[Path], None], last: bool
) -> None:
    ref = await sealed(tmp_path)
    damage(file_of(tmp_path, ref))
    (segment,) = (tmp_path / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes().replace(b'"text":"two"', b'"text":"owt"'))
    async with opened(tmp_path) as journal:
        for _ in range(2):
            assert texts(await journal.read(STREAM, last=last)) == ["one", "three", "five"]
            assert texts(await journal.read(STREAM, limit=1, last=last)) == ["five" if last else "one"]
        assert f"1 of {ref.count} records {ref.first}-{ref.last} of {STREAM}" in journal.loss
        kept = {path.name: path for path in journal.paths.quarantine.iterdir() if path.name.startswith("chunk-")}
    if damage is missing:
        assert kept == {}
    else:
        name = f"chunk-{ref.first}-{ref.last}-{ref.sha256[:12]}"
        assert set(kept) == {name, f"{name}.json"}
        assert json.loads(kept[f"{name}.json"].read_bytes())["sha256"] == ref.sha256


async def test_a_page_is_filled_across_what_is_lost(tmp_path: Path) -> None:
    """A short page means the end to every reader, so a loss must not look like one."""
    async with opened(tmp_path) as journal:
        await say(journal, *TEXTS, "four")
    (segment,) = (tmp_path / "wal").glob("*.wal")
    async with opened(tmp_path) as journal:
        segment.write_bytes(segment.read_bytes().replace(b'"text":"two"', b'"text":"owt"'))
        assert texts(await journal.read(STREAM, limit=2)) == ["one", "three"]
        assert texts(await journal.read(STREAM, limit=3, last=True)) == ["one", "three", "four"]
        assert "record 3" in journal.loss


async def test_a_session_whose_blob_is_lost_opens_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one", "x" * (BLOB_BYTES + 1), "three")
    for blob in (tmp_path / "blobs").glob("*/*"):
        blob.unlink()
    for snapshot in (tmp_path / "snapshots").iterdir():
        snapshot.unlink()
    async with opened(tmp_path) as journal:
        assert "a text of record 3" in journal.loss
        first, second, third = await journal.read(STREAM)
        assert texts((first, third)) == ["one", "three"]
        assert isinstance(second.event, UserMessage)
        assert "cannot read this text" in second.event.text


async def test_records_that_were_lost_from_the_tail_do_not_stay_in_its_count(tmp_path: Path) -> None:
    """Else the tail would look full for ever, and every further record become a chunk of its own."""
    async with opened(tmp_path) as journal:
        await say(journal, *TEXTS)
        await journal.snapshot()
    (segment,) = (tmp_path / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes().replace(b'"text":"two"', b'"text":"owt"'))
    async with opened(tmp_path, with_means=means()) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "three"]
        await say(journal, "four")
        await journal.seal(STREAM)
        stream = journal.streams(STREAMS)[STREAM]
        assert (stream.tail_first, stream.tail_count, stream.tail_bytes) == (None, 0, 0)
        assert texts(await journal.read(STREAM)) == ["one", "three", "four"]
        await commit(journal, prompt("five"))
        assert journal.streams(STREAMS)[STREAM].tail_count == 1


def forget(root: Path) -> None:
    """The state is to be folded from the log."""
    for snapshot in (root / "snapshots").iterdir():
        snapshot.unlink()


@pytest.mark.parametrize("lost", [0, 1])
async def test_what_was_sealed_is_served_also_where_the_record_of_the_seal_is_lost(tmp_path: Path, lost: int) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one", "two")
        await journal.seal(STREAM)
        await say(journal, "three", "four")
        await commit(journal, checkpoint("fi"), answer("five"))
        await journal.seal(STREAM)
        await say(journal, "six")
    (segment,) = (tmp_path / "wal").glob("*.wal")
    head, *seals = segment.read_bytes().split(b'"type":"chunk_sealed"')
    seals[lost] = seals[lost].replace(b'"first"', b'"First"', 1)
    segment.write_bytes(b'"type":"chunk_sealed"'.join((head, *seals)))
    forget(tmp_path)
    said = ["one", "two", "three", "four", "six"]
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == said
        assert texts(await journal.read(STREAM, last=True, limit=9)) == said
        await journal.seal(STREAM)
        assert texts(await journal.read(STREAM)) == said
    for _ in range(2):
        async with opened(tmp_path) as journal:
            assert texts(await journal.read(STREAM)) == said
            await journal.seal(STREAM)
            stream = journal.streams(STREAMS)[STREAM]
            assert (stream.tail_first, stream.tail_count, stream.tail_bytes) == (None, 0, 0)
            firsts = [chunk.first for chunk in stream.chunks]
            assert firsts == sorted(firsts)
        forget(tmp_path)
