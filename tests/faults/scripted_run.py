"""The run that faults are injected into: python scripted_run.py DATA [STORE | --for-ever]

Opens a journal, says what it can as fast as it may, seals, takes a snapshot and stops cleanly; with STORE, a folder,
every record is replicated into it as well; with --for-ever it goes on until it is killed. What was acknowledged is told
on stdout, one line each, by writev, so that a fault injected into `write` falls on the product alone:

    acked SEQ TEXT      durable here            stored SEQ      in the store up to there
"""

import asyncio
import itertools
import os
import random
import sys
from pathlib import Path

from persistence.claim import claim
from persistence.clock import Ids, SystemClock
from persistence.disk import SystemDisk
from persistence.errors import FinnError
from persistence.events import OWNER, UserMessage
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.remote import look
from persistence.replay import Means
from persistence.replica import Replica
from persistence.stores.file import FileStore

RECORDS = 12


def tell(*words: object) -> None:
    os.writev(1, [" ".join(map(str, words)).encode() + b"\n"])


async def run(root: Path, store: Path | None, records: int | None) -> None:
    clock, entropy = SystemClock(), random.Random(1).randbytes
    journal = await Journal.open(root, (), Means(SystemDisk(), clock, Ids(clock, entropy), Redactor({})))
    replica = _replica(journal, store) if store else None
    for number in itertools.count() if records is None else range(records):
        try:
            record = await journal.commit(
                UserMessage(turn="t", parent=None, text=f"text {number}", request_id=f"{number}"), stream="s", by=OWNER
            )
            tell("acked", record.seq, f"text {number}")
            if replica:
                tell("stored", replica.flush())
            if number == RECORDS // 2:
                await journal.seal("s")
                await journal.snapshot()
        except (FinnError, OSError) as error:
            tell("failed", type(error).__name__)
    await journal.close()
    tell("closed")


def _replica(journal: Journal, folder: Path) -> Replica:
    store, clock, entropy = FileStore(folder), SystemClock(), random.Random(2).randbytes
    claimed = claim(store, look(store, clock=clock, threads=1), writer="w", release="r", entropy=entropy, clock=clock)
    return Replica(store, claimed, journal, release="r", clock=clock, entropy=entropy)


if __name__ == "__main__":
    data, *more = sys.argv[1:]
    for_ever = more == ["--for-ever"]
    asyncio.run(run(Path(data), Path(more[0]) if more and not for_ever else None, None if for_ever else RECORDS))
