"""Each record of a log lost in its turn, with no snapshot to help: the rest is served, nothing runs again."""

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.finn import ECHO, Finn, finn, until

pytestmark = pytest.mark.slow

LOOKED = [[{"text": "Let me look."}, {"tool": "read", "args": {"path": "."}}], [{"text": "Nothing here."}]]
SCRIPT = [{"when": "look", "calls": LOOKED}, ECHO]


@pytest.mark.limit(180)
def test_whichever_record_is_lost_the_rest_is_served_and_nothing_runs_again(tmp_path: Path) -> None:
    with finn(tmp_path, SCRIPT) as it:
        session = it.new_session()
        for text in ("one", "look", "three"):
            it.say(session, text)
        it.ask("PATCH", f"/api/sessions/{session}", {"title": "talk"})
        whole = said(it, session)
        it.stop()
        shutil.rmtree(it.data / "snapshots")
        shutil.copytree(it.data, tmp_path / "sound")
        asked = len(it.sent())
        for start, record in records(tmp_path / "sound"):
            shutil.rmtree(it.data)
            shutil.copytree(tmp_path / "sound", it.data)
            flip(log_of(it.data), start + 200)
            it.start()
            rest = [one for one in whole if one[0] != record["seq"]]
            assert said(it, session) == rest, record
            exported = it.ask("GET", f"/api/sessions/{session}/export?format=jsonl")
            assert exported.status == 200, record
            until(lambda: (it.data / "state" / "sessions" / f"{session}.jsonl").exists())
            assert len(it.sent()) == asked, f"a turn ran again: {record}"
            assert it.say(session, "and now")["reply"] == "You said: and now", record
            asked = len(it.sent())
            it.kill()


def said(it: Finn, session: str) -> list[tuple[int, str]]:
    return [(message["seq"], message["text"]) for message in it.messages(session)]


def log_of(data: Path) -> Path:
    (segment,) = (data / "wal").glob("*.wal")
    return segment


def records(data: Path) -> list[tuple[int, dict[str, object]]]:
    """Where each record of the sessions begins, and what it says."""
    found, start = [], 0
    for line in log_of(data).read_bytes().splitlines(keepends=True):
        record = json.loads(line[line.index(b"{") :])
        if record.get("stream"):
            found.append((start, record))
        start += len(line)
    return found


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
