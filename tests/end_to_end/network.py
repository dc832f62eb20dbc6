"""A network of a test's own, in which a public address is this machine and nothing leaves it. Linux and root only.

    def body() -> None: ...      what runs in here, and every process and thread that it starts, sees
    alone(body, hosts)           PUBLIC and 127.0.0.1 as its only addresses, and `hosts` as the names there are

finn sends to public addresses only, and no setting opens that. So for a test the machine gets one.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

PUBLIC = "203.0.114.7"  #: somebody's in the world, and nobody's in here
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000


def alone(body: Callable[[], None], hosts: Mapping[str, str], folder: Path) -> None:
    """Runs `body` in a thread that has a network of its own. Skips the test where this machine gives none."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "mount"))):
        pytest.skip("a network of its own takes root, ip and mount")
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            _leave(folder, hosts)
            body()
        except BaseException as error:  # noqa: BLE001 - the test that waits for this thread gets it
            failures.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _leave(folder: Path, hosts: Mapping[str, str]) -> None:
    """This thread, and nothing else of this process, is in a network and among mounts of its own from here on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        pytest.skip(f"no network of its own here: {os.strerror(ctypes.get_errno())}")
    for kind in ("mnt", "net"):
        assert os.readlink(f"/proc/thread-self/ns/{kind}") != os.readlink(f"/proc/{os.getpid()}/ns/{kind}")
    names = folder / "hosts"
    names.write_text("".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **hosts}.items()))
    for command in (
        ("mount", "--make-rprivate", "/"),
        ("mount", "--bind", str(names), "/etc/hosts"),
        ("ip", "link", "set", "lo", "up"),
        ("ip", "addr", "add", f"{PUBLIC}/32", "dev", "lo"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no network of its own here: {done.stderr.strip()}")
