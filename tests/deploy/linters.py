"""The linters that tests/deploy/lint pins and scripts/test installs, and how one is asked."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(__file__).with_name("lint")
HOME = ROOT / ".lint"

needed = pytest.mark.skipif(not (HOME / "made-from").exists(), reason="scripts/test installs the linters")


def said(program: str, *options: object) -> tuple[int, str]:
    """The exit code and everything that a linter said."""
    done = subprocess.run(
        [HOME / "bin" / program, *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout
