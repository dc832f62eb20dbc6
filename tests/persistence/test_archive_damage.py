"""What stands in the archive's way: locks and halves that a crash left, a kill in the middle, flipped bits, no git."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persistence.archive import Archive
from persistence.disk import SystemDisk
from persistence.errors import ArchiveError, ArchiveSlow, Damaged, GitMissing, NotFound, StorageError
from persistence.git import Git
from persistence.journal import Journal
from persistence.replay import Paths
from tests.conftest import count
from tests.persistence.archives import (
    BRANCH,
    FOLDS,
    add,
    archive,
    archived,
    bare,
    commits,
    git,
    parents,
    picture,
    restored,
    show,
    tree,
)
from tests.persistence.journals import STREAM, means, opened, say

ROOT = Path(__file__).parents[2]


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _packs(folder: Path) -> list[Path]:
    return sorted((folder / "objects" / "pack").glob("*.pack"))


def _half_object(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tmp_obj_q").write_bytes(b"x")


def _worktree(folder: Path) -> None:
    other = folder / "worktrees" / "stale"
    other.mkdir(parents=True)
    (other / "HEAD").write_text(f"ref: refs/heads/{BRANCH}\n")
    (other / "gitdir").write_text("/nowhere/.git\n")
    (other / "commondir").write_text("../..\n")
    (other / "locked").write_text("")
    (other / "index.lock").write_text("")


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "index.lock": lambda folder: (folder / "index.lock").write_text(""),
    "packed-refs.lock": lambda folder: (folder / "packed-refs.lock").write_text(""),
    "config.lock": lambda folder: (folder / "config.lock").write_text(""),
    "HEAD.lock": lambda folder: (folder / "HEAD.lock").write_text(""),
    "shallow.lock": lambda folder: (folder / "shallow.lock").write_text(""),
    "a branch's lock": lambda folder: (folder / "refs" / "heads" / f"{BRANCH}.lock").write_text(""),
    "half a pack": lambda folder: (folder / "objects" / "pack" / "tmp_pack_X1y2Z3").write_bytes(b"PACK\0"),
    "half an object": lambda folder: _half_object(folder / "objects" / "ab"),
    "no HEAD": lambda folder: (folder / "HEAD").unlink(),
    "half a HEAD": lambda folder: (folder / "HEAD").write_text("ref: re"),
    "an empty config": lambda folder: (folder / "config").write_text(""),
    "no config": lambda folder: (folder / "config").unlink(),
    "half a config": lambda folder: (folder / "config").write_text("[core"),
    "a stale worktree": _worktree,
    "a gc that was killed": lambda folder: (folder / "gc.pid").write_text("1 somewhere"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
async def test_what_a_crash_left_is_not_in_the_way(tmp_path: Path, what: str) -> None:
    remote = bare(tmp_path / "remote")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "one")
        archive(tmp_path / "a", remote).commit(await picture(journal), journal)
        IN_THE_WAY[what](tmp_path / "a" / "git")
        await say(journal, "two")
        one = archive(tmp_path / "a", remote)
        mine = one.commit(await picture(journal), journal)
        pushed = one.push()
    assert pushed is not None and pushed.commit == mine and len(commits(remote)) == 2
    assert one.problems == ()
    assert not list((tmp_path / "a" / "quarantine").glob("git-*"))


@pytest.mark.parametrize("lock", ["packed-refs.lock", f"refs/heads/{BRANCH}.lock", "shallow.lock"])
async def test_a_lock_that_appears_later_is_not_in_the_way_either(tmp_path: Path, lock: str) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "one")
        one = archive(tmp_path)
        one.commit(await picture(journal), journal)
        (tmp_path / "git" / lock).write_text("")
        await say(journal, "two")
        assert one.commit(await picture(journal), journal)
    assert len(commits(tmp_path / "git")) == 2


DAMAGE: dict[str, Callable[[Path], object]] = {
    "half a pack": lambda folder: _half(_packs(folder)[-1]),
    "half an index": lambda folder: _half(_packs(folder)[-1].with_suffix(".idx")),
    "an empty branch": lambda folder: (folder / "refs" / "heads" / BRANCH).write_text(""),
    "a branch of zeros": lambda folder: (folder / "refs" / "heads" / BRANCH).write_bytes(bytes(41)),
    "a branch without its objects": lambda folder: shutil.rmtree(folder / "objects"),
    "an object that is cut": lambda folder: _cut_object(folder),
}


def _cut_object(folder: Path) -> None:
    """As loose objects that were never synced look after a power cut."""
    pack = _packs(folder)[-1]
    data = pack.read_bytes()
    for path in (pack, pack.with_suffix(".idx")):
        path.unlink()
    git(folder, "unpack-objects", "-q", feed=data)
    oid = git(folder, "rev-parse", f"{BRANCH}^{{tree}}")
    path = folder / "objects" / oid[:2] / oid[2:]
    path.chmod(0o600)
    path.write_bytes(b"")


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_folder_goes_to_quarantine_and_is_begun_anew(tmp_path: Path, what: str) -> None:
    remote = bare(tmp_path / "remote")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "one")
        one = archive(tmp_path / "a", remote)
        first = one.commit(await picture(journal), journal)
        one.push()
        DAMAGE[what](tmp_path / "a" / "git")
        await say(journal, "two")
        one = archive(tmp_path / "a", remote)
        mine = one.commit(await picture(journal), journal)
        [problem] = one.problems
        pushed = one.push()
    [note] = (tmp_path / "a" / "quarantine").glob("git-*.json")
    assert note.with_suffix("").is_dir() and "damaged" in problem
    assert pushed is not None and parents(remote) == [mine, first]
    assert "two" in show(remote, f"sessions/{STREAM}/tail.jsonl")


async def test_a_damaged_folder_is_no_source(tmp_path: Path) -> None:
    await archived(tmp_path, "one")
    _half(_packs(tmp_path / "git")[-1])
    assert archive(tmp_path).latest() is None


async def test_every_flipped_bit_is_seen_before_anything_is_restored(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    await archived(tmp_path / "a", "one", files={"x": bytes(100)})
    state = archive(tmp_path / "a").latest()
    assert state is not None
    [pack] = _packs(tmp_path / "a" / "git")
    whole = pack.read_bytes()
    for _ in range(count(5, 200)):
        at = chance.randrange(len(whole))
        pack.chmod(0o600)
        pack.write_bytes(whole[:at] + bytes((whole[at] ^ 1 << chance.randrange(8),)) + whole[at + 1 :])
        (tmp_path / "b").mkdir()
        with pytest.raises((Damaged, ArchiveError)):
            archive(tmp_path / "a").restore(state, tmp_path / "b", means(), epoch=2)
        assert list((tmp_path / "b").iterdir()) == []
        (tmp_path / "b").rmdir()


async def test_a_commit_that_is_killed_anywhere_leaves_the_last_one_or_the_new_one(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "one")
        for index in range(40):
            await add(journal, f"f{index}", random.Random(index).randbytes(20_000))
        shutil.copytree(tmp_path / "a", tmp_path / "source")
    before = len(commits(tmp_path / "source" / "git")) if (tmp_path / "source" / "git").exists() else 0
    for round_ in range(count(4, 100)):
        _kill_a_commit(tmp_path / "source", round_, chance)
        async with opened(tmp_path / "source", *FOLDS) as journal:
            await say(journal, f"after {round_}")
            one = archive(tmp_path / "source")
            assert one.commit(await picture(journal), journal) is not None
            assert one.problems == ()
        git(tmp_path / "source" / "git", "fsck", "--full", "--strict")
        found = len(commits(tmp_path / "source" / "git"))
        assert before + 1 <= found <= before + 2
        before = found


def _kill_a_commit(root: Path, round_: int, chance: random.Random) -> None:
    """Starts a process that commits, and kills it a moment after it began to; its git goes when it notices."""
    code = "import asyncio, sys, tests.persistence.test_archive_damage as t; asyncio.run(t.child(*sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(round_)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdout is not None and child.stdout.readline() == b"now\n"
    try:
        child.wait(timeout=chance.uniform(0, 0.1))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    # A git that was just being started still has the lock, until it has become another program.
    with (root / "wal" / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


async def child(root: str, number: str) -> None:
    round_ = int(number)
    async with opened(Path(root), *FOLDS) as journal:
        await say(journal, f"round {round_}")
        for index in range(20):
            await add(journal, f"f{index}", random.Random(round_ * 1000 + index).randbytes(20_000))
        taken, one = await picture(journal), archive(Path(root))
        os.write(1, b"now\n")
        one.commit(taken, journal)
        os.kill(os.getpid(), signal.SIGKILL)


async def test_many_commits_are_put_together_and_all_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistence.archive.PACKS", 3)
    async with opened(tmp_path, *FOLDS) as journal:
        one = archive(tmp_path)
        for index in range(8):
            await say(journal, f"{index}")
            one.commit(await picture(journal), journal)
    assert len(commits(tmp_path / "git")) == 8 and len(_packs(tmp_path / "git")) <= 4


# ---------------------------------------------------------------- what cannot be read, what cannot be run


class Without:
    """A journal's bytes, but for one blob."""

    def __init__(self, journal: Journal, sha: str) -> None:
        self._journal = journal
        self.lost: str | None = sha

    def blob(self, sha: str) -> bytes:
        if sha == self.lost:
            raise NotFound(f"there is no blob {sha}")
        return self._journal.blob(sha)

    def chunk(self, sha: str) -> bytes:
        return self._journal.chunk(sha)


