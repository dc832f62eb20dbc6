"""What is only elsewhere comes when it is first read, and stays."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from persistence.codec import BLOB_BYTES
from persistence.errors import NotFound, StoreUnreachable
from persistence.replay import Means
from persistence.streams import STREAMS
from tests.persistence.journals import STREAM, means, opened, say, texts

LONG = "é" * BLOB_BYTES


class Elsewhere:
    """Chunks and blobs by kind and hash. `asked` is what was fetched."""

    def __init__(self, root: Path) -> None:
        self.objects = {
            (kind, path.parent.name + path.name): path.read_bytes()
            for kind in ("chunk", "blob")
            for path in (root / f"{kind}s").rglob("*")
            if path.is_file()
        }
        self.asked: list[tuple[str, str]] = []
        self.answers = True

    def __call__(self, kind: str, sha: str) -> bytes:
        self.asked.append((kind, sha))
        if not self.answers:
            raise StoreUnreachable("no answer", hint="wait")
        if (kind, sha) not in self.objects:
            raise NotFound(f"no {kind} {sha}")
        return self.objects[kind, sha]

    @property
    def means(self) -> Means:
        return replace(means(seed=1), fetch=self, replicated=True)


async def restored(root: Path) -> Elsewhere:
    """A directory whose sealed part, a long text in it and one in the tail are only elsewhere."""
    async with opened(root) as journal:
        await say(journal, "one", LONG, "three")
        await journal.seal(STREAM)
        await say(journal, "x" + LONG)
        copy = Elsewhere(root)
    # Nothing of it is left in the log either: neither a line that could be sealed again.
    (segment,) = (root / "wal").glob("*.wal")
    segment.write_bytes(segment.read_bytes().replace(b'"text":"three"', b'"text":"eerht"'))
    shutil.rmtree(root / "chunks")
    shutil.rmtree(root / "blobs")
    return copy


async def test_a_reading_brings_what_it_needs_and_keeps_it(tmp_path: Path) -> None:
    copy = await restored(tmp_path)
    async with opened(tmp_path, with_means=copy.means) as journal:
        assert texts(await journal.read(STREAM)) == ["one", LONG, "three", "x" + LONG]
        assert set(copy.asked) == set(copy.objects)
        copy.asked.clear()
    async with opened(tmp_path, with_means=copy.means) as journal:
        assert texts(await journal.read(STREAM)) == ["one", LONG, "three", "x" + LONG]
        assert copy.asked == []


async def test_what_is_missing_is_known_until_all_of_it_was_fetched(tmp_path: Path) -> None:
    copy = await restored(tmp_path)
    async with opened(tmp_path, with_means=copy.means) as journal:
        while missing := journal.missing():
            assert set(missing) <= set(copy.objects)
            for kind, sha in missing:
                data = journal.chunk(sha) if kind == "chunk" else journal.blob(sha)
                assert sha256(data).hexdigest() == sha
        copy.answers = False
        assert len(await journal.read(STREAM)) == 4


async def test_where_nothing_answers_a_reading_fails_and_nothing_counts_as_lost(tmp_path: Path) -> None:
    copy = await restored(tmp_path)
    copy.answers = False
    async with opened(tmp_path, with_means=copy.means) as journal:
        before = journal.loss
        with pytest.raises(StoreUnreachable):
            await journal.read(STREAM)
        assert journal.loss == before
        copy.answers = True
        assert texts(await journal.read(STREAM)) == ["one", LONG, "three", "x" + LONG]


def _gone(copy: Elsewhere) -> None:
    copy.objects.clear()


def _wrong(copy: Elsewhere) -> None:
    copy.objects = dict.fromkeys(copy.objects, b"something else")


@pytest.mark.parametrize("change", [_gone, _wrong])
async def test_what_is_nowhere_or_wrong_is_told_and_the_rest_is_served(
    tmp_path: Path, change: Callable[[Elsewhere], None]
) -> None:
    copy = await restored(tmp_path)
    change(copy)
    async with opened(tmp_path, with_means=copy.means) as journal:
        found = texts(await journal.read(STREAM))
        assert found[0] == "one"
        assert "cannot read this text" in found[-1]
        assert "1 of 3 records" in journal.loss


async def test_a_damaged_chunk_is_replaced_by_the_copy(tmp_path: Path) -> None:
    copy = await restored(tmp_path)
    async with opened(tmp_path, with_means=copy.means) as journal:
        sha = journal.streams(STREAMS)[STREAM].chunks[0].sha256
        journal.chunk(sha)
    path = tmp_path / "chunks" / sha[:2] / sha[2:]
    path.write_bytes(path.read_bytes()[:-3])
    async with opened(tmp_path, with_means=copy.means) as journal:
        assert texts(await journal.read(STREAM))[:3] == ["one", LONG, "three"]
        assert sha256(path.read_bytes()).hexdigest() == sha
