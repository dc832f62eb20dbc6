"""What is so at this moment, as health is told it: facts that the parts of a life hold in memory.

    process ─▶ own_facts    its state, its settings, its sockets
    rooms   ─▶ room_facts   the log, the agent, its files and beads, once they are open

Nothing here waits, and nothing here judges: scheduler/health.py does. Others tell their own: the copies (storage.py),
the tasks (tasks.py), and what costs a look at the machine (condition.py).
"""

from collections.abc import Iterable, Iterator, Sequence

from gateway.copies import files_fact
from gateway.rooms import Rooms
from gateway.routes.beads import bead_facts
from scheduler.health import Fact


def own_facts(state: str, reasons: Iterable[object], problems: Sequence[str], sockets: int) -> Iterator[Fact]:
    """The process itself: `reasons` say why it takes no work, where it takes none."""
    yield Fact("gateway:state", state, output="; ".join(str(reason) for reason in reasons))
    yield Fact("settings:problems", len(problems), output="; ".join(problems))
    yield Fact("ws:connections", sockets)


def room_facts(rooms: Rooms) -> Iterator[Fact]:
    """The agent, awake."""
    journal, identity, about, rung = rooms.journal, rooms.identity.current, rooms.model.about, rooms.sandbox.rung
    yield Fact("wal:lastSeq", journal.seq)
    yield Fact("wal:bytes", journal.size, "bytes")
    if journal.error:
        yield Fact("wal:error", journal.error, output=journal.error)
    if journal.trouble:
        yield Fact("wal:upkeep", journal.trouble, output=journal.trouble)
    if journal.held:
        said = f"{len(journal.held)} records are of a kind or version this release does not know; they are kept"
        yield Fact("wal:held", len(journal.held), output=f"{said}; a newer release will read them")
    yield Fact("epoch", journal.epoch)
    yield Fact("recovery:source", journal.source, output=journal.loss)
    yield Fact("identity:checksum", identity.checksum, output=identity.problem)
    trouble = journal.redact(rooms.model.trouble) if about.ready else about.note  # a provider may repeat the key
    yield Fact("model:state", f"{about.provider}:{about.name}", output=trouble)
    yield Fact("sandbox:rung", rung.name, output=rung.reason if rooms.sandbox.refused else "")
    yield Fact("turn:active", rooms.turns.active)
    yield files_fact(rooms.files)
    yield from bead_facts(rooms.beads, rooms.bead_file)
