"""Where bash runs: under bubblewrap, tried at start; on the bare machine if the owner says so; or nowhere.

    FINN_SANDBOX=auto, bwrap   bwrap without nested namespaces ─▶ bwrap ─▶ refused
    FINN_SANDBOX=none          none ─▶ refused
    FINN_SANDBOX=landlock      refused: not available in this release

Inside bwrap there are /usr (read-only), /proc and /dev (read-only), a small /tmp and the workspace at its real path; no
other process, no network unless it was asked for, no capability, and not every system call (agent/seccomp.py). Every
rung gets the same few variables and limits.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

from agent import seccomp

Popen = subprocess.Popen[bytes]

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
MEMORY_BYTES = 4 * 2**30  #: of one process
FILE_BYTES = 2 * 2**30  #: of one file, so that a runaway command does not fill the disk of the log in one go
TMP_BYTES = 256 * 2**20  #: of /tmp and of /dev/shm each, which are memory
PROCESSES = 256  #: in the sandbox; the kernel does not count them for root
OPEN_FILES = 1024
TRIAL_S = 10

# The kernel's choice when memory runs out should be the command and never finn.
FIRST_TO_DIE = ("choom", "-n", "1000", "--")

# RLIMIT_DATA and not RLIMIT_AS: node and Go reserve far more address space than they ever use.
LIMITS = (
    "prlimit",
    "--core=0",
    f"--data={MEMORY_BYTES}",
    f"--fsize={FILE_BYTES}",
    f"--nofile={OPEN_FILES}",
)


@dataclass(frozen=True)
class Rung:
    """Which means of confinement holds: its name, and in `reason` why a better one does not."""

    name: str
    reason: str = ""


class Sandbox(Protocol):
    """Starts shell commands, confined to the workspace. Where it is `refused`, `rung.reason` tells why."""

    @property
    def rung(self) -> Rung: ...
    @property
    def refused(self) -> bool: ...
    @property
    def workspace(self) -> Path: ...

    def start(self, command: str, output: int) -> Popen:
        """The command as leader of a session of its own, with no input and both outputs to the descriptor `output`.

        Takes about a millisecond. Raises OSError if it cannot be started, ValueError if it contains a NUL.
        """


@dataclass(frozen=True)
class Bubblewrap:
    """Namespaces of its own for everything. `nested` False forbids making further ones inside."""

    workspace: Path
    network: bool
    nested: bool
    rung: Rung = Rung("bwrap")
    refused: bool = False

    def start(self, command: str, output: int) -> Popen:
        filtered = seccomp.program()
        if filtered is None:
            return _started(self._argv(command), self.workspace, output)
        with _held(filtered) as descriptor:
            argv = self._argv(command, "--seccomp", str(descriptor))
            return _started(argv, self.workspace, output, descriptor)

    def _argv(self, command: str, *more: str) -> Sequence[str]:
        limits = (*LIMITS, f"--nproc={PROCESSES}")
        return (*FIRST_TO_DIE, "bwrap", *self._options(), *more, "--", *limits, *shell(command))

    def _options(self) -> Iterator[str]:
        workspace = str(self.workspace)
        yield from ("--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
        if not self.nested:
            yield "--disable-userns"
        yield from ("--ro-bind", "/usr", "/usr")
        for name in ("bin", "sbin", "lib", "lib64"):
            yield from ("--symlink", f"usr/{name}", f"/{name}")
        yield from _shown("/etc/ld.so.cache", "/etc/alternatives")
        if self.network:
            yield "--share-net"
            yield from _shown("/etc/resolv.conf", "/etc/hosts", "/etc/ssl", "/etc/ca-certificates", "/etc/pki")
        yield from ("--proc", "/proc", "--dev", "/dev")
        for scratch in ("/dev/shm", "/tmp"):  # noqa: S108 - they are the sandbox's own
            yield from ("--size", str(TMP_BYTES), "--tmpfs", scratch)
        yield from ("--bind", workspace, workspace, "--chdir", workspace, "--hostname", "agent")
        # Root owns /proc/sys also without capabilities: /proc/sys/kernel/core_pattern would be a way out.
        # The others are memory without a limit.
        yield from ("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/")


@dataclass(frozen=True)
class NoSandbox:
    """The machine as it is: every right of finn's own user, by the owner's wish."""

    workspace: Path
    rung: Rung = Rung("none", "FINN_SANDBOX=none: commands run with all the rights of finn's own user")
    refused: bool = False

    def start(self, command: str, output: int) -> Popen:
        return _started((*FIRST_TO_DIE, *LIMITS, *shell(command)), self.workspace, output)


@dataclass(frozen=True)
class Refused:
    """Nothing is run; the rung says why and what would help."""

    workspace: Path
    rung: Rung
    refused: bool = True

    def start(self, command: str, output: int) -> Popen:
        raise PermissionError(self.rung.reason)


def environment(workspace: Path) -> dict[str, str]:
    """The allow-list. It is handed over as the child's environment, never in an argv, which every process can read."""
    return {"PATH": SEARCH_PATH, "HOME": str(workspace), "LANG": "C.UTF-8", "TERM": "dumb"}


