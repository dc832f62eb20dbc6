"""A check and its cure, side by side: what is looked at, and by which steps it is mended.

    look(site) ─▶ Seen        reads only
    mend(site) ─▶ steps       decides only: doctor.py keeps what a step replaces, takes it, and looks again

A step is data, so that it can be shown before it is taken and taken back afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from persistence.amends import Edit
from scheduler.finding import Seen
from scheduler.site import Site


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """A folder that is not there."""

    path: Path
    mode: int = 0o700


@dataclass(frozen=True, slots=True)
class SetMode:
    """Who may read and write a file or a folder."""

    path: Path
    mode: int


@dataclass(frozen=True, slots=True)
class Write:
    """A file with these bytes, whether it is there or not."""

    path: Path
    data: bytes
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Move:
    """A file or folder to another place, where nothing is."""

    path: Path
    to: Path


@dataclass(frozen=True, slots=True)
class Remove:
    """A file or folder that is not to be there; the doctor keeps it for the undo."""

    path: Path


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that only a running finn can do, by its name in `Site.acts`. It takes nothing away."""

    act: str


@dataclass(frozen=True, slots=True)
class Change:
    """Beads as they are to be: a record, with a finn that runs or without one, taken back by another record."""

    edits: tuple[Edit, ...]


Step = MakeFolder | SetMode | Write | Move | Remove | Ask | Change


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should be so. `id` is CATEGORY.NAME, `title` says in a few words what is looked at.

    `look` may take what it needs from the site and must not change anything; what it raises becomes a finding of its
    own. `mend` decides on the steps, in their order; none where it can do nothing. Where `alone`, they are taken only
    while no finn has the log. A check that is `far` asks a network, and is not waited for without end. One that is
    `apart` takes long and needs nothing that others need: where there is much, it looks in a process of its own.
    One that looks at its `own` process never does.
    """

    id: str
    title: str
    look: Callable[[Site], Seen]
    mend: Callable[[Site], Sequence[Step]] | None = None
    alone: bool = False
    far: bool = False
    apart: bool = False
    own: bool = False

    @property
    def category(self) -> str:
        """What it is about."""
        return self.id.partition(".")[0]
