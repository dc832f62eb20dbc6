"""A log that a newer finn has written to: what this one does not know, it keeps, reports and works around."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from persistence.disk import SystemDisk
from persistence.frame import encode
from persistence.scan import Good, scan, segments
from tests.end_to_end.finn import ECHO, Finn, finn, until
from tests.site import fingerprint

pytestmark = pytest.mark.slow

NEWER_ID = "01K9ZZZZZZZZZZZZZZZZZZZZZZ"


def append(it: Finn, *records: dict[str, Any]) -> list[bytes]:
    """Appends records to the log of a finn that is not running, as a newer one would; the bytes of their lines."""
    wal = it.data / "wal"
    disk = SystemDisk()
    last = [found for found in scan(disk, wal) if isinstance(found, Good)][-1]
    digest, lines = bytes.fromhex(last.checksum), []
    path = sorted(wal.glob("*.wal"))[-1]
    assert len(segments(disk, wal)) == 1
    with path.open("ab") as file:
        for n, record in enumerate(records, last.seq + 1):
            head = {"seq": n, "id": NEWER_ID, "ts": 1795167350115, "epoch": 1, "d": last.seq}
            line = json.dumps({**head, **record}, separators=(",", ":")).encode()
            framed, digest = encode(line, digest)
            file.write(framed)
            lines.append(line)
    return lines


def future(session: str) -> tuple[dict[str, Any], ...]:
    by = {"actor": "owner", "trust": "user"}
    return (
        {"stream": session, "by": by, "type": "mind_read", "v": 1, "data": {"thought": "who knows", "turn": 7}},
        {"stream": session, "by": by, "type": "user_message", "v": 99, "data": {"words": ["of", "tomorrow"]}},
        {"stream": None, "by": by, "type": "season_changed", "v": 3, "data": {"to": "spring"}},
        {"stream": session, "by": by, "type": "session_renamed", "v": 2, "data": {"titles": {"en": "x"}}},
    )


def kept(it: Finn) -> bytes:
    """Everything in the log and in the chunks."""
    folders = it.data / "wal", it.data / "chunks"
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())


def held(it: Finn) -> Any:
    health = it.ask("GET", "/health").json
    (check,) = health["checks"]["wal:held"]
    assert health["status"] == check["status"] == "warn"
    assert "newer release" in check["output"]
    return check["observedValue"]


async def test_records_of_the_future_are_kept_and_reported_and_everything_else_works(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session("before")
        it.say(session, "one")
        assert it.stop() == 0
        lines = append(it, *future(session))

        it.start()
        assert held(it) == len(lines)
        assert it.ask("GET", "/readyz").status == 200
        assert it.say(session, "two")["reply"] == "You said: two"
        said = ["one", "You said: one", "two", "You said: two"]
        assert [one["text"] for one in it.messages(session)] == said
        assert it.ask("GET", f"/api/sessions/{session}").json["title"] == "before"
        assert it.ask("PATCH", f"/api/sessions/{session}", {"title": "after"}).json["title"] == "after"
        assert it.ask("GET", f"/api/sessions/{session}/export?format=jsonl").status == 200
        assert it.ask("GET", f"/api/sessions/{session}/export?format=md").status == 200
        async with it.open(session, after=0) as line:
            await line.turn("three")
        assert [frame["data"]["text"] for frame in line.of("user_message")] == ["one", "two", "three"]
        assert all(one in kept(it) for one in lines)
        verdict = it.verify()
        assert (verdict["ok"], verdict["damage"]) == (True, [])

        for stop in (it.stop, it.kill):  # with a snapshot that was taken after them, and without
            stop()
            it.start()
            assert held(it) == len(lines)
            assert all(one in kept(it) for one in lines)
            assert len(await asyncio.to_thread(it.messages, session)) == 6
        assert len(list((it.data / "snapshots").iterdir())) >= 1


def test_a_record_of_the_future_is_kept_when_its_session_is_sealed(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session()
        it.say(session, "one")
        it.stop()
        lines = append(it, *future(session))
        it.start()
        for n in range(4):
            it.say(session, f"{n}" * 100_000)
        until(lambda: any(path.is_file() for path in (it.data / "chunks").rglob("*")), "the session was never sealed")
        it.stop()
        it.start()
        assert held(it) == len(lines)
        chunks = b"".join(path.read_bytes() for path in (it.data / "chunks").rglob("*") if path.is_file())
        assert all(line in chunks for line in lines if b'"stream":null' not in line)
        assert len(it.messages(session)) == 10
        assert it.verify()["ok"]


def test_a_log_with_records_of_the_future_is_not_rewritten_by_a_start(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session()
        it.stop()
        append(it, *future(session))
        before = (it.data / "wal").stat().st_ino, sorted((it.data / "wal").glob("*.wal"))[-1].read_bytes()
        it.start()
        it.kill()
        now = (it.data / "wal").stat().st_ino, sorted((it.data / "wal").glob("*.wal"))[-1].read_bytes()
        assert now[0] == before[0]
        assert now[1].startswith(before[1])
        assert not any(fingerprint(it.data / "quarantine"))
