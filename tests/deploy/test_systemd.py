"""The unit says what systemd understands, holds finn as tight as bubblewrap allows, and stops it in time.

There is no systemd to run it here. What can be had without one is: its reading of the file, its verdict, its sets of
system calls put around a real finn that has lost its rights and sees the machine read-only, and the command itself.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway import settings
from tests.end_to_end.finn import COMMAND, Finn, made

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "finn.service"
USER = 61184  #: of those that systemd gives away with DynamicUser
EXPOSURE = 3.5  #: what `systemd-analyze security` calls OK ends at 4

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


def section(name: str) -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return unit[name]


def command() -> str:
    """What the shell of ExecStart is given, as systemd hands it over."""
    shell, options, text = shlex.split(section("Service")["ExecStart"])
    assert (shell, options) == ("/bin/sh", "-ec")
    return text.replace("$$", "$")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, but for its program, which is not installed here."""
    copy = tmp_path / "finn.service"
    shutil.copy(UNIT, copy)
    return copy


def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_slip_of_the_pen_is_found(unit: Path) -> None:
    unit.write_text(UNIT.read_text().replace("StateDirectoryMode", "StateDirectryMode"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "StateDirectryMode" in done.stderr


def test_it_leaves_little_open(unit: Path) -> None:
    security = ["systemd-analyze", "security", "--offline=yes", str(unit)]
    said = subprocess.run(security, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Overall exposure level for finn.service: ([0-9.]+)", said)
    assert match, said
    assert float(match[1]) <= EXPOSURE


def test_a_stop_has_its_time_and_a_wrong_setting_is_no_loop() -> None:
    told = section("Service")
    budget = re.search(r"FINN_SHUTDOWN_BUDGET=(\S+)", told["Environment"])
    assert budget
    assert settings.duration(budget[1]) + 10 <= float(told["TimeoutStopSec"])
    assert (told["KillMode"], told["Restart"], told["RestartPreventExitStatus"]) == ("mixed", "on-failure", "2 243")
    assert float(section("Unit")["StartLimitIntervalSec"]) > float(section("Unit")["StartLimitBurst"]) * float(
        told["RestartSec"]
    )


def test_without_its_settings_the_command_ends_with_2_and_starts_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-ec", command()],
        env={"CREDENTIALS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{tmp_path}/env" in done.stderr


# ---------------------------------------------------------------- a finn as the unit holds it


def calls() -> str:
    """The names that the unit's filter lets through."""
    found: set[str] = set()
    pending = section("Service")["SystemCallFilter"].split()
    while pending:
        name = pending.pop()
        if name.startswith("@"):
            listed = subprocess.run(
                ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
            )
            pending += [line.strip() for line in listed.stdout.splitlines()[1:] if not line.strip().startswith("#")]
        elif name:
            found.add(name)
    return " ".join(sorted(found))


def seen(folder: Path) -> Iterator[str]:
    """The machine as the unit shows it: read-only but for the state directory. Options of bwrap, run by root."""
    places = [Path("/") / name for name in ("usr", "bin", "sbin", "lib", "lib64", "etc", "sys")]
    places += [Path(sys.base_prefix), ROOT]
    for way in dict.fromkeys(way for place in (*places, folder) for way in reversed(place.parents[:-1])):
        yield from ("--perms", "0755", "--dir", str(way))
    for place in dict.fromkeys(places):
        yield from ("--ro-bind-try", str(place), str(place))
    for live in ("/dev", "/proc"):
        yield from ("--dev-bind", live, live)
    yield from ("--bind", str(folder), str(folder), "--die-with-parent", "--cap-add", "ALL", "--")


@pytest.fixture
def held() -> Iterator[Finn]:
    """A finn with a user of its own and no other right, under the unit's filter and started by the unit's command."""
    with TemporaryDirectory(prefix="finn-unit-") as name:
        folder = Path(name)
        release = folder / "opt" / "r42"
        program = release / ".venv" / "bin" / "finn"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {COMMAND} "$@"\n')
        program.chmod(0o755)
        (folder / "opt" / "current").symlink_to(release)
        (folder / "env").write_text("FINN_LOG_LEVEL='info'\n")
        rights = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
        bounded = ("--bounding-set=-all", "--inh-caps=-all", "--")
        wrapper = ("bwrap", *seen(folder), *rights, *bounded)
        if subprocess.run([*wrapper, COMMAND, "--version"], capture_output=True, check=False).returncode:
            pytest.skip("only root can give finn a user of its own, and that one has to be able to read the checkout")
        filtered = (sys.executable, str(Path(__file__).with_name("unit.py")), calls())
        # What comes after the wrapper is `finn serve OPTION …`; the unit's command has the first two words already.
        shell = ("/bin/sh", "-ec", 'shift 2; eval "$UNIT \\"\\$@\\""', "unit")
        look = {"tool": "bash", "args": {"command": "hostname; touch /etc/x || echo held"}}
        said = {"CREDENTIALS_DIRECTORY": name, "UNIT": command().replace("/opt/finn", f"{name}/opt")}
        it = made(folder, [[look], [{"text": "done"}]], said, (*wrapper, *filtered, *shell))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        try:
            yield it
        finally:
            it.kill()


@pytest.mark.slow
def test_held_as_the_unit_holds_it_finn_works_and_its_commands_run_in_bubblewrap(held: Finn) -> None:
    held.start()
    assert held.ask("GET", "/health").json["releaseId"] == "r42"
    session = held.new_session()
    held.say(session, "look around")
    (result,) = (each["text"] for each in held.messages(session) if each["role"] == "toolResult")
    assert result.startswith("agent\n")
    assert "held" in result
    os.kill(json.loads((held.data / "run.json").read_text())["pid"], signal.SIGTERM)
    assert held.wait() == 0
