"""What the gateway has below it once the log is open: the things that routes and sockets talk to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.identity import IdentityFiles
from agent.mirror import Mirror
from agent.model import Model
from agent.sandbox import Sandbox
from agent.turns import Turns
from persistence.bead_file import BeadFile
from persistence.beads import Beads
from persistence.clock import Ids
from persistence.files import Files
from persistence.journal import Journal


@dataclass(frozen=True)
class Rooms:
    """One agent, awake."""

    journal: Journal
    turns: Turns
    identity: IdentityFiles
    files: tuple[Files, ...]  #: grimoires, workspace
    mirror: Mirror
    beads: Beads
    bead_file: BeadFile
    model: Model
    sandbox: Sandbox
    ids: Ids
    workspace: Path


Open = Callable[[], Rooms]  #: gives the rooms; only called behind a guard, when they are open