def _started(argv: Sequence[str], workspace: Path, output: int, *kept: int) -> Popen:
    return subprocess.Popen(
        argv,
        cwd=workspace,
        env=environment(workspace),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=kept,
    )


@contextmanager
def _held(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read."""
    with os.fdopen(os.memfd_create("finn"), "w+b") as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def shell(command: str) -> tuple[str, str, str]:
    """`command` for bash, or for sh where there is no bash."""
    return ("bash" if shutil.which("bash", path=SEARCH_PATH) else "sh", "-c", command)


def probe(choice: str, network: bool, workspace: Path) -> Sandbox:
    """Runs a command in the rungs of `choice`, best first, and gives the first that holds, else a Refused.

    Takes about 10 ms and waits for processes, so it is not for the event loop. Raises nothing.
    """
    workspace = workspace.resolve()
    if not _has_pidfd():
        reason = "bash needs Linux 5.3 or later; run finn in its container image to have it"
        return Refused(workspace, Rung("refused", reason))
    faults = []
    for sandbox in _rungs(choice, network, workspace):
        fault = _trial(sandbox)
        if fault is None:
            return sandbox
        faults.append(fault)
    return Refused(workspace, Rung("refused", faults[-1] if faults else _unavailable(choice)))


def _rungs(choice: str, network: bool, workspace: Path) -> tuple[Sandbox, ...]:
    if choice in ("auto", "bwrap"):
        weaker = Rung("bwrap", "this bwrap or kernel cannot forbid nested user namespaces")
        return (
            Bubblewrap(workspace, network, nested=False),
            Bubblewrap(workspace, network, nested=True, rung=weaker),
        )
    return (NoSandbox(workspace),) if choice == "none" else ()


def _unavailable(choice: str) -> str:
    return f"FINN_SANDBOX={choice} is not available in this release; use auto, bwrap or none"


def _trial(sandbox: Sandbox) -> str | None:
    """None if the sandbox runs a command, else what is wrong and what would help."""
    needed = ("choom", "prlimit", *(("bwrap",) if isinstance(sandbox, Bubblewrap) else ()))
    missing = next((program for program in needed if shutil.which(program, path=SEARCH_PATH) is None), None)
    if missing:
        package = "bubblewrap" if missing == "bwrap" else "util-linux"
        return f"{missing} is not installed; install {package}, or set FINN_SANDBOX=none to run without protection"
    try:
        output, code = _tried(sandbox)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the sandbox cannot be started: {error}"
    if output == b"ready\n":
        return None
    said = output.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return (
        f"{said[-1]}; allow user namespaces (in Docker: --security-opt seccomp=unconfined --security-opt"
        " apparmor=unconfined), or set FINN_SANDBOX=none to run without protection"
    )


def _tried(sandbox: Sandbox) -> tuple[bytes, int]:
    with TemporaryFile() as output, sandbox.start("echo ready", output.fileno()) as process:
        try:
            code = process.wait(TRIAL_S)
        finally:
            process.kill()
        output.seek(0)
        return output.read(), code


def _has_pidfd() -> bool:
    """Whether a command could be watched without losing it; without Linux it could not be confined either."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _shown(*paths: str) -> Iterator[str]:
    for path in paths:
        yield from ("--ro-bind-try", path, path)
