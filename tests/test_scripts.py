"""`scripts/run` where something is missing, where all is there, and where the lock has changed since."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLAIN = ("bash", "cat", "cut", "dirname", "env", "sha256sum")  # what any machine has


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without an environment, beside a PATH that holds neither Python nor git."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for lock in ("requirements.lock", "requirements-test.lock"):
        shutil.copy(ROOT / lock, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in PLAIN:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    return tmp_path


@pytest.fixture
def made(bare: Path) -> Path:
    """The same with an environment made from its lock, in which `finn` tells how it was called."""
    finn = bare / ".venv" / "bin" / "finn"
    finn.parent.mkdir(parents=True)
    finn.write_text('#!/usr/bin/env bash\necho "$PWD: $*"\n')
    finn.chmod(0o755)
    sha256 = hashlib.sha256((bare / "requirements.lock").read_bytes()).hexdigest()
    (bare / ".venv" / "made-from").write_text(f"{sha256} {bare}\n")
    return bare


def run(checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(checkout / "scripts" / "run"), *options]
    path = {"PATH": str(checkout / "bin")}
    return subprocess.run(command, env=path, cwd=ROOT / "docs", capture_output=True, text=True, check=False)


def test_what_is_missing_is_said_in_one_line_with_how_to_install_it(bare: Path) -> None:
    outcome = run(bare)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("finn: Python 3.11 or newer with venv, and git, are needed (Debian: sudo apt-get install")
    assert not (bare / ".venv").exists()


def test_finn_is_served_from_an_environment_that_fits_the_lock(made: Path) -> None:
    assert run(made, "--port", "9").stdout == f"{ROOT / 'docs'}: serve --port 9\n"


def test_without_bubblewrap_finn_starts_and_says_what_that_costs(made: Path) -> None:
    outcome = run(made)
    assert outcome.returncode == 0
    assert "bubblewrap is missing, so the agent's bash tool is refused" in outcome.stderr


def test_an_environment_made_from_another_lock_is_not_used(made: Path) -> None:
    with (made / "requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    outcome = run(made)
    assert (outcome.returncode, outcome.stdout) == (1, "")
