"""An archive that is broken, each time in one way: real git, and a remote that is a folder or a server of the tests."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.folds import FOLDS
from persistence.archive import Archive
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.events import SYSTEM, BreakerChanged
from persistence.git import Remote
from persistence.journal import Journal
from persistence.picture import take
from persistence.redact import Redactor
from persistence.replay import Means, Paths
from scheduler.checks.git import CHECKS
from scheduler.site import Running
from tests.git_server import GitServer
from tests.persistence.archives import bare, git
from tests.scheduler.ward import Ward, new_ward

BRANCH = "state/main"
HOUR = 3600.0


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A remote whose very name would do harm in a shell."""
    return bare(tmp_path / "$(touch pwn); --upload-pack=touch pwn")


@pytest.fixture
def ward(remote: Path) -> Iterator[Ward]:
    """A directory whose archive is at the remote."""
    ward = new_ward(FINN_GIT_REMOTE=str(remote))
    umask = os.umask(0o077)
    archived(ward, remote)
    ward.healthy = ward.examine()
    yield ward
    os.umask(umask)


def archived(ward: Ward, remote: Path, *, pushed: bool = True, ago_s: float = 0.0, said: str = "archived") -> None:
    """A commit of what there is, as a finn makes it."""

    async def archive() -> None:
        clock = SystemClock()
        ids = Ids(clock, system_entropy)
        journal = await Journal.open(ward.root, FOLDS, Means(SystemDisk(), clock, ids, Redactor({})))
        try:
            await journal.commit(BreakerChanged(task=said, state="closed"), by=SYSTEM)
            one = Archive(SystemDisk(), Paths(ward.root), ids, branch_name=BRANCH, remote=Remote(str(remote)))
            one.commit(await take(journal, manifest=0, time=int(clock.now() - ago_s)), journal)
            if pushed:
                one.push()
        finally:
            await journal.close()

    asyncio.run(archive())


def say(ward: Ward, text: str) -> None:
    """A record that is archived nowhere."""

    async def said() -> None:
        clock = SystemClock()
        ids = Ids(clock, system_entropy)
        journal = await Journal.open(ward.root, FOLDS, Means(SystemDisk(), clock, ids, Redactor({})))
        await journal.commit(BreakerChanged(task=text, state="closed"), by=SYSTEM)
        await journal.close()

    asyncio.run(said())


def strange(remote: Path, parent: str | None = None) -> str:
    """A commit of somebody else on the branch."""
    tree = git(remote, "mktree")
    commit = git(remote, "commit-tree", tree, "-m", "mine; touch pwn", *(("-p", parent) if parent else ()))
    git(remote, "update-ref", f"refs/heads/{BRANCH}", commit)
    return commit


def test_an_archive_that_is_well_is_told_so(ward: Ward) -> None:
    found = ward.examine()
    assert {name: found[name].severity for name in found if name.startswith("git.")} == dict.fromkeys(
        (name for name in found if name.startswith("git.")), "pass"
    )
    assert found["git.branch"].data["here"] == found["git.branch"].data["there"] is not None


