"""Pi itself, pinned, opens what finn writes: the mirror and the export of a session that has everything."""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.mirror import export
from agent.tool import ToolResult
from persistence.events import (
    OWNER,
    AssistantMessage,
    Json,
    NoteAdded,
    Record,
    SessionRenamed,
    SteerTaken,
    ToolEnded,
    TurnStarted,
    UserMessage,
)
from tests.agent.houses import ECHO, SESSION, House, house, trick
from tests.conftest import NODE

PI = Path(__file__).parents[1] / "pi"

UNICODE = 'Zoë 👩\u200d💻 "quoted" \\back\\slash\u2028line\u0000nul\ttab\r\nnew'
LARGE = "".join(f"{n:07}\n" for n in range(8192))  # 64 KiB
COST = {"input": 0.1, "output": 0.2, "cacheRead": 0.3, "cacheWrite": 0.4, "total": 1.0}
USAGE = {"input": 11, "output": 22, "cacheRead": 33, "cacheWrite": 44, "totalTokens": 110, "cost": COST}
SCRIPT: Any = {
    "replies": [
        {
            "when": "look",
            "calls": [
                [
                    {"thinking": "hm\n", "signature": "c2ln"},
                    {"text": "I look."},
                    {"tool": "large", "id": "call_1|x", "args": {"text": UNICODE}},
                    {"tool": "nobody", "id": "call_2", "args": {"deep": [{"a": None}, 1.5, {}]}},
                    {"usage": USAGE},
                ],
                [{"text": "Well"}, {"sleep": 1}, {"tool": "echo", "id": "call_3"}],
                [{"text": UNICODE}],
            ],
        },
        {"when": "long", "calls": [[{"thinking": "so long"}, {"text": "It is"}, {"sleep": 9}]]},
        {"when": "left", "calls": [[{"text": "To the left."}]]},
        {"when": "fail", "calls": [[{"text": "Beg"}, {"error": "rejected", "message": "too long"}]]},
    ],
    "loop": True,
}


async def large(text: str) -> ToolResult:
    return ToolResult(LARGE, truncated=True, details={"exit": 0, "nested": {"list": [1, None]}})


TOOLS = (ECHO, trick("large", large))


async def streaming(home: House, text: str) -> None:
    await home.until(lambda: (live := home.turns.live(SESSION)) is not None and "".join(live.text) == text)


async def lived(root: Path) -> None:
    """Thinking, parallel tools, a refusal, steering, a name, an abort, a failure and a crash in the middle."""
    async with house(root, SCRIPT, TOOLS) as home:
        await home.say("look " + UNICODE)
        await streaming(home, "Well")
        await home.say("left!", "steer")
        home.clock.advance(1)
        await home.idle()
        await home.journal.commit(SessionRenamed(title="Zoë's"), stream=SESSION, by=OWNER)
        await home.say("long one")
        await streaming(home, "It is")
        await home.turns.stop(SESSION)
        await home.idle()
        await home.ask("fail")
        await home.say("long two")
        await streaming(home, "It is")
        await home.pass_time(lambda: (running := home.state().running) is not None and running.checkpoint is not None)
        await home.say("left, it waited")


@dataclass(frozen=True)
class Written:
    """What finn wrote, and what it was written from."""

    mirror: Path
    export: Path
    log: tuple[Record, ...]
    leaf: str | None
    cwd: Path


async def written(root: Path) -> Written:
    """The files of that session after a restart, which closes the interrupted turn and runs what waited."""
    async with house(root, SCRIPT, TOOLS) as home:
        mirroring = asyncio.create_task(home.mirror.serve())
        await home.idle()
        data = await export(home.journal, SESSION, home.state(), root / "workspace")
        mirror = root / "state" / "sessions" / f"{SESSION}.jsonl"
        await home.until(lambda: mirror.exists() and mirror.read_bytes() == data)
        mirroring.cancel()
        await asyncio.wait([mirroring])
        (root / "export.jsonl").write_bytes(data)
        return Written(mirror, root / "export.jsonl", await home.log(), home.state().leaf, root / "workspace")


