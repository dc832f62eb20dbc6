"""Data directories with a past: sessions of so many messages, as an agent with one tool would have written them.

a turn   user_message ─▶ turn_started ─▶ assistant_message ─▶ tool_started ─▶ tool_ended ─▶ assistant_message
         ─▶ turn_ended                                                        four messages of about 400 characters
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

from gateway.folds import FOLDS
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.events import (
    AGENT,
    OWNER,
    SYSTEM,
    TOOL,
    AssistantMessage,
    By,
    Event,
    SessionCreated,
    TextBlock,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    Usage,
    UserMessage,
)
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means

MESSAGES_A_TURN = 4
CHARS = 400
TURNS_AT_ONCE = 60  #: that wait for the disk together; so many fill a chunk, and 2,500 leave a tail half as long
SECRETS = {"FINN_TOKEN": "Zt3vYb0cQ1mUo8WqkJ6xLr2PdHs5NgAf7iEeTjBnCxM", "OPENAI_API_KEY": "sk-Lk20vTqWz8RrYp3uBn6M"}
WORDS = "the log keeps what was said and done so that a start after a crash goes on where the last one ended; "
TEXT = (WORDS * 5)[:CHARS]
USAGE = Usage(input=20_000, output=100, totalTokens=20_100)


def means() -> Means:
    """What a real journal works with, two secrets included."""
    clock = SystemClock()
    return Means(SystemDisk(), clock, Ids(clock, system_entropy), Redactor(SECRETS))


def turn(turn_id: str, seq: int, epoch: int, leaf: str | None, chars: int = CHARS) -> Iterator[tuple[Event, By]]:
    """The events of a turn whose first record will have that seq."""
    text = WORDS * (chars // len(WORDS)) + WORDS[: chars % len(WORDS)]
    said, asked, done = f"{epoch}-{seq}", f"{epoch}-{seq + 2}", f"{epoch}-{seq + 4}"
    call = ToolCallBlock(id=f"call_{seq}", name="read", arguments={"path": "notes/today.md"})
    yield UserMessage(turn=turn_id, parent=None, text=text, request_id=turn_id), OWNER
    yield TurnStarted(turn=turn_id, entry=said, parent=leaf), SYSTEM
    yield answer(turn_id, said, text[: chars // 2], call), AGENT
    yield ToolStarted(turn=turn_id, call=call.id, name="read", args=call.arguments), AGENT
    yield ToolEnded(turn=turn_id, parent=asked, call=call.id, name="read", result=text), TOOL
    yield answer(turn_id, done, text), AGENT
    yield TurnEnded(turn=turn_id, stop_reason="stop", usage=USAGE), SYSTEM


def answer(turn_id: str, parent: str, text: str, call: ToolCallBlock | None = None) -> AssistantMessage:
    """What a model said: a text, or a short text and a call."""
    content = (TextBlock(text=text),) if call is None else (TextBlock(text=text), call)
    return AssistantMessage(
        turn=turn_id,
        parent=parent,
        content=content,
        api="openai-completions",
        provider="127.0.0.1",
        model="bench",
        usage=USAGE,
        stop_reason="stop" if call is None else "tool_use",
    )


def write(data: Path, sizes: tuple[int, ...], *, sealed: bool = True, chars: int = CHARS) -> list[str]:
    """Sessions of so many messages of so many characters, one after the other; their ids.

    `sealed`: in chunks and with a snapshot, as a clean stop leaves them. Else there is nothing but the log, as after a
    crash.
    """
    return asyncio.run(_write(data, sizes, sealed, chars))


async def _write(data: Path, sizes: tuple[int, ...], sealed: bool, chars: int) -> list[str]:
    with_means = means()
    journal = await Journal.open(data, FOLDS, with_means)
    sessions = [await _session(journal, with_means.ids, size, sealed, chars) for size in sizes]
    await journal.close()
    if not sealed:
        shutil.rmtree(journal.paths.snapshots)
    return sessions


async def _session(journal: Journal, ids: Ids, messages: int, sealed: bool, chars: int) -> str:
    session, leaf = ids.new(), None
    await journal.commit(SessionCreated(title=f"{messages} messages"), stream=session, by=OWNER)
    for number in range(0, messages // MESSAGES_A_TURN, TURNS_AT_ONCE):
        if sealed and number:
            await journal.seal(session)
        seq, events = journal.seq + 1, list[tuple[Event, By]]()
        for _ in range(min(TURNS_AT_ONCE, messages // MESSAGES_A_TURN - number)):
            start = seq + len(events)
            events.extend(turn(ids.new(), start, journal.epoch, leaf, chars))
            leaf = f"{journal.epoch}-{start + 5}"
        await asyncio.gather(*(journal.commit(event, stream=session, by=by) for event, by in events))
    return session
