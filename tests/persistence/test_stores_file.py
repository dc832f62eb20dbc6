"""The file store's own: what a link, a missing disk, kill -9 and power loss may do to it.

What it said it kept is there, whole, and nothing else is.

power loss = a copy of the image of a mounted ext4: what was not made durable is not in it     (needs root)
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from persistence.clock import FakeClock
from persistence.errors import Exists, StoreRefused, StoreUnreachable
from persistence.stores.file import ABANDONED_S, FileStore
from tests.conftest import count

ROUNDS = count(8, 200)
SIZE = 20_000

#: Writes one object after another and names each in a line once it is kept.
WRITER = f"""
import itertools, sys
from pathlib import Path
from persistence.stores.file import FileStore
store = FileStore(Path(sys.argv[1]))
print("ready", flush=True)
for n in itertools.count():
    store.create(f"log/{{n:06d}}", f"{{n:06d}}".encode() * {SIZE // 6})
    store.put("manifest/HINT", f"{{n:06d}}".encode() * {SIZE // 6})
    print(n, flush=True)
"""


def body(n: int) -> bytes:
    return f"{n:06d}".encode() * (SIZE // 6)


def killed_after(root: Path, lines: int) -> int:
    """How many objects a writer had named when it was killed, which was soon after it had named so many."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = list(islice(writer.stdout, lines + 1))
        writer.kill()
        told += writer.stdout.read().splitlines(keepends=True)
    return len([line for line in told if line.endswith("\n")]) - 1


def test_a_killed_writer_leaves_whole_objects_and_all_that_it_named(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for round_ in range(ROUNDS):
        root = tmp_path / str(round_)
        root.mkdir()
        named = killed_after(root, rng.randrange(1, 30))
        store = FileStore(root)
        found = [each.key for each in store.list("log/")]
        assert found == [f"log/{n:06d}" for n in range(len(found))]
        assert len(found) in (named, named + 1)  # the last one may have been kept and not yet named
        assert [store.get(key) for key in found] == [body(n) for n in range(len(found))]
        assert store.get("manifest/HINT") in (body(named - 1), body(named))


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    # `commit`: the kernel's own writing every five seconds must not make durable what the store forgot.
    tried = subprocess.run(
        ["mount", "-o", "loop,commit=300", str(image), str(folder)], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"a file system cannot be mounted here: {tried.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def create(store: FileStore) -> None:
    store.create("orphans/3-writer/1", body(1))


def replace(store: FileStore) -> None:
    store.put("manifest/HINT", body(2))


def delete(store: FileStore) -> None:
    store.delete("log/1")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="there is no mkfs.ext4")
@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (create, {"log/1": body(1), "manifest/HINT": body(1), "orphans/3-writer/1": body(1)}),
        (replace, {"log/1": body(1), "manifest/HINT": body(2)}),
        (delete, {"manifest/HINT": body(1)}),
    ],
)
def test_what_was_kept_survives_a_power_loss(
    tmp_path: Path, write: Callable[[FileStore], None], expected: dict[str, bytes]
) -> None:
    """One write only, directly before: on ext4 the next one would make durable what this one forgot."""
    image, crashed = tmp_path / "disk", tmp_path / "crashed"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted(image, tmp_path / "live") as root:
        store = FileStore(root)
        store.put("log/1", body(1))
        store.put("manifest/HINT", body(1))
        write(store)
        (root / "unsynced").write_bytes(b"x")
        shutil.copyfile(image, crashed)
    with mounted(crashed, tmp_path / "after") as root:
        kept = {found.key: FileStore(root).get(found.key) for found in FileStore(root).list("")}
    assert kept == expected  # and that "unsynced", which nobody made durable, is gone shows that the power was cut


def test_files_are_where_and_as_private_as_expected(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.create("log/1", b"x")
    assert (tmp_path / "log" / "1").read_bytes() == b"x"
    assert ((tmp_path / "log").stat().st_mode & 0o777, (tmp_path / "log" / "1").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )


def test_a_missing_root_is_refused_and_never_made(tmp_path: Path) -> None:
    """A disk that is not mounted is not an empty store: NotFound here would begin the agent anew."""
    store = FileStore(tmp_path / "not-mounted")
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.create("log/1", b"x"),
        lambda: store.put("log/1", b"x"),
        lambda: store.get("log/1"),
        lambda: [*store.list("")],
        lambda: store.delete("log/1"),
    )
    for call in calls:
        with pytest.raises(StoreRefused):
            call()
    assert list(tmp_path.iterdir()) == []


def test_no_link_in_the_store_leads_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    for folder in (outside, root, root / "seg"):
        folder.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "log").symlink_to(outside, target_is_directory=True)
    (root / "seg" / "1").symlink_to(outside / "secret")
    store = FileStore(root)
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.get("log/secret"),
        lambda: store.get("seg/1"),
        lambda: store.create("log/new", b"x"),
        lambda: store.put("log/secret", b"x"),
        lambda: store.delete("log/secret"),
        lambda: [*store.list("log/")],
    )
    for call in calls:
        with pytest.raises(StoreRefused):
            call()
    store.put("seg/1", b"replaces the link, not what it points at")
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}
    assert [found.key for found in store.list("")] == ["seg/1"]


def test_a_pipe_in_the_store_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "knock")
    with pytest.raises(StoreRefused):
        FileStore(tmp_path).get("knock")


def test_what_a_crash_left_unfinished_is_no_object_and_goes_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    old, young = folder / ".finn-old", folder / ".finn-young"
    clock = FakeClock()
    for path, age in ((old, ABANDONED_S + 1), (young, 60.0)):
        path.write_bytes(b"half")
        os.utime(path, (clock.now() - age, clock.now() - age))
    store = FileStore(tmp_path, clock=clock)
    assert [found.key for found in store.list("")] == []
    store.create("log/1", b"x")
    assert sorted(path.name for path in folder.iterdir()) == [".finn-young", "1"]


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.create("log/1", b"x")
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(StoreUnreachable):
        store.create("log/2", b"y")
    store.create("log/2", b"y")
    assert [found.key for found in store.list("")] == ["log/2"]


def test_a_write_leaves_nothing_but_the_object(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.create("log/1", b"x")
    with pytest.raises(Exists):
        store.create("log/1", b"y")
    store.put("log/1", b"z")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["1"]


def test_a_write_that_the_disk_breaks_off_leaves_the_old_object(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("log/1", b"old")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreRefused):
            store.put("log/1", b"new" * 1000)
        with pytest.raises(StoreRefused):
            store.create("log/2", b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (store.get("log/1"), [path.name for path in (tmp_path / "log").iterdir()]) == (b"old", ["1"])