def opened_by_pi(file: Path, folder: Path) -> Json:
    """What Pi sees in a file. It gets a copy, in a home of its own; it must find nothing to mend there."""
    folder.mkdir()
    copy = shutil.copy(file, folder / file.name)
    done = subprocess.run(
        [NODE, PI / "open.mjs", copy, folder],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PI_CODING_AGENT_DIR": str(folder / "pi")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Path(copy).read_bytes() == file.read_bytes(), "Pi wrote the file anew"
    return json.loads(done.stdout)


Said = tuple[str, str | None, str, str]  # id, parent, who, what: as the log has it


def said(log: tuple[Record, ...]) -> list[Said]:
    """Every entry of the conversation, from the log alone."""
    waiting = {record.entry: record for record in log if isinstance(record.event, UserMessage)}
    found: list[Said] = []
    for record in log:
        event = record.event
        if isinstance(event, TurnStarted | SteerTaken):
            prompt = waiting[event.entry].event
            assert isinstance(prompt, UserMessage)
            found.append((event.entry, event.parent, "user", prompt.text))
        elif isinstance(event, AssistantMessage):
            found.append((record.entry, event.parent, "assistant", _content(event)))
        elif isinstance(event, ToolEnded):
            found.append((record.entry, event.parent, f"toolResult {event.call}", event.result))
        elif isinstance(event, NoteAdded):
            found.append((record.entry, event.parent, "note", event.text))
    return found


def _content(event: AssistantMessage) -> str:
    return json.dumps([block.model_dump(exclude_none=True) for block in event.content])


def seen(entries: Json) -> list[Said]:
    """The same, from what Pi says."""
    found: list[Said] = []
    for entry in entries:
        place = (entry["id"], entry["parentId"])
        if entry["type"] == "custom_message":
            found.append((*place, "note", entry["content"]))
        elif entry["type"] == "message":
            found.append((*place, *_heard(entry["message"])))
    return found


def _heard(message: Json) -> tuple[str, str]:
    if message["role"] == "assistant":
        return "assistant", json.dumps(message["content"])
    text = "".join(block["text"] for block in message["content"])
    return ("user" if message["role"] == "user" else f"toolResult {message['toolCallId']}"), text


async def test_pi_opens_what_finn_writes_with_nothing_lost(tmp_path: Path) -> None:
    await lived(tmp_path / "data")
    files = await written(tmp_path / "data")
    for n, file in enumerate((files.mirror, files.export)):
        pi = opened_by_pi(file, tmp_path / f"pi {n}")
        assert (pi["id"], pi["cwd"], pi["name"]) == (SESSION, str(files.cwd), "Zoë's")
        assert seen(pi["entries"]) == said(files.log)
        raw = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
        assert [pi["header"], *pi["entries"]] == raw, "every field, also those of finn"
        assert pi["leaf"] == files.leaf
        assert pi["branch"] == [entry for entry, *_ in said(files.log)], "one line of talk, from the first to the leaf"
        assert len(pi["tree"]) == 1


async def test_the_context_that_pi_builds_is_the_whole_conversation(tmp_path: Path) -> None:
    await lived(tmp_path / "data")
    files = await written(tmp_path / "data")
    context = opened_by_pi(files.mirror, tmp_path / "pi")["context"]
    heard = [("note", one["content"]) if one["role"] == "custom" else _heard(one) for one in context["messages"]]
    assert heard == [(who, what) for _, _, who, what in said(files.log)]
    assert context["model"] == {"provider": "scripted", "modelId": "script.json"}
    answers = [one for one in context["messages"] if one["role"] == "assistant"]
    assert [one["stopReason"] for one in answers] == [
        *("toolUse", "toolUse", "stop"),  # look
        *("aborted", "error", "aborted", "stop"),
    ]
    assert answers[0]["usage"] == USAGE
    assert all(isinstance(one["usage"]["cost"]["total"], int | float) for one in answers)
    assert answers[4]["errorMessage"] == "scripted: too long"
    results = [one for one in context["messages"] if one["role"] == "toolResult"]
    assert results[0]["details"] == {"exit": 0, "nested": {"list": [1, None]}}
    assert [one["isError"] for one in results] == [False, True, False]
    assert LARGE in {block["text"] for one in results for block in one["content"]}
    assert len(LARGE) == 64 * 1024