async def test_what_cannot_be_read_is_left_out_told_and_added_when_it_is_back(tmp_path: Path) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        await add(journal, "here", b"1")
        await add(journal, "lost", b"2")
        sha = journal.blobs.put(b"2")
        source, one = Without(journal, sha), archive(tmp_path)
        one.commit(await picture(journal), source)
        assert [problem.split(":")[0] for problem in one.problems] == ["workspace/lost is not in the archive"]
        assert "workspace/lost" not in tree(tmp_path / "git") and "workspace/here" in tree(tmp_path / "git")
        came = restored(tmp_path, tmp_path / "b")
        assert came.missing == (sha,) and len(came.problems) == 1
        source.lost = None
        await say(journal, "more")
        one.commit(await picture(journal), source)
        assert "workspace/lost" in tree(tmp_path / "git") and one.problems == ()


async def test_a_source_that_fails_in_the_middle_leaves_no_half_commit(tmp_path: Path) -> None:
    class Failing(Without):
        def blob(self, sha: str) -> bytes:
            if sha == self.lost:
                raise StorageError("the disk failed")
            return super().blob(sha)

    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "one")
        one = archive(tmp_path)
        first = one.commit(await picture(journal), journal)
        await add(journal, "a", b"1")
        await add(journal, "b", b"2")
        source = Failing(journal, journal.blobs.put(b"2"))
        with pytest.raises(StorageError):
            one.commit(await picture(journal), source)
        assert commits(tmp_path / "git") == [first]
        source.lost = None
        assert one.commit(await picture(journal), source)
        assert {"workspace/a", "workspace/b"} <= tree(tmp_path / "git").keys()


