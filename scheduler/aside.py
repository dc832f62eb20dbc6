"""Steps that move a file to quarantine/, with the note that says what it is: as `persistence/quarantine.py` does it."""

import json
from pathlib import Path

from scheduler.check import Move, Step, Write
from scheduler.site import Site


def aside(site: Site, path: Path, why: str) -> tuple[Step, ...]:
    """The note, then the file or folder itself, under a name that is free."""
    folder, stamp = site.paths.quarantine, path.lstat().st_mtime_ns
    name = f"{path.parent.name}-{path.name}-{stamp}"
    note = json.dumps({"from": str(path), "why": why}, indent=1).encode() + b"\n"
    return Write(folder / f"{name}.json", note), Move(path, folder / name)
