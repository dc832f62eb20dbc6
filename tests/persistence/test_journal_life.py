"""A life of random commits, seals, snapshots, clean stops and kills, at the end of which nothing acknowledged is lost.

I1 what was acknowledged is there; I2 in order, without a hole or a double; I3 the state is the fold of the log,
whatever the snapshots say.
"""

import asyncio
import random
import shutil
from pathlib import Path

from persistence.events import Event, GapDeclared, LogRecovered, Record
from persistence.fold import Folded
from persistence.journal import Journal
from persistence.reigns import REIGNS
from persistence.snapshot import listed, state_sha
from persistence.streams import STREAMS
from tests.conftest import count
from tests.persistence.journals import LEDGER, answer, checkpoint, ended, killed, logged, means, prompt

SESSIONS = ("a", "b", "c")


class Life:
    """A data directory and what was acknowledged in it."""

    def __init__(self, root: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.root = root / "0"
        self.copies = root
        self.acknowledged: list[Record] = []

    async def run(self, steps: int) -> None:
        self.root.mkdir(parents=True)
        journal = await self.start()
        for _ in range(steps):
            act = self.draw.choices(("commit", "seal", "snapshot", "stop", "kill"), (20, 3, 2, 1, 3))[0]
            if act == "commit":
                self.acknowledged += await asyncio.gather(*self.commits(journal, self.draw.randrange(1, 5)))
            elif act == "seal":
                await journal.seal(self.draw.choice(SESSIONS))
            elif act == "snapshot":
                await journal.snapshot()
            elif act == "stop":
                await journal.close()
                journal = await self.start()
            else:
                journal = await self.kill(journal)
        await journal.close()
        await (await self.start()).close()

    def commits(self, journal: Journal, number: int) -> list[asyncio.Task[Record]]:
        return [
            asyncio.create_task(journal.commit(self.event(), stream=self.draw.choice(SESSIONS))) for _ in range(number)
        ]

    def event(self) -> Event:
        text = "x" * self.draw.choice((1, 30, 3000))
        return self.draw.choice((prompt(text), prompt(text), checkpoint(text), answer(text), ended()))

    async def kill(self, journal: Journal) -> Journal:
        """Copies the directory while records are on their way: the copy goes on, the rest never was."""
        coming = self.commits(journal, self.draw.randrange(6))
        for _ in range(self.draw.randrange(4)):
            await asyncio.sleep(0)
        self.acknowledged += [task.result() for task in coming if task.done()]
        old, self.root = self.root, killed(self.root, self.copies)
        late = [task for task in coming if not task.done()]
        await asyncio.gather(*late)
        await journal.close()
        shutil.rmtree(old)
        if self.draw.random() < 0.3:
            for path in listed(self.root / "snapshots"):
                path.unlink()
        if self.draw.random() < 0.3:
            self.tear()
        return await self.start()

    def tear(self) -> None:
        """A write that the kill interrupted: half a record behind the last whole one."""
        last = sorted((self.root / "wal").glob("*.wal"))[-1]
        line = last.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
        with last.open("ab") as file:
            file.write(line[: self.draw.randrange(1, len(line))])

    async def start(self) -> Journal:
        journal = await Journal.open(self.root, (LEDGER,), means(seed=self.draw.randrange(2**32)))
        await self.check(journal)
        return journal

    async def check(self, journal: Journal) -> None:
        log = logged(self.root)
        assert [record.seq for record in log] == list(range(1, journal.seq + 1))
        assert not [record for record in log if isinstance(record.event, GapDeclared)]
        assert len({record.id for record in log}) == len(log)
        by_seq = {record.seq: record for record in log}
        for record in self.acknowledged:
            assert by_seq[record.seq].line == record.line
            assert by_seq[record.seq].checksum == record.checksum
        folded = Folded((STREAMS, REIGNS, LEDGER))
        for record in log:
            folded.step(record)
        assert journal.state_sha() == state_sha(folded.dump())
        for session in SESSIONS:
            chunks = journal.streams(STREAMS)[session].chunks if session in journal.streams(STREAMS) else ()
            sealed = max((chunk.last for chunk in chunks), default=0)
            own = [record for record in log if record.stream == session and record.type != "chunk_sealed"]
            kept = [record.line for record in own if record.type != "message_checkpointed" or record.seq > sealed]
            assert [record.line for record in await journal.read(session)] == kept
        assert sum(isinstance(record.event, LogRecovered) for record in log) >= 1


async def test_a_life_of_kills_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    for n in range(count(6, 150)):
        life = Life(tmp_path / str(n), seed + n)
        try:
            await life.run(steps=50)
        except AssertionError as error:
            error.add_note(f"life {n} of seed {seed}")
            raise
        assert len(life.acknowledged) > 20
