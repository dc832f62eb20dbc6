"""The file that Pi opens: written from the log, never read back into it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.mirror import export
from persistence.clock import iso
from persistence.events import (
    OWNER,
    SYSTEM,
    AssistantMessage,
    EntryRecovered,
    Json,
    NoteAdded,
    SessionRenamed,
    ToolEnded,
    UserMessage,
)
from tests.agent.houses import SESSION, House, house

SCRIPT: Any = {
    "replies": [
        {"when": "tools", "calls": [[{"text": "Look"}, {"tool": "echo", "args": {"text": "x"}}], [{"text": "Done."}]]},
        {"when": "slow", "calls": [[{"text": "Well"}, {"sleep": 1}, {"text": "!"}]]},
        [{"text": "{prompt}!"}],
    ],
    "loop": True,
}


def path(root: Path) -> Path:
    return root / "state" / "sessions" / f"{SESSION}.jsonl"


def content(root: Path) -> bytes:
    """The file, or nothing while there is none."""
    try:
        return path(root).read_bytes() if path(root).is_file() else b""
    except FileNotFoundError:  # moved aside since
        return b""


def lines(root: Path) -> list[Json]:
    data = content(root)
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


@asynccontextmanager
async def mirrored(root: Path) -> AsyncIterator[House]:
    async with house(root, SCRIPT) as home:
        serving = asyncio.create_task(home.mirror.serve())
        try:
            yield home
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def caught_up(home: House, root: Path) -> list[Json]:
    """The lines of the file, once they are those of the log."""
    expected = await export(home.journal, SESSION, home.state(), home.root / "workspace")
    await home.until(lambda: content(root) == expected)
    return lines(root)


async def rename(home: House, title: str) -> None:
    await home.journal.commit(SessionRenamed(title=title), stream=SESSION, by=OWNER)


async def test_every_entry_of_the_session_is_a_line_and_nothing_else_is(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("tools")
        await rename(home, "Ü")
        found = await caught_up(home, tmp_path)
        log = {record.entry: record for record in await home.log()}
        prompt, look, result, done, named = (log[line["id"]] for line in found[1:])
        stamp = iso(prompt.time / 1000)
        assert isinstance(look.event, AssistantMessage)
        assert isinstance(result.event, ToolEnded)
        common = {"api": "scripted", "provider": "scripted", "model": "script.json"}
        cost = {"input": 0.0, "output": 0.0, "cacheRead": 0.0, "cacheWrite": 0.0, "total": 0.0}
        call = look.event.content[1].model_dump()
        assert found == [
            {"type": "session", "version": 3, "id": SESSION, "timestamp": stamp, "cwd": str(tmp_path / "workspace")},
            {
                "type": "message",
                "id": prompt.entry,
                "parentId": None,
                "timestamp": stamp,
                "message": {"role": "user", "content": [{"type": "text", "text": "tools"}], "timestamp": prompt.time},
                "finnSeq": prompt.seq + 1,
            },
            {
                "type": "message",
                "id": look.entry,
                "parentId": prompt.entry,
                "timestamp": stamp,
                "message": {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "Look"}, call],
                    **common,
                    "usage": {**look.event.usage.model_dump(), "cost": cost},
                    "stopReason": "toolUse",
                    "timestamp": look.time,
                },
                "finnSeq": look.seq,
            },
            {
                "type": "message",
                "id": result.entry,
                "parentId": look.entry,
                "timestamp": stamp,
                "message": {
                    "role": "toolResult",
                    "toolCallId": call["id"],
                    "toolName": "echo",
                    "content": [{"type": "text", "text": "echo x"}],
                    "isError": False,
                    "timestamp": result.time,
                },
                "finnSeq": result.seq,
            },
            {**found[4], "id": done.entry, "parentId": result.entry},
            {
                "type": "session_info",
                "id": named.entry,
                "parentId": done.entry,
                "timestamp": stamp,
                "name": "Ü",
                "finnSeq": named.seq,
            },
        ]
        assert found[4]["message"]["stopReason"] == "stop"


async def test_the_file_only_grows_and_a_restart_goes_on_behind_its_last_line(tmp_path: Path) -> None:
    seen: list[bytes] = []
    for _ in range(3):
        async with mirrored(tmp_path) as home:
            for text in ("one", "tools"):
                await home.ask(text)
                await caught_up(home, tmp_path)
                seen.append(path(tmp_path).read_bytes())
                inode = path(tmp_path).stat().st_ino
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    assert path(tmp_path).stat().st_ino == inode


async def test_what_was_said_while_nobody_mirrored_is_caught_up(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("one")
        await caught_up(home, tmp_path)
    async with house(tmp_path, SCRIPT) as home:
        await home.ask("two")
    async with mirrored(tmp_path) as home:
        assert len(await caught_up(home, tmp_path)) == 5


async def test_a_message_that_waits_has_no_line_until_it_has_its_place(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.say("slow")
        await home.until(lambda: (live := home.turns.live(SESSION)) is not None and bool(live.text))
        await home.say("two")
        await home.until(lambda: content(tmp_path).count(b"\n") == 2)
        exported = await export(home.journal, SESSION, home.state(), tmp_path)
        assert json.loads(exported.splitlines()[-1])["message"]["content"][0]["text"] == "two", "an export has it"
        home.clock.advance(1)
        await home.idle()
        found = await caught_up(home, tmp_path)
        said = ["".join(block["text"] for block in line["message"]["content"]) for line in found[1:]]
        assert said == ["slow", "Well!", "two", "two!"]
        assert [line["parentId"] for line in found[1:]] == [None, *(line["id"] for line in found[1:-1])]
        two = next(r for r in await home.log() if isinstance(r.event, UserMessage) and r.event.text == "two")
        assert found[3]["id"] == two.entry
        assert found[3]["finnSeq"] > two.seq


TORN = b'{"type":"message","id":"1-'
FOREIGN = (
    b'{"type":"message","id":"12345678","parentId":null,"timestamp":"x","message":{"role":"user","content":"hi"}}\n'
)
FUTURE = b'{"type":"custom","id":"1-9999","parentId":null,"timestamp":"x","customType":"x","finnSeq":9999}\n'


@pytest.mark.parametrize("added", [TORN, FOREIGN, FUTURE, b"\0" * 100, b"\n", b"[]\n", b"[" * 100_000 + b"\n"])
async def test_a_file_that_is_not_as_finn_left_it_goes_to_quarantine_and_is_written_anew(
    tmp_path: Path, added: bytes
) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("one")
        await caught_up(home, tmp_path)
    before = path(tmp_path).read_bytes()
    with path(tmp_path).open("ab") as file:
        file.write(added)
    async with mirrored(tmp_path) as home:
        await caught_up(home, tmp_path)
        assert path(tmp_path).read_bytes() == before
        kept, note = sorted(home.journal.paths.quarantine.iterdir())
        assert kept.read_bytes() == before + added
        assert json.loads(note.read_bytes())["from"] == str(path(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
async def test_what_stands_in_the_place_of_the_file_goes_to_quarantine(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("one")
        await caught_up(home, tmp_path)
    before = path(tmp_path).read_bytes()
    path(tmp_path).unlink()
    make(path(tmp_path))
    async with mirrored(tmp_path) as home:
        await caught_up(home, tmp_path)
        assert path(tmp_path).read_bytes() == before


async def test_a_file_that_somebody_removes_is_written_whole_with_the_next_record(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("one")
        await caught_up(home, tmp_path)
        path(tmp_path).unlink()
        await rename(home, "again")
        await home.ask("two")
        assert (await caught_up(home, tmp_path))[0]["type"] == "session"


async def test_a_folder_that_takes_no_file_stops_nothing(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        path(tmp_path).parent.rmdir()
        await home.ask("one")
        path(tmp_path).parent.mkdir()
        await home.ask("two")
        assert len(await caught_up(home, tmp_path)) == 5


async def test_a_note_of_finn_is_in_the_file_as_finn_s(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.say("slow")
        await home.until(lambda: (live := home.turns.live(SESSION)) is not None and bool(live.text))
        await home.turns.drain()
        found = await caught_up(home, tmp_path)
        (note,) = (record for record in await home.log() if isinstance(record.event, NoteAdded))
        assert isinstance(note.event, NoteAdded)
        shown = {"type": "custom_message", "customType": "finn.note", "content": note.event.text, "display": True}
        assert found[-1] == {
            **shown,
            "id": note.entry,
            "parentId": found[-2]["id"],
            "timestamp": iso(note.time / 1000),
            "finnSeq": note.seq,
        }
        assert found[-2]["message"]["stopReason"] == "aborted"
        assert found[-2]["message"]["content"] == [{"type": "text", "text": "Well"}]


async def test_what_was_recovered_is_a_branch_and_the_last_line_is_still_the_leaf(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("one")
        leaf = home.state().leaf
        lost = UserMessage(turn="x", parent=None, text="lost", request_id="r")
        data = lost.model_dump(mode="json")
        event = EntryRecovered(origin="9-9", type=lost.kind, version=1, data=data, at=7, by=OWNER, parent=leaf)
        record = await home.journal.commit(event, stream=SESSION, by=SYSTEM)
        await caught_up(home, tmp_path)
        *_, found, back = lines(tmp_path)
        assert found == {
            "type": "message",
            "id": record.entry,
            "parentId": leaf,
            "timestamp": iso(0.007),
            "message": {"role": "user", "content": [{"type": "text", "text": "lost"}], "timestamp": 7},
            "finnSeq": record.seq,
            "finnRecovered": True,
        }
        assert (back["customType"], back["parentId"], back["finnSeq"]) == ("finn.leaf", leaf, record.seq)
        await home.ask("two")
        found_ids = [line["id"] for line in await caught_up(home, tmp_path)]
        assert len(found_ids) == len(set(found_ids))
    async with mirrored(tmp_path) as home:
        await rename(home, "still here")
        assert (await caught_up(home, tmp_path))[-1]["name"] == "still here"
        assert list((tmp_path / "quarantine").iterdir()) == []


async def test_files_that_somebody_took_away_are_there_again_when_all_are_looked_at_anew(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as home:
        await home.ask("tools")
        await caught_up(home, tmp_path)
        before = content(tmp_path)
        path(tmp_path).unlink()
        await home.mirror.anew()
        assert content(tmp_path) == before