def test_git_present(ward: Ward, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no git on this machine" in ward.examine()["git.present"].detail
    assert ward.examine()["git.present"].severity == "warn"


def test_git_folder(ward: Ward) -> None:
    for path in (ward.root / "git" / "objects" / "pack").glob("*.pack"):
        path.chmod(0o600)
        path.write_bytes(b"not a pack any more")
    found = ward.examine()
    assert (found["git.folder"].severity, "damaged" in found["git.folder"].detail) == ("warn", True)
    ward.cured("git.folder")
    assert [path.name[:4] for path in (ward.root / "quarantine").glob("git-*")] == ["git-"]


def test_a_branch_that_names_no_commit_is_a_damaged_folder(ward: Ward) -> None:
    (ward.root / "git" / "refs" / "heads" / BRANCH).write_text("0" * 12 + "\n")
    assert ward.examine()["git.folder"].severity == "warn"


def test_git_locks(ward: Ward) -> None:
    for name in ("index.lock", f"refs/heads/{BRANCH}.lock"):
        lock = ward.root / "git" / name
        lock.touch(mode=0o600)
        os.utime(lock, (1e9, 1e9))
    (ward.root / "git" / "config.lock").touch(mode=0o600)  # of a command that may run
    assert ward.broken("git.locks").data["found"] == ["git/index.lock", f"git/refs/heads/{BRANCH}.lock"]
    ward.cured("git.locks")


def test_git_config(ward: Ward) -> None:
    config = ward.root / "git" / "config"
    config.write_text(
        f'{config.read_text()}[core]\n\tfsmonitor = touch pwn\n[remote "o"]\n\turl = https://me:hidden@h/x\n'
    )
    finding = ward.broken("git.config")
    assert finding.data["sections"] == ["core", "remote"]
    assert "hidden" not in f"{finding}"
    ward.cured("git.config")


def test_git_remote(ward: Ward, tmp_path: Path) -> None:
    with GitServer(tmp_path) as server:
        server.silent = True
        ward.changed |= {"remote": Remote(server.url("state.git")), "limit_s": 0.2}
        finding = ward.examine()["git.remote"]
        server.over.set()
    assert (finding.severity, "does not answer" in finding.detail) == ("warn", True)


def test_git_access(ward: Ward, tmp_path: Path) -> None:
    bare(tmp_path / "state.git")
    with GitServer(tmp_path, user="me", password="right-password") as server:
        ward.changed["remote"] = Remote(server.url("state.git"), "me", "wrong-password")
        found = ward.examine()
        assert (found["git.access"].severity, found["git.remote"].severity) == ("warn", "pass")
        assert "the remote refuses" in found["git.access"].detail
        assert "wrong-password" not in f"{found}"
        ward.changed["remote"] = Remote(server.url("state.git"), "me", "right-password")
        assert ward.examine()["git.access"].severity == "pass"


def test_git_branch(ward: Ward, remote: Path) -> None:
    strange(remote)
    assert "does not know" in ward.broken("git.branch").detail


def test_a_branch_that_is_ahead_or_behind_is_told_as_such(ward: Ward, remote: Path) -> None:
    before = git(remote, "rev-parse", BRANCH)
    archived(ward, remote, pushed=False, said="more")
    assert (ward.examine()["git.branch"].severity, "ahead" in ward.examine()["git.branch"].detail) == ("info", True)
    archived(ward, remote, said="even more")
    git(ward.root / "git", "update-ref", f"refs/heads/{BRANCH}", before)
    assert "is behind the remote" in ward.broken("git.branch").detail


def test_git_conflicts(ward: Ward) -> None:
    head = git(ward.root / "git", "rev-parse", BRANCH)
    git(ward.root / "git", "update-ref", f"refs/heads/{BRANCH}-conflict-01ARZ", head)
    assert ward.broken("git.conflicts").data["found"] == [f"{BRANCH}-conflict-01ARZ"]


def test_git_lag(ward: Ward, remote: Path) -> None:
    archived(ward, remote, ago_s=3 * HOUR, said="long ago")
    assert ward.examine()["git.lag"].severity == "pass"  # nothing came since
    say(ward, "and then")
    finding = ward.broken("git.lag")
    assert finding.data["records"] == 1
    assert 3 * HOUR <= finding.data["seconds"] < 4 * HOUR
    ward.changed["running"] = Running(1, "http://127.0.0.1:1", 1, answers=False)
    assert "/health" in ward.examine()["git.lag"].remediation


def test_what_is_archived_while_a_running_finn_is_looked_at_is_no_fault(ward: Ward, remote: Path) -> None:
    site = replace(ward.site(), running=Running(1, "http://127.0.0.1:1", 1, answers=True))
    assert site.past.head.seq
    archived(ward, remote)
    look = next(check for check in CHECKS if check.id == "git.lag").look
    assert look(site).severity == "pass"


def test_git_address(ward: Ward) -> None:
    for url, severity in (("http://127.0.0.1:9/state.git", "warn"), ("https://127.0.0.1:9/state.git", "info")):
        ward.changed |= {"remote": Remote(url, "x-access-token", "hidden-token"), "network": False}
        finding = ward.examine()["git.address"]
        assert (finding.severity, "hidden-token" in f"{finding}") == (severity, False)


def test_git_workspace_hooks(ward: Ward) -> None:
    hooks = ward.root / "workspace" / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "pre-commit").write_text("#!/bin/sh\ntouch pwn\n")
    (hooks / "pre-commit").chmod(0o700)
    assert ward.broken("git.workspace_hooks", severity="info").data["found"] == ["pre-commit"]


def test_a_link_in_the_place_of_hooks_tells_nothing_of_where_it_leads(ward: Ward) -> None:
    (ward.root / "workspace" / ".git").mkdir()
    (ward.root / "workspace" / ".git" / "hooks").symlink_to("/usr/bin")
    assert ward.examine()["git.workspace_hooks"].severity == "pass"


def test_a_configuration_of_empty_lines_takes_no_time(ward: Ward) -> None:
    config = ward.root / "git" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text("\n" * 1_000_000 + "[ evil ]\n")
    assert ward.examine()["git.config"].data["sections"] == ["evil"]


def test_without_a_network_nothing_is_asked(ward: Ward, tmp_path: Path) -> None:
    with GitServer(tmp_path) as server:
        ward.changed |= {"remote": Remote(server.url("state.git")), "network": False}
        found = ward.examine()
        assert {found[f"git.{name}"].severity for name in ("remote", "access", "branch")} == {"info"}
        assert server.asked == []


def test_a_branch_that_is_none_is_data_and_nothing_is_run(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("--upload-pack=touch pwn", "-o", "a; touch pwn", "$(touch pwn)", "a\ntouch pwn", "a..b"):
        ward.changed["branch"] = name
        found = ward.examine()["git.access"]
        assert (found.severity, "is no name for a branch" in found.detail) == ("fail", True), name
    assert not list(tmp_path.rglob("pwn")) and not list(ward.root.rglob("pwn"))


def test_where_no_archive_is_set_git_is_not_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ward = new_ward()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ward.examine()
    assert {found[name].severity for name in found if name.startswith("git.")} == {"info", "pass"}
    assert found["git.present"].detail == "no archive is set"
