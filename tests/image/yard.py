"""Where finn's image is built and run without a Docker engine and without a registry.

    .images/base-HASH.tar    Debian with Python, by the hash of the script that makes it (tests/image/base)
    .images/store-HASH/      buildah's and podman's images, by the path of the checkout, which is written in them

    tests/image/base ─▶ scripts/image --base … ─▶ buildah (chroot) ─▶ podman + runc

All of it can be deleted at any time, and costs two minutes when it is needed again. Only root can do it here.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".images"
RECIPE = Path(__file__).with_name("base")
TOOLS = ("buildah", "mmdebstrap", "podman", "runc")
MISSING = "; ".join(
    [f"{name} is not installed" for name in TOOLS if shutil.which(name) is None]
    + (["containers are run by root here"] if os.geteuid() != 0 else [])
)
DRIVERS = ("overlay", "vfs")  #: quick first; the second one works everywhere
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
IMAGE = "localhost/finn:tested"
RELEASE = "release-of-the-test"
LIMIT_S = 600.0


def key(data: bytes) -> str:
    return sha256(data).hexdigest()[:12]


class Yard:
    """The tools with their own storage, and the image once it is built."""

    def __init__(self) -> None:
        self.weights = ""  #: what scripts/image said of the image
        self._base = f"localhost/finn-base:{key(RECIPE.read_bytes())}"
        self._store = CACHE / f"store-{key(str(ROOT).encode())}"
        self._storage = self._store / "storage.conf"

    def environment(self) -> dict[str, str]:
        """What every tool is started with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINN_", "AWS_"))}
        return {**kept, "CONTAINERS_STORAGE_CONF": str(self._storage), "BUILDAH_ISOLATION": "chroot"}

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command that ends. Where it fails and was not to, what it said is in the error."""
        told = subprocess.run(
            command, env=self.environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert not check or told.returncode == 0, f"{command}: {told.stdout[-2000:]}\n{told.stderr[-4000:]}"
        return told

    def podman(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*PODMAN, *arguments, check=check)

    def build(self) -> None:
        """Makes the image of this checkout, from what an earlier build left as far as that is still right."""
        with held(CACHE):
            self._set_up()
            self.weights = self.built(IMAGE)

    def built(self, tag: str, *options: str) -> str:
        """What scripts/image prints."""
        what = ("--tag", tag, "--base", self._base, "--release", RELEASE)
        return self.run(ROOT / "scripts" / "image", *what, *options).stdout

    def id_of(self, tag: str) -> str:
        return self.podman("image", "inspect", "--format", "{{.Id}}", tag).stdout.strip()

    def _set_up(self) -> None:
        if not self._storage.exists():
            self._choose_driver()
        if self.run("buildah", "inspect", "--type", "image", self._base, check=False).returncode == 0:
            return
        tar = CACHE / f"base-{self._base.rpartition(':')[2]}.tar"
        if not tar.exists():
            unfinished = tar.with_suffix(".unfinished.tar")
            self.run(RECIPE, unfinished)
            unfinished.rename(tar)
        self.podman("import", "--quiet", tar, self._base)

    def _choose_driver(self) -> None:
        self._store.mkdir(parents=True, exist_ok=True)
        for driver in DRIVERS:
            unused = self._store / driver
            lines = ("[storage]", f'driver = "{driver}"', f'graphroot = "{unused}"', f'runroot = "{self._store}/run"')
            self._storage.write_text("\n".join((*lines, "")))
            if self.run("buildah", "images", check=False).returncode == 0:
                return
        self._storage.unlink()
        raise AssertionError("buildah can store no image here")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else builds there."""
    folder.mkdir(exist_ok=True)
    with (folder / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
