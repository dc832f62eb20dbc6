"""What a command in the sandbox can reach: its workspace, and nothing else."""

import errno
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from agent import sandbox, seccomp
from agent.sandbox import Sandbox, probe
from tests.site import fingerprint, sandboxed

ROOT = Path(__file__).parent.parent.parent
CANARY = "CANARY-5f1c2a77"


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in our own environment, as a key of a model would be."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    return CANARY


def out(inside: Sandbox, command: str) -> str:
    """What a command prints, on either stream."""
    with TemporaryFile("w+", encoding="utf-8") as output, inside.start(command, output.fileno()) as process:
        process.wait(60)
        output.seek(0)
        return output.read()


@pytest.fixture
def inside(tmp_path: Path) -> Sandbox:
    return sandboxed(tmp_path).sandbox


# ---------------------------------------------------------------- which rung


@pytest.mark.parametrize("choice", ["auto", "bwrap"])
def test_bubblewrap_holds_without_reservations(tmp_path: Path, choice: str) -> None:
    found = sandboxed(tmp_path, choice).sandbox
    assert (found.rung.name, found.rung.reason, found.refused) == ("bwrap", "", False)


def test_none_says_what_it_means(tmp_path: Path) -> None:
    found = sandboxed(tmp_path, "none").sandbox
    assert found.rung.name == "none"
    assert "all the rights" in found.rung.reason
    assert out(found, "pwd") == f"{found.workspace}\n"


@pytest.mark.parametrize("choice", ["landlock", "firejail"])
def test_a_rung_that_is_not_built_is_refused_with_those_that_are(tmp_path: Path, choice: str) -> None:
    found = probe(choice, False, tmp_path)
    assert found.refused
    assert found.rung.reason == f"FINN_SANDBOX={choice} is not available in this release; use auto, bwrap or none"
    with pytest.raises(PermissionError, match="not available"):
        found.start("true", 1)


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_elsewhere_than_on_linux_bash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = probe(choice, False, tmp_path)
    assert found.refused
    assert "needs Linux" in found.rung.reason


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes these the only programs there are."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setattr(sandbox, "SEARCH_PATH", str(folder))


def test_a_missing_bubblewrap_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path / "bin", monkeypatch, "bash", "choom", "prlimit")
    found = probe("auto", False, tmp_path)
    assert found.refused
    assert found.rung.reason == (
        "bwrap is not installed; install bubblewrap, or set FINN_SANDBOX=none to run without protection"
    )


def test_a_bubblewrap_that_fails_is_quoted_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path / "bin", monkeypatch, "bash", "sh", "choom", "prlimit")
    broken = tmp_path / "bin" / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    broken.chmod(0o755)
    found = probe("auto", False, tmp_path)
    assert found.refused
    assert found.rung.reason.startswith("bwrap: No permissions to create new namespace; allow user namespaces")


def test_a_kernel_that_cannot_forbid_nesting_gives_bubblewrap_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, "bash", "sh", "choom", "prlimit")
    older = tmp_path / "bin" / "bwrap"
    older.write_text('#!/bin/sh\ncase "$*" in *--disable-userns*) exit 1;; *) echo ready;; esac\n')
    older.chmod(0o755)
    found = probe("auto", False, tmp_path)
    assert found.rung == sandbox.Rung("bwrap", "this bwrap or kernel cannot forbid nested user namespaces")


# ---------------------------------------------------------------- what is in it


def test_a_command_works_in_the_workspace_at_its_real_path(inside: Sandbox) -> None:
    assert out(inside, "pwd; echo text > made; cat made") == f"{inside.workspace}\ntext\n"
    assert (inside.workspace / "made").read_text() == "text\n"


def test_nothing_but_the_workspace_can_be_written(inside: Sandbox) -> None:
    """What lies above the workspace is the sandbox's own; here that is its /tmp, which is gone when it ends."""
    before = fingerprint(inside.workspace.parent)
    said = out(inside, "for f in /x /usr/x /etc/x /dev/x /usr/bin/env ../x ../grimoires; do : > $f; done; true")
    assert said.count("Read-only file system") == 5, said
    assert fingerprint(inside.workspace.parent) == before


def test_the_kernel_cannot_be_told_anything_through_proc(inside: Sandbox) -> None:
    """Root owns /proc/sys also without capabilities, and core_pattern runs a program outside."""
    writable = out(inside, "find /proc/sys /proc/sysrq-trigger -type f -writable 2>/dev/null | head -3")
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    refused = out(inside, "cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern")
    assert "Read-only file system" in refused, writable
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_other_files_of_the_data_directory_are_not_there(inside: Sandbox) -> None:
    assert out(inside, "ls -A ..") == "workspace\n"
    assert "No such file" in out(inside, f"cat {inside.workspace.parent}/grimoires/BEAUVOIR.md")


def test_no_account_of_the_machine_is_there(inside: Sandbox) -> None:
    assert "No such file" in out(inside, "cat /etc/passwd")
    assert "No such file" in out(inside, "ls /root /home")


def test_no_secret_of_ours_is_in_reach(inside: Sandbox, canary: str) -> None:
    found = out(inside, "env; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ; set; ls -la /proc")
    assert "PATH=" in found
    assert canary not in found


