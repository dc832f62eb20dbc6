"""A journal to try things on: opened in a folder, with a fold that notices every record."""

import hashlib
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persistence.blobs import Blobs
from persistence.clock import Clock, FakeClock, Ids
from persistence.codec import decode
from persistence.disk import Disk, SystemDisk
from persistence.events import (
    AGENT,
    OWNER,
    SYSTEM,
    AssistantMessage,
    Event,
    MessageCheckpointed,
    Record,
    SessionCreated,
    TextBlock,
    TurnEnded,
    Usage,
    UserMessage,
)
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means
from persistence.scan import Good, scan

STREAM = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass(frozen=True, slots=True)
class Ledger:
    """How many records there were, and a hash over all of them in their order."""

    count: int = 0
    sha: str = ""


def enter(ledger: Ledger, record: Record) -> Ledger:
    said = f"{ledger.sha} {record.seq} {record.type} {record.event.model_dump_json()}"
    return Ledger(ledger.count + 1, hashlib.sha256(said.encode()).hexdigest())


SAID = (SessionCreated, UserMessage, MessageCheckpointed, AssistantMessage, TurnEnded)
LEDGER = Fold("ledger", 1, Ledger, Ledger(), enter, True, SAID)


def means(
    disk: Disk | None = None, clock: Clock | None = None, secrets: Mapping[str, str] | None = None, seed: int = 0
) -> Means:
    clock = clock or FakeClock()
    return Means(disk or SystemDisk(), clock, Ids(clock, random.Random(seed).randbytes), Redactor(secrets or {}))


@asynccontextmanager
async def opened(root: Path, *folds: Fold[Any], with_means: Means | None = None) -> AsyncIterator[Journal]:
    """A journal that is closed in the end."""
    journal = await Journal.open(root, folds or (LEDGER,), with_means or means())
    try:
        yield journal
    finally:
        await journal.close()


def killed(root: Path, copies: Path) -> Path:
    """What kill -9 at this moment leaves of a data directory: a copy of its files as the kernel has them."""
    copies.mkdir(exist_ok=True)
    target = Path(tempfile.mkdtemp(dir=copies))
    shutil.copytree(root, target, dirs_exist_ok=True)
    return target


def prompt(text: str, turn: str = "t") -> UserMessage:
    return UserMessage(turn=turn, parent=None, text=text, request_id=text[:20])


def checkpoint(text: str, turn: str = "t") -> MessageCheckpointed:
    return MessageCheckpointed(turn=turn, parent=None, text=text)


def answer(text: str, turn: str = "t") -> AssistantMessage:
    return AssistantMessage(
        turn=turn,
        parent=None,
        content=(TextBlock(text=text),),
        api="a",
        provider="p",
        model="m",
        usage=Usage(),
        stop_reason="stop",
    )


def ended(turn: str = "t") -> TurnEnded:
    return TurnEnded(turn=turn, stop_reason="stop")


async def say(journal: Journal, *texts: str, stream: str = STREAM) -> list[Record]:
    return [await journal.commit(prompt(text), stream=stream, by=OWNER) for text in texts]


async def commit(journal: Journal, *events: Event, stream: str | None = STREAM) -> list[Record]:
    return [await journal.commit(event, stream=stream, by=AGENT if stream else SYSTEM) for event in events]


def texts(records: tuple[Record, ...]) -> list[str]:
    return [record.event.text for record in records if isinstance(record.event, UserMessage)]


def logged(root: Path) -> list[Record]:
    """Every record that the log of a data directory holds."""
    blobs, lost = Blobs(SystemDisk(), root / "blobs"), list[str]()
    found = [
        decode(one.line, one.checksum, blobs, lost.append)
        for one in scan(SystemDisk(), root / "wal")
        if isinstance(one, Good)
    ]
    assert not lost
    return found
