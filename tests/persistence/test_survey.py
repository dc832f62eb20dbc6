"""The state of a log as a start would find it, with nothing touched."""

import asyncio
import hashlib
from pathlib import Path

from persistence.disk import SystemDisk
from persistence.replay import Paths, replay, survey
from persistence.scan import BLOCK_BYTES, segment_name, segments
from tests.persistence.journals import LEDGER, STREAM, killed, means, opened, say


def _bytes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _last_segment(root: Path) -> Path:
    return root / "wal" / segment_name(segments(SystemDisk(), root / "wal")[-1])


def test_a_survey_of_nothing_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    found = survey(Paths(tmp_path / "none"), (LEDGER,), means())
    assert (found.head.seq, found.folded.streams(LEDGER), list(tmp_path.iterdir())) == (0, {}, [])


async def test_a_survey_comes_to_what_a_start_comes_to_also_behind_a_torn_hole(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as journal:
        await say(journal, *(f"text {n}" for n in range(4)))
        many = (say(journal, f"{n} " + "at once " * 300) for n in range(5))  # none of them says of another it is safe
        await asyncio.gather(*many)
        root = killed(tmp_path / "a", tmp_path / "copies")
    data = _last_segment(root).read_bytes()
    lines = data.splitlines(keepends=True)
    while b'{"seq":' not in lines[-1]:  # a watermark, which would say that all before it is durable
        lines.pop()
    start = -(-sum(map(len, lines[:-5])) // BLOCK_BYTES) * BLOCK_BYTES  # a block that never came to the disk
    whole = b"".join(lines)
    _last_segment(root).write_bytes(whole[:start] + bytes(BLOCK_BYTES) + whole[start + BLOCK_BYTES :])
    before = _bytes(root)
    found = survey(Paths(root), (LEDGER,), means())
    assert _bytes(root) == before
    started = replay(Paths(root), (LEDGER,), means())
    assert found.repaired.torn_bytes == started.repaired.torn_bytes > 0
    assert (*found.head[:2], found.epoch, found.last_id) == (*started.head[:2], started.epoch, started.last_id)
    assert found.folded.dump() == started.folded.dump()
    assert found.folded.streams(LEDGER)[STREAM].count < 9
