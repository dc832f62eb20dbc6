"""A world of two machines and one store, and every misfortune in it, from one seed.

    A: disk, log, replica ──┐                 acts      start say flush compact collect …  each with its outcome
                            ├── Annals        crashes   kill -9, a power cut, the whole disk; at any effect of any act
    B: disk, log, replica ──┘                 the net   500, 503, 409, resets, time-outs, stale lists, away for a while

`World(seed, folder).do(act, machine, number)` makes one step and checks what durability.md 3.8 promises; `walk` chooses
the steps itself. Everything that is drawn comes from the seed and from the numbers, so the same calls give the same
`trace`. A machine that is not stepped is paused: nobody tells it what the other does.

What is owed: `World.owed` has everything that a machine acknowledged at level local and that is not in the store's log
yet. It is somewhere until then: in the log of that machine, in its quarantine, or among the orphans in the store.
"""

import asyncio
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from agent.session import SESSIONS
from persistence import cascade, compaction, orphans, standby, swap
from persistence.cascade import ClaimWith, Recovered, Sources, recover
from persistence.claim import Claimed, claim, overtaken
from persistence.clock import Ids
from persistence.collection import Mentions, collect
from persistence.drill import fetching
from persistence.errors import Fenced, SourceSilent, StoreError
from persistence.events import EVENTS, OWNER, AssistantMessage, EntryRecovered, Record, UserMessage
from persistence.files import FILES
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.layout import NOTHING, manifest_key
from persistence.lock import LOCK, Lock
from persistence.orphans import ORPHANS
from persistence.redact import Redactor
from persistence.relation import digest_at, relate
from persistence.remote import look
from persistence.replay import Means, Paths
from persistence.replica import OBJECT_BYTES, Replica
from persistence.runs import Run
from persistence.store import Store
from persistence.streams import STREAMS
from persistence.wal import Head
from tests.persistence.annals import TOKEN, Annals, Broken
from tests.persistence.faulty_store import FaultyStore
from tests.persistence.journals import Ledger, answer, prompt
from tests.persistence.stepped import Fuse, FusedDisk, Loop, PowerCut, Times


def _enter(ledger: Ledger, record: Record) -> Ledger:
    said = f"{ledger.sha} {sha256(record.line).hexdigest()}"
    return Ledger(ledger.count + 1, sha256(said.encode()).hexdigest())


#: A state that any other log, and any record folded twice or not at all, makes another one.
LINES = Fold("lines", 1, Ledger, Ledger(), _enter, False, EVENTS)
FOLDS: tuple[Fold[Any], ...] = (SESSIONS, FILES, ORPHANS, LINES)
NAMES = ("A", "B")
SESSIONS_MAX = 3
RATE = 0.04  #: of calls to the store that fail
LONG = "x" * 900  #: longer than a record holds in the world of `stepped`
PATIENCE_S = 5.0
DAY_S = 86_400.0

HASH = re.compile(r"[0-9a-f]{64}")

Level = Literal["local", "store"]
T = TypeVar("T")


class Net(FaultyStore):
    """A machine's way to the store, on the machine's fuse."""

    def __init__(self, store: Store, rng: random.Random, fuse: Fuse) -> None:
        super().__init__(store, rng, rate=RATE)
        self._fuse = fuse
        self._refused = ""

    @contextmanager
    def calm(self) -> Iterator[None]:  # type: ignore[override]
        """Without a fault, for as long as somebody looks."""
        before = self.down, self._rate, self._stale
        self.down, self._rate, self._stale = False, 0.0, 0.0
        try:
            yield
        finally:
            self.down, self._rate, self._stale = before

    def set(self, rate: float) -> None:
        """That share of the calls fails from now on, and more of the listings are old."""
        self._rate, self._stale = rate, min(1.0, 5 * rate)

    def refuse(self, what: str) -> None:
        """Calls that begin so are not answered from now on; empty: all are."""
        self._refused = what

    def _call(self, what: str, call: Callable[[], T]) -> T:
        self._fuse.check()
        if self._refused and what.startswith(self._refused):
            raise self._fault("refused", what)
        if what.startswith(("get", "list")):
            return super()._call(what, call)
        return self._fuse.around(lambda: FaultyStore._call(self, what, call))