async def test_a_commit_that_takes_too_long_is_ended_and_comes_next_time(tmp_path: Path) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "one")
        one = archive(tmp_path)
        with pytest.raises(ArchiveSlow):
            one.commit(await picture(journal), journal, limit_s=0.0)
        assert one.commit(await picture(journal), journal)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


async def test_a_full_disk_costs_a_commit_and_no_more(small: Path) -> None:
    async with opened(small / "a", *FOLDS) as journal:
        one = archive(small / "a")
        await say(journal, "one")
        first = one.commit(await picture(journal), journal)
        for index in range(40):
            await add(journal, f"f{index}", random.Random(index).randbytes(20_000))
        taken, free = await picture(journal), os.statvfs(small)
        (small / "ballast").write_bytes(bytes(free.f_bavail * free.f_bsize - 40_000))
        with pytest.raises(ArchiveError):
            one.commit(taken, journal)
        assert commits(small / "a" / "git") == [first]
        (small / "ballast").unlink()
        mine = one.commit(taken, journal)
    assert commits(small / "a" / "git") == [mine, first]
    assert not list((small / "a" / "quarantine").iterdir())


def test_no_git_on_the_machine_is_said_clearly(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from persistence.errors import GitMissing
from tests.persistence.archives import archive
one = archive(Path({str(tmp_path)!r}))
assert "git" not in sys.modules
try:
    one.latest()
    assert one._load() is None
except GitMissing as error:
    print(error)
"""
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, cwd=ROOT, check=True)
    assert done.stdout.decode() == "there is no git on this machine (install git; until then nothing is archived)\n"


def test_git_that_goes_away_later_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Git(SystemDisk(), tmp_path / "git", None)
    one.prepare()
    assert one.run("--version").ok
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "env").symlink_to(shutil.which("env") or "")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(GitMissing):
        one.run("--version")


def test_an_archive_that_is_not_used_makes_no_file(tmp_path: Path) -> None:
    one = Archive(SystemDisk(), Paths(tmp_path), means().ids)
    assert one.latest() is None and list(tmp_path.iterdir()) == []