def test_the_environment_is_the_allow_list(inside: Sandbox, canary: str) -> None:
    names = {line.split("=")[0] for line in out(inside, "env").splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME", "LANG", "TERM"}


def test_without_a_sandbox_the_environment_is_the_same(tmp_path: Path, canary: str) -> None:
    plain = sandboxed(tmp_path, "none").sandbox
    names = {line.split("=")[0] for line in out(plain, "env").splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME", "LANG", "TERM"}


def test_no_other_process_can_be_seen_signalled_or_traced(inside: Sandbox) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        assert out(inside, f"test -e /proc/{other.pid} || echo hidden") == "hidden\n"
        assert "No such process" in out(inside, f"kill -9 {other.pid}")
        attach = f"import ctypes; print(ctypes.CDLL(None).ptrace(16, {other.pid}, 0, 0))"
        assert out(inside, f"python3 -c '{attach}'") == "-1\n"
        assert other.poll() is None
        other.kill()


def test_no_privilege_is_left(inside: Sandbox) -> None:
    status = out(inside, "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_no_further_namespace_can_be_made(inside: Sandbox) -> None:
    assert "unshare failed" in out(inside, "unshare -Ur true")


@contextmanager
def listener(host: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((host, 0)) as server:
        server.settimeout(0)
        yield server.getsockname()[1]


def test_the_loopback_of_the_machine_cannot_be_reached(inside: Sandbox) -> None:
    with listener() as port:
        assert "refused" in out(inside, f": < /dev/tcp/127.0.0.1/{port}").lower()


def test_with_the_network_on_it_can(tmp_path: Path) -> None:
    """Which also shows that the test above would notice."""
    inside = sandboxed(tmp_path, network=True).sandbox
    with listener() as port:
        assert out(inside, f": < /dev/tcp/127.0.0.1/{port} && echo reached") == "reached\n"


def test_a_socket_of_another_program_cannot_be_reached(inside: Sandbox) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0finn-test-abstract")
        server.listen()
        connect = 'import socket; socket.socket(socket.AF_UNIX).connect("\\0finn-test-abstract")'
        assert "ConnectionRefusedError" in out(inside, f"python3 -c '{connect}'")


def test_the_host_of_a_virtual_machine_cannot_be_reached(inside: Sandbox) -> None:
    """Its socket family is not held back by a network namespace."""
    opened = "import socket; [socket.socket(family, socket.SOCK_STREAM) for family in ({})]"
    assert "[Errno 97]" in out(inside, f"python3 -c '{opened.format('socket.AF_VSOCK,')}'")
    assert out(inside, f"python3 -c '{opened.format('socket.AF_UNIX, socket.AF_INET, socket.AF_INET6')}'") == ""


@pytest.mark.parametrize("number", seccomp.MACHINES["x86_64"].closed)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
def test_a_closed_system_call_is_not_there(inside: Sandbox, number: int) -> None:
    called = (
        f"import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall({number}, 0, 0, 0, 0), ctypes.get_errno())"
    )
    assert out(inside, f"python3 -c '{called}'") == f"-1 {errno.ENOSYS}\n"


def test_a_machine_whose_system_calls_are_not_known_has_no_filter() -> None:
    assert seccomp.program("riscv64") is None


def test_memory_processes_and_files_are_limited(inside: Sandbox) -> None:
    assert out(inside, "ulimit -d; ulimit -u; ulimit -n; ulimit -f; ulimit -c").split() == [
        str(sandbox.MEMORY_BYTES // 1024),
        str(sandbox.PROCESSES),
        str(sandbox.OPEN_FILES),
        str(sandbox.FILE_BYTES // 1024),
        "0",
    ]


def test_the_kernel_would_stop_the_command_before_us(inside: Sandbox) -> None:
    assert out(inside, "cat /proc/self/oom_score_adj") == "1000\n"


def test_scratch_space_is_memory_with_a_limit(inside: Sandbox) -> None:
    sizes = out(inside, "df --output=size -B1 /tmp /dev/shm").split()
    assert sizes[1:] == [str(sandbox.TMP_BYTES)] * 2


def test_what_the_devices_and_proc_are_for_still_works(inside: Sandbox) -> None:
    assert out(inside, "echo x > /dev/null; head -c 3 /dev/zero | wc -c; cat <(echo sub)") == "3\nsub\n"
    assert out(inside, "python3 -c 'import multiprocessing as m; m.Lock(); print(1)'") == "1\n"


def test_a_background_process_in_its_own_session_ends_with_the_command(inside: Sandbox) -> None:
    """The pipe is held by it; that it can be read to the end says that nobody is left."""
    os.mkfifo(inside.workspace / "alive")
    with open(os.open(inside.workspace / "alive", os.O_RDONLY | os.O_NONBLOCK)) as alive:
        os.set_blocking(alive.fileno(), True)
        out(inside, "exec 3> alive; echo started >&3; setsid sleep 1000 > /dev/null 2>&1 < /dev/null & disown")
        assert alive.read() == "started\n"


def test_the_sandbox_dies_with_finn(inside: Sandbox) -> None:
    os.mkfifo(inside.workspace / "alive")
    program = (
        "from pathlib import Path; from agent.sandbox import probe; "
        f"inside = probe('bwrap', False, Path({str(inside.workspace)!r})); "
        "inside.start('exec 3> alive; echo started >&3; sleep 1000', 1).wait()"
    )
    with open(os.open(inside.workspace / "alive", os.O_RDONLY | os.O_NONBLOCK)) as alive:
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as finn:
            os.set_blocking(alive.fileno(), True)
            while not alive.readline():
                assert finn.poll() is None
            finn.kill()
        assert alive.read() == ""
