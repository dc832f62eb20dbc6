"""The git tier: what a commit costs beside git alone, and how long it takes to come back from a repository.

commit     20 of 200 files changed, the state as well; the anchor is `git fast-import` of the same bytes
restore    a data directory of 20 MB from a remote, as on an empty disk: fetched, proven, written
"""

import asyncio
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from persistence import tree
from persistence.archive import Archive
from persistence.disk import SystemDisk
from persistence.events import OWNER, SYSTEM, FileChanged, UserMessage
from persistence.files import FILES
from persistence.git import CONFIG, Remote
from persistence.journal import Journal
from persistence.picture import Picture, take
from persistence.replay import Paths
from tests.benchmarks import history
from tests.benchmarks.rounds import Goal, Measured, Round

FILES_IN_ALL, CHANGED, FILE_BYTES = 200, 20, 4000
STREAM = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
RESTORED_BYTES = 20 << 20


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    rounds = asyncio.run(_commits(folder, 3 if quick else 15))
    goal = Goal("ratio", most=1.5)
    yield Measured(f"commit of {CHANGED} of {FILES_IN_ALL} files to git", "ms", "git fast-import", rounds, goal)
    remote = asyncio.run(_remote(folder, RESTORED_BYTES // (20 if quick else 1)))
    back = [_restored(folder, remote, index) for index in range(2 if quick else 5)]
    yield Measured("restore of 20 MB from git", "s", "git clone", back, Goal("ours", most=5))


async def _commits(folder: Path, count: int) -> list[Round]:
    raw = folder / "raw.git"
    _git(raw, "init", "--quiet", "--bare")
    _fast_import(raw, {f"f{index}": _bytes(index) for index in range(FILES_IN_ALL)}, first=True)
    journal = await Journal.open(folder / "data", (FILES,), history.means())
    archive = Archive(SystemDisk(), Paths(folder / "data"), history.means().ids)
    await _change(journal, range(FILES_IN_ALL), 0)
    archive.commit(await _picture(journal), journal)
    rounds = []
    for number in range(1, count + 1):
        chosen = random.Random(number).sample(range(FILES_IN_ALL), CHANGED)
        files = {f"f{index}": _bytes(index + number * 1000) for index in chosen}
        await _change(journal, chosen, number)
        picture = await _picture(journal)
        files |= {tree.SNAPSHOT: picture.text, tree.STATE: tree.state_of(picture).encode()}
        anchor = _timed(partial(_fast_import, raw, files))
        rounds.append(Round(anchor, _timed(partial(archive.commit, picture, journal))))
    await journal.close()
    return rounds


async def _remote(folder: Path, size: int) -> Path:
    """A repository with the archive of an agent of that size: half of it sessions, half of it files."""
    remote = folder / "remote.git"
    _git(remote, "init", "--quiet", "--bare")
    journal = await Journal.open(folder / "large", (FILES,), history.means())
    for index in range(size // 2 // 20_000):
        await journal.commit(_file(journal, f"f{index}", random.Random(index).randbytes(20_000)), by=SYSTEM)
    for index in range(size // 2 // 1000):
        said = UserMessage(turn=f"{index}", parent=None, text=f"{index} {history.TEXT * 2}", request_id=f"{index}")
        await journal.commit(said, stream=STREAM, by=OWNER)
        if index % 250 == 249:
            await journal.seal(STREAM)
    archive = Archive(SystemDisk(), Paths(folder / "large"), history.means().ids, remote=Remote(str(remote)))
    archive.commit(await _picture(journal), journal)
    archive.push()
    await journal.close()
    return remote


def _restored(folder: Path, remote: Path, index: int) -> Round:
    clone, data = folder / f"clone-{index}", folder / f"restored-{index}"
    anchor = _timed(lambda: _git(clone, "clone", "--quiet", "--bare", "--no-local", str(remote), str(clone))) / 1000
    data.mkdir()
    archive = Archive(SystemDisk(), Paths(data), history.means().ids, remote=Remote(str(remote)))

    def restore() -> None:
        state = archive.latest()
        assert state is not None
        assert not archive.restore(state, data, history.means(), epoch=2).missing

    taken = Round(anchor, _timed(restore) / 1000)
    shutil.rmtree(clone)
    shutil.rmtree(data)
    return taken


async def _change(journal: Journal, which: range | list[int], number: int) -> None:
    for index in which:
        await journal.commit(_file(journal, f"f{index}", _bytes(index + number * 1000)), by=SYSTEM)


def _file(journal: Journal, path: str, data: bytes) -> FileChanged:
    return FileChanged(root="workspace", path=path, sha256=journal.blobs.put(data), bytes=len(data))


async def _picture(journal: Journal) -> Picture:
    return await take(journal, manifest=0, time=int(time.time()))


def _fast_import(repository: Path, files: dict[str, bytes], first: bool = False) -> None:
    feed = [b"feature done\ncommit refs/heads/main\ncommitter x <x@y> %d +0000\ndata 1\nx\n" % int(time.time())]
    feed += [b"" if first else b"from refs/heads/main^0\n"]
    feed += [b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data) for path, data in files.items()]
    _git(repository, "fast-import", "--quiet", feed=b"".join([*feed, b"done\n"]))


def _git(repository: Path, *args: str, feed: bytes = b"") -> None:
    safe = ("-c", "core.fsync=all", "-c", f"fastimport.unpackLimit={CONFIG['fastimport.unpackLimit']}")
    where = () if args[0] == "clone" else (f"--git-dir={repository}",)
    subprocess.run(["git", *safe, *where, *args], input=feed, check=True)


def _bytes(seed: int) -> bytes:
    return random.Random(seed).randbytes(FILE_BYTES)


def _timed(step: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1000
