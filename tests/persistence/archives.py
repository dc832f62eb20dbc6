"""An archive to try things on: a journal with sessions, its picture, its git folder, and another git that looks."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from persistence.archive import Archive
from persistence.clock import FakeClock, Ids
from persistence.disk import SystemDisk
from persistence.events import SYSTEM, FileChanged
from persistence.files import FILES
from persistence.git import Remote
from persistence.journal import Journal
from persistence.picture import Picture, take
from persistence.replay import Means, Paths
from persistence.retrieval import Retrieved
from tests.persistence.journals import LEDGER, means, opened, say

FOLDS = (FILES, LEDGER)
NOW = 1_795_000_000
BRANCH = "state/main"
OTHER = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


def archive(root: Path, remote: Remote | Path | None = None, branch: str = BRANCH) -> Archive:
    clock = FakeClock()
    where = Remote(str(remote)) if isinstance(remote, Path) else remote
    return Archive(SystemDisk(), Paths(root), Ids(clock, os.urandom), branch_name=branch, remote=where)


async def picture(journal: Journal, manifest: int = 0, time: int = NOW) -> Picture:
    return await take(journal, manifest=manifest, time=time)


async def add(journal: Journal, path: str, data: bytes | None, *, executable: bool = False) -> None:
    """A file of the workspace, as it is recorded; None: it is gone."""
    sha = None if data is None else journal.blobs.put(data)
    event = FileChanged(root="workspace", path=path, sha256=sha, bytes=len(data or b""), executable=executable)
    await journal.commit(event, by=SYSTEM)


async def archived(
    root: Path, *texts: str, remote: Path | None = None, files: Mapping[str, bytes] | None = None
) -> str:
    """A data directory with one session and these files, and a commit of it. Returns the state's hash."""
    async with opened(root, *FOLDS) as journal:
        await say(journal, *texts)
        for path, data in (files or {}).items():
            await add(journal, path, data)
        assert archive(root, remote).commit(await picture(journal), journal) is not None
        return journal.state_sha()


def restored(root: Path, into: Path, epoch: int = 2, with_means: Means | None = None) -> Retrieved:
    """What the archive below `root` gives back."""
    one = archive(root)
    state = one.latest()
    assert state is not None
    into.mkdir(exist_ok=True)
    return one.restore(state, into, with_means or means(seed=epoch), epoch=epoch)


def git(folder: Path, *args: str, feed: bytes = b"") -> str:
    """Another git's view of a repository: nothing of ours is involved."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@else")
    command = ["git", *who, f"--git-dir={folder}", *args]
    done = subprocess.run(command, input=feed, capture_output=True, check=True, env=environment, timeout=60)
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")


def bare(folder: Path) -> Path:
    """An empty repository, as a server has it."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare")
    return folder


def tree(folder: Path, commit: str = BRANCH) -> dict[str, str]:
    """The paths of a commit with their modes."""
    lines = git(folder, "ls-tree", "-r", "-z", commit).split("\0")
    return {line.partition("\t")[2]: line.split()[0] for line in lines if line}


def show(folder: Path, path: str, commit: str = BRANCH) -> str:
    return git(folder, "cat-file", "blob", f"{commit}:{path}")


def commits(folder: Path, commit: str = BRANCH) -> list[str]:
    return git(folder, "rev-list", commit).split()


def parents(folder: Path, commit: str = BRANCH) -> list[str]:
    return git(folder, "rev-list", "--parents", "-1", commit).split()[1:]
