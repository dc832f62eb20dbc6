"""The benchmarks run, and say what they measured. What the figures are is nothing that a test may fail on."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "benchmarks" / "run.py"


@pytest.mark.slow
def test_a_quick_run_prints_a_table_with_a_line_for_each_thing_that_was_measured() -> None:
    command = [sys.executable, str(RUN), "--quick", "--only", "append"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    table = [line for line in outcome.stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["what", "anchor", "ours", "ratio", "goal", "ok?", "spread", "load"]
    assert [line[0] for line in cells[2:]] == [
        "appends of one caller, the log alone",
        "appends of one caller",
        "appends of 64 callers, the log alone",
        "appends of 64 callers",
        "appends of 64 callers, the log alone",
        "appends of 64 callers",
    ]
    assert all(line[5] in ("yes", "NO") for line in cells[2:])
