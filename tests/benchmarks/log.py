"""How fast the log is, and what the same disk can do in the same seconds.

Each function works in a folder of its own for about `seconds` and returns records per second; a record is 1 KiB.

    raw_append_one      write and fdatasync, one after the other: what the disk gives to one caller
    raw_group_commit    the same bytes from 64 tasks through one thread, a batch an fdatasync: what it gives to many
    sqlite_full_one     SQLite, WAL, synchronous=FULL, one insert a commit
    wal_append_one      our log, one task that waits for each record
    wal_group_commit    our log, 64 tasks
    journal_append_one, journal_group_commit
                        the journal above it: serialised, redacted, written, folded as finn folds, shown
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue

from gateway.folds import FOLDS
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.codec import rest
from persistence.disk import SystemDisk
from persistence.errors import StorageError
from persistence.events import (
    AGENT,
    SYSTEM,
    TOOL,
    AssistantMessage,
    By,
    Event,
    TextBlock,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    TurnStarted,
    Usage,
)
from persistence.frame import GENESIS
from persistence.journal import Journal
from persistence.wal import Head, Pending, Wal, Written
from tests.benchmarks import history

Append = Callable[[], Awaitable[object]]

CALLERS = 64
RECORD_BYTES = 1024
HEAD = (
    b'"stream":"01K0000000000000000000000A","by":{"actor":"owner","trust":"user"},"type":"note","v":1,"data":{"text":"'
)
FIRST_BYTES = 160  #: the frame and the fields that the log's thread adds
TAIL = HEAD + b"x" * (RECORD_BYTES - FIRST_BYTES - len(HEAD)) + b'"}}'
TURN = "01K0000000000000000000000T"


def raw_append_one(directory: Path, seconds: float = 1.0) -> float:
    data, handle, done = bytes(RECORD_BYTES), _file(directory), 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        os.write(handle, data)
        os.fdatasync(handle)
        done += 1
    rate = done / (time.perf_counter() - start)
    os.close(handle)
    return rate


def raw_group_commit(directory: Path, seconds: float = 1.0) -> float:
    return asyncio.run(_raw_group_commit(_file(directory), seconds))


def sqlite_full_one(directory: Path, seconds: float = 1.0) -> float:
    base = sqlite3.connect(directory / "anchor.db", isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=full")
    base.execute("create table records (seq integer primary key, data blob)")
    data, done = bytes(RECORD_BYTES), 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        base.execute("insert into records (data) values (?)", (data,))
        done += 1
    rate = done / (time.perf_counter() - start)
    base.close()
    return rate


def wal_append_one(directory: Path, seconds: float = 1.0) -> float:
    return asyncio.run(_wal(directory, 1, seconds))


def wal_group_commit(directory: Path, seconds: float = 1.0) -> float:
    return asyncio.run(_wal(directory, CALLERS, seconds))


def journal_append_one(directory: Path, seconds: float = 1.0) -> float:
    return asyncio.run(_journal(directory, 1, seconds))


def journal_group_commit(directory: Path, seconds: float = 1.0) -> float:
    return asyncio.run(_journal(directory, CALLERS, seconds))


def _file(directory: Path) -> int:
    return os.open(directory / "anchor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def _callers(count: int, seconds: float, caller: Callable[[], Append]) -> float:
    """`count` tasks that append one after the other until the time is over, each in its own way."""
    done = 0
    start = time.perf_counter()

    async def play(append: Append) -> None:
        nonlocal done
        while time.perf_counter() < start + seconds:
            await append()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(play(caller()))
    return done / (time.perf_counter() - start)


async def _raw_group_commit(handle: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    queue: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()
    data = bytes(RECORD_BYTES)

    def answer(batch: list[asyncio.Future[None]]) -> None:
        for future in batch:
            future.set_result(None)

    def write() -> None:
        while (first := queue.get()) is not None:
            batch = [first]
            while not queue.empty() and (more := queue.get()) is not None:
                batch.append(more)
            os.write(handle, data * len(batch))
            os.fdatasync(handle)
            loop.call_soon_threadsafe(answer, batch)

    def append() -> Awaitable[None]:
        future: asyncio.Future[None] = loop.create_future()
        queue.put(future)
        return future

    thread = threading.Thread(target=write)
    thread.start()
    rate = await _callers(CALLERS, seconds, lambda: append)
    queue.put(None)
    thread.join()
    os.close(handle)
    return rate


async def _wal(directory: Path, callers: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()

    def answer(written: list[Written], error: StorageError | None, failed: list[Pending]) -> None:
        for one in written:
            one.token.set_result(one)
        for pending in failed:
            pending.token.set_exception(error)

    def deliver(written: list[Written], error: StorageError | None, failed: list[Pending]) -> None:
        loop.call_soon_threadsafe(answer, written, error, failed)

    def append() -> Awaitable[Written]:
        future: asyncio.Future[Written] = loop.create_future()
        wal.append(Pending(TAIL, future))
        return future

    clock = SystemClock()
    wal = Wal.open(
        SystemDisk(),
        directory,
        head=Head(0, GENESIS, 0),
        epoch=1,
        ids=Ids(clock, system_entropy),
        clock=clock,
        deliver=deliver,
    )
    rate = await _callers(callers, seconds, lambda: append)
    wal.close()
    return rate


async def _journal(directory: Path, callers: int, seconds: float) -> float:
    """Each caller is a session in the middle of a turn that makes one call after the other."""
    journal = await Journal.open(directory, FOLDS, history.means())
    sessions = [f"01K0000000000000000000{number:04d}" for number in range(callers)]
    for session in sessions:
        await journal.commit(TurnStarted(turn=TURN, entry="1-1", parent=None), stream=session, by=SYSTEM)
    starting = iter(sessions)

    def caller() -> Append:
        session, events = next(starting), cycle(_events())

        def append() -> Awaitable[object]:
            event, by = next(events)
            return journal.commit(event, stream=session, by=by)

        return append

    rate = await _callers(callers, seconds, caller)
    await journal.close()
    return rate


def _events() -> tuple[tuple[Event, By], ...]:
    """An answer with a call, its start and its end, each a record of 1 KiB."""
    usage = Usage(input=20_000, output=100, totalTokens=20_100)

    def answer(text: str) -> Event:
        call = ToolCallBlock(id="call_1", name="write", arguments={"path": "notes.md"})
        content = (TextBlock(text=text), call)
        return AssistantMessage(
            turn=TURN,
            parent="1-1234567",
            content=content,
            api="openai-completions",
            provider="127.0.0.1",
            model="bench",
            usage=usage,
            stop_reason="tool_use",
        )

    def started(text: str) -> Event:
        return ToolStarted(turn=TURN, call="call_1", name="write", args={"path": "notes.md", "text": text})

    def ended(text: str) -> Event:
        return ToolEnded(turn=TURN, parent="1-1234567", call="call_1", name="write", result=text)

    return ((_sized(answer), AGENT), (_sized(started), AGENT), (_sized(ended), TOOL))


def _sized(make: Callable[[str], Event]) -> Event:
    room = RECORD_BYTES - FIRST_BYTES - len(rest(make(""), TURN, AGENT))
    return make((history.WORDS * RECORD_BYTES)[:room])
