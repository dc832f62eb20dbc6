"""The rooms of a life, opened: a log and a data directory become an agent that is awake.

journal ─┬▶ grimoires/, workspace/     written back where the log has what this disk lacks
         ├▶ beads ─▶ issues.jsonl      with what somebody changed in it meanwhile
         └▶ identity, sandbox, model ─▶ agent ─▶ turns
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import sandbox
from agent.identity import IdentityFiles
from agent.loop import Agent
from agent.mirror import Mirror
from agent.repute import Watched
from agent.tool import Site
from agent.tools import TOOLS
from agent.turns import Turns
from gateway.equipment import Equipment
from gateway.premises import Premises
from gateway.rooms import Rooms
from gateway.tally import Tally
from gateway.template import template
from gateway.tokens import Tokens
from persistence.bead import Bead
from persistence.bead_file import FOLDER, BeadFile
from persistence.beads import Beads
from persistence.events import AGENT
from persistence.files import Files
from persistence.journal import Journal
from persistence.limits import Limits
from persistence.own_beads import shown

if TYPE_CHECKING:
    from persistence.origin import Origin


@dataclass(frozen=True)
class Folders:
    """Where the rooms of a data directory lie."""

    grimoires: Path
    workspace: Path
    mirrors: Path
    beads: Path

    def made(self) -> None:
        """Makes those that are missing. The beads' own is made with their file. Waits for the disk."""
        for folder in (self.workspace, self.grimoires, self.mirrors):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def folders(data_dir: Path) -> Folders:
    """As the sandbox sees them: a path that bash prints is one that the file tools take."""
    root, state = data_dir.resolve(), data_dir / "state"
    return Folders(root / "grimoires", root / "workspace", state / "sessions", state / FOLDER)


async def open_rooms(own: Equipment, origin: "Origin | None") -> Rooms:
    """Opens the log where `origin` says it goes on, and wakes the agent. Raises FinnError, OSError."""
    settings, means, clock = own.settings, own.means, own.clock
    at = folders(settings.data_dir)
    journal = await Journal.open(settings.data_dir, own.folds, means, origin)
    files = await _files(own, journal, at)
    fence = await asyncio.to_thread(sandbox.probe, settings.sandbox, settings.sandbox_network == "on", at.workspace)
    identity = await asyncio.to_thread(IdentityFiles, at.grimoires)
    await asyncio.to_thread(identity.look)

    async def changed() -> None:
        for each in files:
            await each.look(AGENT, own=True)

    beads = Beads(journal, clock)
    bead_file = await _bead_file(own, journal, beads, at.beads)
    model = Watched(own.model, clock)
    agent = Agent(model, TOOLS, Site(at.workspace, at.grimoires, fence, clock, beads), clock, own.entropy, changed)
    return Rooms(
        journal=journal,
        turns=Turns(journal, agent, identity, means.ids),
        identity=identity,
        files=files,
        mirror=Mirror(journal, means.disk, at.mirrors, journal.paths.quarantine, at.workspace),
        beads=beads,
        bead_file=bead_file,
        tokens=Tokens(journal, clock, means.ids, own.entropy),
        model=model,
        sandbox=fence,
        ids=means.ids,
        workspace=at.workspace,
        premises=await asyncio.to_thread(Premises, settings.data_dir, clock, os.getpid()),
    )


async def _files(own: Equipment, journal: Journal, at: Folders) -> tuple[Files, ...]:
    """The files that the log keeps, as they should be on this disk."""
    settings, means = own.settings, own.means
    lost = {root for root in (at.workspace, at.grimoires) if not root.exists()}  # nobody deletes file by file like that
    await asyncio.to_thread(at.made)
    limits = Limits(file_bytes=settings.workspace_file_max, total_bytes=settings.workspace_max)
    notes = Files(journal, means.disk, means.redactor, "grimoires", at.grimoires, limits)
    workspace = Files(journal, means.disk, means.redactor, "workspace", at.workspace, limits)
    for files, root in ((notes, at.grimoires), (workspace, at.workspace)):
        if journal.source != "local" or root in lost:
            await files.write_back()
    await notes.fill(await asyncio.to_thread(template))
    return notes, workspace


async def _bead_file(own: Equipment, journal: Journal, beads: Beads, folder: Path) -> BeadFile:
    """The beads' file, looked at for the first time, and everybody who follows the log from here on."""

    def decorate(bead: Bead) -> Bead:
        tiers = own.storage.tiers(journal.seq) if own.storage is not None else ()
        return shown(bead, complete=all(tier.state == "saved" for tier in tiers))

    file = BeadFile(beads, own.means.disk, folder, journal.paths.quarantine, own.clock, decorate)
    journal.listen(file.follow)
    journal.listen(own.lobby.follow)
    journal.listen(Tally(own.metrics.observe, [tool.declaration.name for tool in TOOLS]).follow)
    await file.attempt()
    await beads.expire()
    return file