class _Worst(random.Random):
    """Takes away whatever may be taken."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int) -> int:
        return 0


class Owed(NamedTuple):
    """What a machine acknowledged: where in its log it stands."""

    machine: str
    seq: int


@dataclass
class Life:
    """One process, from its start to its end."""

    journal: Journal
    level: Level
    recovered: Recovered
    replica: Replica | None = None
    mentions: Mentions = field(default_factory=dict)
    sealing: "asyncio.Task[None] | None" = None
    asked: dict[str, "asyncio.Task[Record]"] = field(default_factory=dict)  #: what was not yet answered


class Machine:
    """A disk, and at most one process on it."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.rng = random.Random(f"{world.seed} {name}")
        self.clock = Times(world.clock)
        self.fuse = Fuse()
        self.net = Net(world.annals, random.Random(f"{world.seed} net {name}"), self.fuse)
        self.life: Life | None = None
        self.standing: standby.Standing | None = None  # of a process that was fenced
        self.lock: Lock | None = None  # as long as a process may hold it
        self.writer = ""
        self.said = 0
        self._world = world
        self._disks = 0
        self.fresh()

    def fresh(self, like: Path | None = None) -> None:
        """A new disk, with nothing on it, or with what a folder holds."""
        self.root = self._world.folder / f"{self.name}{self._disks}"
        self._disks += 1
        if like:
            shutil.copytree(like, self.root)
        else:
            self.root.mkdir()
        self.disk = FusedDisk(self.root, self.fuse)

    def after_power_cut(self, rng: random.Random) -> None:
        """The disk as the cut left it."""
        old, before = self.disk, self.root
        self.root = self._world.folder / f"{self.name}{self._disks}"
        self._disks += 1
        old.crash(self.root, rng)
        shutil.rmtree(before)
        self.disk = FusedDisk(self.root, self.fuse)

    def means(self) -> Means:
        ids = Ids(self.clock, self.rng.randbytes)
        return Means(self.disk, self.clock, ids, Redactor({}), fetch=fetching(self.net), replicated=True)

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def let_go(self) -> None:
        """What the kernel does for a process that is gone."""
        self.disk.let_go()
        lock, self.lock = self.lock, None
        path = str(self.root / "wal" / LOCK)
        if (
            lock
            and Path(f"/proc/self/fd/{lock._handle}").exists()
            and os.readlink(f"/proc/self/fd/{lock._handle}") == path
        ):
            lock.release()

    def bytes_of_logs(self) -> bytes:
        """Everything that a log or what was set aside of one holds on this disk."""
        folders = (self.root / "wal", self.root / "quarantine", self.root / ".restoring" / "wal")
        found = [path for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.wal"))]
        return b"".join(path.read_bytes() for path in found)


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder for a world, in memory where the machine has that: nothing here asks a real disk for anything."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class World:
    """Two machines, a store, and what is known to be owed."""

    def __init__(self, seed: int | str, folder: Path, loop: Loop) -> None:
        self.seed = seed
        self.folder = folder
        self.loop = loop
        self.rng = random.Random(f"{seed}")
        self.clock = Times()
        self.annals = Annals(self.clock)
        self.machines = {name: Machine(self, name) for name in NAMES}
        self.trace: list[str] = []
        self.owed: dict[str, Owed] = {}
        self.states: dict[str, str] = {}  #: the state's hash, by the log's digest
        self.crashes: Counter[str] = Counter()
        self.met: Counter[str] = Counter()  #: which outcomes there were, to show that a simulation met them
        self._temper = self.rng.choice((0.1, 0.6, 1.0))  # how often the machines of this world die
        self._turns = self.rng.choice(((1, 1), (5, 1)))  # and how often each of them gets to do something
        self.spoilt = False  #: bytes were flipped: whoever did that looks himself what became of it

    # ------------------------------------------------------------ steps

    def do(self, act: str, name: str, number: int = 0) -> str:
        """One step, and all that must hold after it. Raises Broken."""
        machine = self.machines[name]
        self.clock.advance(0.01 + self.rng.random())
        try:
            outcome = self._attempt(machine, lambda: getattr(self, f"_{act}")(machine, number))
            self.trace.append(f"{act} {name} {number}: {outcome} @{len(self.annals.history)} {self.annals.chain[:8]}")
            self._settle(machine)
            self._hear(machine)
            self._check(machine)
        except Broken as broken:
            self.trace.append(f"{act} {name} {number}: {broken}")
            raise
        self.met[f"{act}: {outcome.partition(' ')[0]}"] += 1
        return outcome

    def _attempt(self, machine: Machine, act: Callable[[], str]) -> str:
        try:
            return act()
        except PowerCut:
            return "cut"
        except Fenced:
            return self._fenced(machine)
        except SourceSilent:
            return "silent"
        except StoreError:
            return "unanswered"

    def walk(self, steps: int) -> None:
        """So many steps of its own choice."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """One step of its own choice."""
        rng = self.rng
        name = rng.choices(NAMES, self._turns)[0]
        machine = self.machines[name]
        acts = UP if machine.life else STANDS if machine.standing else OFF
        act = rng.choices(list(acts), list(acts.values()))[0]
        if machine.net.down and rng.random() < 0.2:
            act = "reach"
        share, effects = CRASHING.get(act, (0.0, 1))
        if rng.random() < share * self._temper:
            self.crash(act, name, rng.randrange(1000), 1 + int(rng.random() ** 2 * effects))
        else:
            self.do(act, name, rng.randrange(1000))

    def crash(self, act: str, name: str, number: int, effects: int, kind: str = "") -> str:
        """A step in the midst of which the machine dies, with so many effects, or right after it."""
        machine = self.machines[name]
        kind = kind or self.rng.choice(("kill", "power", "power"))
        machine.fuse.set(effects, after=self.rng.random() < 0.5)
        outcome = self.do(act, name, number)
        machine.fuse.mend()
        self.do(kind, name)
        return outcome

    # ------------------------------------------------------------ the life of a machine

    def _start(self, machine: Machine, number: int) -> str:
        """Whatever is there is recovered and claimed; level store where the number is even."""
        if machine.life:
            return "-"
        machine.standing = None
        machine.writer = machine.rng.randbytes(8).hex()
        means = machine.means()
        claim_with = ClaimWith(machine.writer, "r", machine.rng.randbytes)
        sources = Sources(machine.net, claim_with=claim_with, patience_s=PATIENCE_S)
        recovered = recover(machine.paths, FOLDS, means, sources)
        machine.lock = recovered.origin.lock
        journal = self.loop.run(Journal.open(machine.root, FOLDS, means, recovered.origin))
        machine.life = Life(journal, "store" if number % 2 else "local", recovered)
        if recovered.claimed:
            self._own(machine, recovered.claimed)
        if machine.life.level == "store":
            journal.hold()
        if recovered.origin.source in ("store", "git"):
            swap.settled(machine.disk, machine.root)
        self._started(machine)
        return f"{recovered.origin.source} {'degraded' if recovered.degraded else journal.epoch} {machine.life.level}"

    def _own(self, machine: Machine, claimed: Claimed) -> None:
        life = self._life(machine)
        life.replica = Replica(
            machine.net,
            claimed,
            life.journal,
            release="r",
            clock=machine.clock,
            entropy=machine.rng.randbytes,
            threads=1,
        )
        life.journal.confirm(life.replica.confirmed)
        standby.unmark(machine.disk, machine.root)

    def _claim(self, machine: Machine, number: int) -> str:
        """The claim that a degraded start could not make."""
        life = machine.life
        if life is None or life.replica:
            return "-"
        journal, store = life.journal, machine.net
        tip = look(store, clock=machine.clock, threads=1)
        if tip is not None and tip.seq:
            seq, wal = journal.durable, machine.paths.wal
            head = Head(seq, bytes.fromhex(digest_at(machine.disk, wal, seq) or NOTHING), seq)
            if relate(machine.disk, wal, head, store, tip).relation not in ("same", "ahead"):
                raise overtaken(manifest_key(tip.m))
        claimed = claim(
            store,
            tip,
            writer=machine.writer,
            release="r",
            entropy=machine.rng.randbytes,
            clock=machine.clock,
            floor=journal.epoch,
            start=cascade.beginning(machine.disk, machine.paths),
            threads=1,
        )
        journal.reign(claimed.epoch)
        self._own(machine, claimed)
        return f"epoch {claimed.epoch}"

    def _fenced(self, machine: Machine) -> str:
        """What a process does that was overtaken: it keeps what it had acknowledged, and stands by."""
        life = machine.life
        if life is None:
            return "fenced"
        life.journal.fence("overtaken")
        self.loop.settle()
        try:
            standby.mark(machine.disk, machine.root, standby.Mark("r", life.journal.epoch, machine.writer))
            if life.replica:
                self._keep(machine, life.journal, life.replica)
        except PowerCut:
            return "cut"
        except StoreError:
            pass
        self._hear(machine)
        self._require_silence(machine)
        self._close(machine)
        machine.standing = standby.Standing()
        return "fenced"

    def _keep(self, machine: Machine, journal: Journal, replica: Replica) -> None:
        runs: list[Run] = []
        after = replica.confirmed
        while journal.durable > after:
            runs.append(journal.frames(after, OBJECT_BYTES))
            after = runs[-1].last
        orphans.keep(
            machine.net, machine.disk, machine.paths.quarantine, replica.epoch, replica.writer, runs, journal.blob
        )

    def _close(self, machine: Machine) -> None:
        life = self._life(machine)
        try:
            self.loop.run(life.journal.close())
        except PowerCut:
            return
        machine.life = None

    def _stand(self, machine: Machine, number: int) -> str:
        """A standby looks for a while, each second; the one that writes may or may not answer."""
        other = next(one for one in self.machines.values() if one is not machine)
        for _ in range(1 + number % 90):
            if machine.standing is None:
                return "-"
            self.clock.advance(5)
            with suppress(StoreError):
                machine.standing = standby.step(
                    machine.net, machine.standing, clock=machine.clock, entropy=machine.rng.randbytes
                )
            if machine.standing.may_act:
                return "takes " + self._start(machine, number)
            if self.rng.random() < 0.1:
                self.do("look", other.name, 1)
        return "waits"

    def _stop(self, machine: Machine, number: int) -> str:
        """A clean stop: the last flush, the last compaction, the release."""
        life = machine.life
        if life is None:
            return "-"
        if life.replica:
            try:
                self._flushed(life)
                self.loop.run(life.journal.snapshot())
                self._compacted(machine)
                life.replica.release()
            except StoreError:
                pass
        self._hear(machine)
        self._close(machine)
        return "stopped"

    def _kill(self, machine: Machine, number: int) -> str:
        """kill -9: what the process had written is with the kernel."""
        self._drop(machine)
        self.crashes["kill"] += 1
        return "dead"

    def _power(self, machine: Machine, number: int) -> str:
        """The power goes off, and what was not synced may be lost; with number 1 all of it is."""
        self._drop(machine)
        machine.after_power_cut(_Worst() if number == 1 else machine.rng)
        self.crashes["power"] += 1
        return "dead"

    def _burn(self, machine: Machine, number: int) -> str:
        """The disk is gone, with everything that was only there."""
        self._drop(machine)
        shutil.rmtree(machine.root)
        machine.fresh()
        self.owed = {token: owed for token, owed in self.owed.items() if owed.machine != machine.name}
        self.crashes["disk"] += 1
        return "gone"

    def _drop(self, machine: Machine) -> None:
        """Nothing is left of the process."""
        life, machine.life, machine.standing = machine.life, None, None
        machine.fuse.mend()
        for task in (*life.asked.values(), *((life.sealing,) if life.sealing else ())) if life else ():
            task.cancel()
        self.loop.settle()
        machine.let_go()

    # ------------------------------------------------------------ what a process does

    def _say(self, machine: Machine, number: int) -> str:
        """Some records at once."""
        life = machine.life
        if life is None:
            return "-"
        for at in range(1 + number % 4):
            machine.said += 1
            stream = self._session(machine, number + at)
            token = f"{machine.name}{machine.said}"
            text = f"<{token}> {LONG if (number + at) % 7 == 0 else ''}"
            event = answer(text, f"<{token}>") if (number + at) % 3 == 0 else prompt(text, f"<{token}>")
            said = life.journal.commit(event, stream=stream, by=OWNER)
            life.asked[token] = self.loop.create_task(said)
        self.loop.settle()
        return f"{number % 4 + 1}"

    def _session(self, machine: Machine, number: int) -> str:
        """One of the sessions that there are, or a new one."""
        known = sorted(self._life(machine).journal.streams(STREAMS))
        if len(known) < SESSIONS_MAX:
            known.append(f"{machine.name}{machine.said}")
        return known[number % len(known)]

    def _pause(self, machine: Machine, number: int) -> str:
        """Nobody says anything for a moment: the log marks what is durable."""
        if machine.life is None:
            return "-"
        machine.life.journal._wal.pause()  # type: ignore[attr-defined]
        return "quiet"

    def _flush(self, machine: Machine, number: int) -> str:
        life = machine.life
        if life is None or life.replica is None:
            return "-"
        return f"{self._flushed(life)}"

    def _flushed(self, life: Life) -> int:
        assert life.replica is not None
        try:
            confirmed = life.replica.flush()
        finally:
            self._require_confirmed(life.replica)
            life.journal.confirm(life.replica.confirmed)
            self.loop.settle()
        return confirmed

    def _look(self, machine: Machine, number: int) -> str:
        """The look of every minute."""
        life = machine.life
        if life is None or life.replica is None:
            return "-"
        fenced = self._is_overtaken(life.replica)
        life.replica.check() if number % 2 else life.replica.prove()
        if fenced and not number % 2:
            raise Broken(f"I5: {machine.name} of epoch {life.replica.epoch} was not told of {self.annals.epoch}")
        return "alone"

    def _seal(self, machine: Machine, number: int) -> str:
        life = machine.life
        if life is None or (life.sealing and not life.sealing.done()):
            return "-"
        life.sealing = self.loop.create_task(life.journal.seal(self._session(machine, number)))
        return self._committed(machine, life.sealing)

    def _tend(self, machine: Machine, number: int) -> str:
        """All that is said goes into chunks, the state into a snapshot, and what both have goes from the log."""
        life = machine.life
        if life is None:
            return "-"
        for stream in sorted(life.journal.streams(STREAMS)):
            if life.sealing and not life.sealing.done():
                return "waits"
            life.sealing = self.loop.create_task(life.journal.seal(stream))
            self._committed(machine, life.sealing)
        self._snapshot(machine, number)
        return self._prune(machine, number)

    def _snapshot(self, machine: Machine, number: int) -> str:
        if machine.life is None:
            return "-"
        self.loop.run(machine.life.journal.snapshot())
        return "taken"

    def _committed(self, machine: Machine, task: "asyncio.Task[Any]") -> str:
        """A step that commits: at level store it ends only when the store has it."""
        life = self._life(machine)
        self.loop.settle()
        while not task.done():
            if life.replica is None:
                return "waits"
            before = life.replica.confirmed
            self._flushed(life)
            if life.replica.confirmed == before and not task.done():
                raise Broken(f"{task} waits for ever")
        task.result()
        return "done"

    def _prune(self, machine: Machine, number: int) -> str:
        life = machine.life
        if life is None:
            return "-"
        floor = compaction.settled(life.replica.manifest) if life.replica else 0
        return f"dropped {dropped}" if (dropped := self.loop.run(life.journal.prune(floor))) else "nothing"

    def _compact(self, machine: Machine, number: int) -> str:
        """After a flush: the newest snapshot and the tail go up, and what they cover goes here."""
        if machine.life is None or machine.life.replica is None:
            return "-"
        self._flushed(machine.life)
        return self._compacted(machine)

    def _compacted(self, machine: Machine) -> str:
        life = self._life(machine)
        replica = life.replica
        assert replica is not None
        if not replica.manifest.complete:
            self.loop.run(life.journal.snapshot())
        taken = compaction.newest(machine.disk, machine.paths.snapshots)
        done = compaction.compact(replica, taken, breathe=lambda: self._breathe(life))
        if done.problems:
            raise Broken(f"compaction: {done.problems}")
        dropped = self.loop.run(life.journal.prune(compaction.settled(done.manifest)))
        return f"{'pruned' if dropped else 'kept'} {dropped} m{done.manifest.m}"

    def _breathe(self, life: Life) -> None:
        if self.rng.random() < 0.3 and life.replica:
            life.replica.flush()

    def _collect(self, machine: Machine, number: int) -> str:
        """What nobody needs goes from the store, mostly after a day."""
        life = machine.life
        if life is None or life.replica is None:
            return "-"
        self.clock.advance(DAY_S + 100 if number % 3 else 0)
        before = set(self.annals.objects)
        problems = collect(
            life.replica,
            life.mentions,
            clock=machine.clock,
            entropy=machine.rng.randbytes,
            breathe=lambda: self._breathe(life),
        )
        if problems:
            raise Broken(f"collection: {problems}")
        gone = before - set(self.annals.objects)
        return f"deleted {len(gone)}" if gone else "nothing"

    def _bring(self, machine: Machine, number: int) -> str:
        """Orphans come in, and those go that are confirmed."""
        life = machine.life
        if life is None or life.replica is None:
            return "-"
        journal = life.journal
        self._flushed(life)  # what waits is folded, or it would come in twice
        search = orphans.find(machine.net, journal.whole(ORPHANS).done, journal.blobs)
        if search.problems:
            raise Broken(f"orphans: {search.problems}")
        for one in search.orphans:
            task = self.loop.create_task(orphans.bring_in(journal, machine.disk, one))
            try:
                self._committed(machine, task)
            finally:
                task.cancel()
                self.loop.settle()
        gone = 0
        if journal.whole(ORPHANS).done:
            if number % 2 == 0:
                self._flushed(life)
            gone = orphans.clear(machine.net, journal.whole(ORPHANS).done, life.replica.confirmed)
        return f"brought {len(search.orphans)}, {gone} gone" if search.orphans or gone else "nothing"

    def _fill(self, machine: Machine, number: int) -> str:
        """What only the store has comes home."""
        if machine.life is None:
            return "-"
        journal = machine.life.journal
        missing = journal.missing()
        for kind, sha in missing:
            (journal.chunk if kind == "chunk" else journal.blob)(sha)
        return f"{len(missing)}"

    # ------------------------------------------------------------ around them

    def _outage(self, machine: Machine, number: int) -> str:
        machine.net.down = True
        return "down"

    def _reach(self, machine: Machine, number: int) -> str:
        machine.net.down = False
        machine.net.set((0.0, RATE, 0.3)[number % 3])
        return "up"

    def _wait(self, machine: Machine, number: int) -> str:
        """Time passes for everybody."""
        seconds = (20, 700, 4000, DAY_S + 100)[number % 4]
        self.clock.advance(seconds)
        return f"{seconds}"

    def _set(self, machine: Machine, number: int) -> str:
        """Somebody sets the clock on the wall, mostly back."""
        machine.clock.advance(500 - number * 10)
        return f"{500 - number * 10}"

    # ------------------------------------------------------------ what must hold

    def _life(self, machine: Machine) -> Life:
        assert machine.life is not None
        return machine.life

    def _is_overtaken(self, replica: Replica) -> bool:
        return self.annals.epoch > replica.epoch

    def _settle(self, machine: Machine) -> None:
        """What the store is known to have by now is shown and answered."""
        life = machine.life
        if life and life.replica and not machine.fuse.burnt:
            life.journal.confirm(life.replica.confirmed)
            self.loop.settle()

    def _hear(self, machine: Machine) -> None:
        """What was acknowledged meanwhile, and what is not owed any more."""
        life = machine.life
        for token, task in list(life.asked.items()) if life else ():
            if life is None or not task.done():
                continue
            del life.asked[token]
            if task.cancelled() or task.exception() is not None:
                continue
            record = task.result()
            if life.level == "store" and token not in self.annals.seq_of:
                raise Broken(f"I5: {token} was acknowledged at level store, and is not there")
            self.owed[token] = Owed(machine.name, record.seq)
        for token in [one for one in self.owed if one in self.annals.seq_of or one in self.annals.recovered]:
            del self.owed[token]

    def _require_confirmed(self, replica: Replica) -> None:
        """What a replica calls confirmed is in the store's history, as this log has it."""
        history = self.annals.history
        there = history[replica.confirmed - 1].digest if 0 < replica.confirmed <= len(history) else NOTHING
        if there != replica.chain:
            raise Broken(f"I5: {replica.writer} confirmed record {replica.confirmed}, which the store does not have")

    def _require_silence(self, machine: Machine) -> None:
        """Behind a fence nothing is acknowledged."""
        journal = self._life(machine).journal
        task = self.loop.create_task(journal.commit(prompt("<Z1>"), stream="s1", by=OWNER))
        self.loop.settle()
        if not task.done() or not isinstance(task.exception(), Fenced):
            raise Broken(f"I5: {machine.name} takes records behind the fence")

    def _check(self, machine: Machine) -> None:
        """After every step of a machine."""
        life = machine.life
        if life is None or machine.fuse.burnt:
            return
        if life.replica:
            self._require_confirmed(life.replica)
        if life.journal.error:
            raise Broken(f"the log takes nothing: {life.journal.error}")

    def _started(self, machine: Machine) -> None:
        """After every start."""
        life = self._life(machine)
        journal = life.journal
        if self.spoilt:
            return
        if lost := self._lost(journal):
            raise Broken(f"I1: {machine.name} lost something: {lost}")
        self._remember(journal)
        if life.recovered.claimed:
            self._require_past(machine)
        self._require_owed(machine)

    def _require_past(self, machine: Machine) -> None:
        """I1, I2: who claimed has the whole history of the store before what it says itself."""
        seq = len(self.annals.history)
        journal = self._life(machine).journal
        if seq and journal.seq >= seq:
            there = digest_at(machine.disk, machine.paths.wal, seq)
            if there == self.annals.chain:
                return
        if seq:
            raise Broken(f"I2: {machine.name} at {journal.seq} does not go on from record {seq} in the store")

    def _require_owed(self, machine: Machine) -> None:
        """I1: what this machine acknowledged is here, or among the orphans."""
        owed = [token for token, one in self.owed.items() if one.machine == machine.name]
        if not owed:
            return
        kept = machine.bytes_of_logs()
        kept += b"".join(data for key, data in self.annals.objects.items() if key.startswith("orphans/"))
        there = {found.decode() for found in TOKEN.findall(kept)}
        lost = sorted(set(owed) - there)
        if lost:
            raise Broken(f"I1: {machine.name} acknowledged {lost}, and nobody has it")

    def _remember(self, journal: Journal) -> None:
        """I3: the same log is the same state, wherever and however it was folded."""
        if journal.seq != journal.durable:
            return
        chain, state = journal._chain, journal.state_sha()
        if self.states.setdefault(chain, state) != state:
            raise Broken(f"I3: the state at record {journal.seq} is another one than before")

    def _tell(self, machine: Machine, number: int) -> str:
        """I2, I3, I8: everything that was ever said can be read, once, and the state is that of its log."""
        life = machine.life
        if life is None:
            return "-"
        self._remember(life.journal)
        with machine.net.calm():
            heard = self._heard(life.journal)
        twice = [token for token, times in heard.items() if times > 1]
        if twice:
            raise Broken(f"I2: {twice} can be read more than once")
        if lost := self._lost(life.journal):
            raise Broken(f"I8: {machine.name} misses something: {lost}")
        if life.replica and not self._is_overtaken(life.replica):
            said = {**self.annals.seq_of, **self.annals.recovered}
            missing = sorted(one for one, seq in said.items() if seq <= life.replica.confirmed and one not in heard)
            if missing:
                raise Broken(f"I8: {missing} cannot be read any more")
        return f"{len(heard)}"

    def _lost(self, journal: Journal) -> str:
        """What was lost, but for the bytes that are in the store, which did not answer just then."""
        there = {key.partition("/")[2] for key in self.annals.objects if key.startswith(("blob/", "chunk/"))}
        told = [one for one in journal.loss.split("; ") if one]
        return "; ".join(one for one in told if not there.intersection(HASH.findall(one)))

    def _heard(self, journal: Journal) -> Counter[str]:
        heard: Counter[str] = Counter()
        for stream in sorted(journal.streams(STREAMS)):
            for record in self.loop.run(journal.read(stream, limit=100_000)):
                event = record.event
                if isinstance(event, UserMessage | AssistantMessage):
                    heard.update(_tokens(event.text, event.turn))
                elif isinstance(event, EntryRecovered):
                    heard.update(_tokens(str(event.data), ""))
        return heard

    def heard(self, name: str) -> Counter[str]:
        """What can be read on a machine, and how often."""
        life = self.machines[name].life
        return self._heard(life.journal) if life else Counter()

    def leave(self) -> None:
        """Nothing of it runs any more."""
        for machine in self.machines.values():
            self._drop(machine)

    def end(self) -> None:
        """The faults end: both machines start, all drains, nothing is owed, everything is readable."""
        for name, machine in self.machines.items():
            machine.net.down = False
            machine.net.set(0.0)
            self.do("kill", name)
        for _ in range(2):
            for name in NAMES:
                self.do("start", name, 0)
                self._finish(name)
        if self.owed:
            raise Broken(f"I1: owed for ever: {self.owed}")

    def _finish(self, name: str) -> None:
        machine = self.machines[name]
        if machine.life is not None and "another history" in machine.life.recovered.degraded:
            self.met["unrelated"] += 1
            self.owed = {token: owed for token, owed in self.owed.items() if owed.machine != name}
            self.do("kill", name)
            return
        if machine.life is None or machine.life.replica is None:
            raise Broken(f"I12: {name} does not serve")
        for act in ("flush", "bring", "seal", "compact", "tell", "stop"):
            self.do(act, name, 0)


def _tokens(*texts: str) -> set[str]:
    return {found.decode() for text in texts for found in TOKEN.findall(text.encode())}


#: What a machine may do, by what it is just now, and how often.
UP = {
    "say": 24,
    "flush": 18,
    "look": 4,
    "seal": 3,
    "snapshot": 2,
    "tend": 8,
    "prune": 1,
    "compact": 6,
    "collect": 3,
    "bring": 3,
    "fill": 1,
    "pause": 3,
    "claim": 3,
    "stop": 2,
    "tell": 2,
    "outage": 1,
    "reach": 1,
    "wait": 1,
    "set": 1,
    "burn": 1,
}
OFF = {"start": 40, "outage": 1, "reach": 2, "wait": 1, "burn": 1}
STANDS = {"stand": 6, "start": 4, "kill": 2, "reach": 1}
#: The share of each in the midst of which the machine dies, and within how many effects.
CRASHING = {
    "say": (0.3, 6),
    "flush": (0.3, 5),
    "seal": (0.5, 14),
    "snapshot": (0.5, 8),
    "tend": (0.3, 25),
    "compact": (0.5, 25),
    "collect": (0.3, 15),
    "bring": (0.5, 15),
    "prune": (0.3, 4),
    "fill": (0.3, 8),
    "claim": (0.3, 4),
    "stop": (0.4, 30),
    "start": (0.3, 50),
    "look": (0.1, 2),
    "pause": (0.2, 2),
    "stand": (0.2, 50),
}
