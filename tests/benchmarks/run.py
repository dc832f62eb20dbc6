"""`scripts/bench [--only NAME] [--quick] [--write]`: measures finn against anchors, prints one table.

    row ─▶ a folder of its own on the disk that is measured ─▶ alternating rounds ─▶ median, spread, goal

--write puts the table into docs/benchmarks.md, between its two marks; what is written around it is a person's.
"""

import argparse
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import (
    append,
    archive,
    confirmed,
    doctor,
    health,
    livez,
    puts,
    reopen,
    replay,
    restore,
    sockets,
    start,
    tail,
    tokens,
    turns,
)
from tests.benchmarks.rounds import Measured, table

ROWS: Mapping[str, Callable[[Path, bool], Iterator[Measured]]] = {
    "start": start.measure,
    "turn": turns.measure,
    "token": tokens.measure,
    "append": append.measure,
    "reopen": reopen.measure,
    "socket": sockets.measure,
    "replay": replay.measure,
    "archive": archive.measure,
    "tail": tail.measure,
    "restore": restore.measure,
    "confirmed": confirmed.measure,
    "puts": puts.measure,
    "livez": livez.measure,
    "doctor": doctor.measure,
    "health": health.measure,
}
PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- scripts/bench writes from here -->", "<!-- to here -->"


def main() -> int:
    options = _options()
    rows = [row for name in options.only or ROWS for row in _measured(name, options)]
    text = f"{_machine()}\n\n{table(rows)}"
    print(text)
    if options.write:
        _write(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures finn against anchors.")
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; may be said several times")
    parser.add_argument("--quick", action="store_true", help="few rounds and small sizes: does it run at all")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--folder", type=Path, help="on the disk that is measured (the one of temporary files)")
    return parser.parse_args()


def _measured(name: str, options: argparse.Namespace) -> Iterator[Measured]:
    print(f"{name} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="finn-bench-", dir=options.folder) as folder:
        yield from ROWS[name](Path(folder), options.quick)


def _machine() -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{when}, {os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}."


def _write(text: str) -> None:
    page = PAGE.read_text("utf-8")
    found = re.search(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE} has no place for the table: {BEGIN} … {END}")
    PAGE.write_text(f"{page[: found.start()]}{BEGIN}\n{text}\n{END}{page[found.end() :]}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
