"""What the agent can write must not make our git run anything, nor make a commit that a server refuses (T9, T17)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.errors import ArchiveError, Damaged
from persistence.files import FILES
from persistence.git import Remote
from persistence.tree import plain
from tests.persistence.archives import (
    BRANCH,
    FOLDS,
    add,
    archive,
    bare,
    git,
    picture,
    restored,
    show,
    tree,
)
from tests.persistence.journals import STREAM, means, opened, say

HOOKS = (
    *("applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "prepare-commit-msg", "commit-msg"),
    *("post-commit", "pre-rebase", "post-checkout", "pre-push", "reference-transaction", "post-index-change"),
)


def _plant(folder: Path, pwn: Path) -> None:
    """Everything in a repository's own configuration by which git can be made to run a program."""
    run = f"touch {pwn}"
    (folder / "hooks").mkdir(parents=True, exist_ok=True)
    for hook in HOOKS:
        path = folder / "hooks" / hook
        path.write_text(f"#!/bin/sh\n{run}\n")
        path.chmod(0o755)
    (folder / "evil").write_text(f"[core]\n\tfsmonitor = {run}\n\tsshCommand = {run}\n")
    (folder / "config").write_text(
        f"[core]\n\tbare = true\n\tfsmonitor = {run}\n\tpager = {run}\n\teditor = {run}\n\thooksPath = {folder}/hooks\n"
        f"\tsshCommand = {run}\n\tgitProxy = {run}\n\taskPass = {run}\n\talternateRefsCommand = {run}\n"
        f'[alias]\n\tpush = "!{run}"\n\tfast-import = "!{run}"\n\tcat-file = "!{run}"\n[include]\n\tpath = evil\n'
        f'[filter "evil"]\n\tclean = {run}\n\tsmudge = {run}\n\tprocess = {run}\n\trequired = true\n'
        f'[diff]\n\texternal = {run}\n[diff "evil"]\n\ttextconv = {run}\n[gpg]\n\tprogram = {run}\n'
        f"[credential]\n\thelper = !{run}\n[uploadpack]\n\tpackObjectsHook = {run}\n[commit]\n\tgpgSign = true\n"
    )
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info" / "attributes").write_text("* filter=evil diff=evil\n")


@pytest.fixture
def pwn(tmp_path: Path) -> Iterator[Path]:
    """A file that must not appear."""
    path = tmp_path / "pwn"
    yield path
    assert not path.exists()


async def _round(root: Path, remote: Path) -> None:
    """Everything that the archive ever does."""
    async with opened(root, *FOLDS) as journal:
        await say(journal, "one")
        for path in sorted(path for path in (root / "workspace").rglob("*") if path.is_file()):
            name = path.relative_to(root / "workspace").as_posix()
            await add(journal, name, path.read_bytes(), executable=os.access(path, os.X_OK))
        one = archive(root, remote)
        assert one.commit(await picture(journal), journal) and one.push()
        git(remote, "update-ref", f"refs/heads/{BRANCH}", _strangers(remote))
        await say(journal, "two")
        assert one.commit(await picture(journal), journal)
        pushed = one.push()
        assert pushed is not None and pushed.merged
    restored(root, root.with_name("restored"))


def _strangers(remote: Path) -> str:
    head = git(remote, "rev-parse", BRANCH)
    feed = f"commit refs/heads/x\ncommitter s <s@e> 1 +0000\ndata 0\nfrom {head}\nget-mark :1\n".replace(
        "get-mark :1\n", ""
    )
    git(remote, "fast-import", "--quiet", feed=feed.encode())
    return git(remote, "rev-parse", "x")


async def test_a_repository_in_the_workspace_runs_nothing(tmp_path: Path, pwn: Path) -> None:
    workspace = tmp_path / "a" / "workspace"
    workspace.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    _plant(workspace / ".git", pwn)
    nested = bare(workspace / "nested.git")
    _plant(nested, pwn)
    (workspace / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (workspace / ".gitmodules").write_text(
        '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch\n\tupdate = !touch\n'
    )
    (workspace / "notes.txt").write_text("hello")
    await _round(tmp_path / "a", bare(tmp_path / "remote"))
    assert show(tmp_path / "remote", "workspace/notes.txt") == "hello"


async def test_what_is_planted_in_our_own_folder_runs_nothing_either(tmp_path: Path, pwn: Path) -> None:
    (tmp_path / "a").mkdir()
    bare(tmp_path / "a" / "git")
    _plant(tmp_path / "a" / "git", pwn)
    await _round(tmp_path / "a", bare(tmp_path / "remote"))


async def test_what_the_environment_says_leads_nowhere(
    tmp_path: Path, pwn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {pwn}\n")
    evil.chmod(0o755)
    home = tmp_path / "home"
    _plant(home, pwn)
    (home / "config").rename(home / ".gitconfig")
    names = (
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_EXTERNAL_DIFF",
        "GIT_ASKPASS",
        "SSH_ASKPASS",
        "GIT_PAGER",
        "GIT_PROXY_COMMAND",
    )
    for name in names:
        monkeypatch.setenv(name, str(evil))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ext")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(home / "hooks"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor'='touch {pwn}'")
    await _round(tmp_path / "a", bare(tmp_path / "remote"))
    with pytest.raises(ArchiveError):  # nobody listens there
        archive(tmp_path / "a", Remote("ssh://nobody@127.0.0.1:1/x")).push()
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "trace").exists()


ODD = (
    "a\nb",
    "-dash",
    "--upload-pack=touch pwn",
    "; touch pwn",
    "$(touch pwn)",
    '"quoted"\\',
    "tab\there",
    "été/ü",
    "a b ",
    "x/.git/config",
    ".GIT/hooks/pre-commit",
    ".gitmodules",
    "sub/.gitmodules",
    ".gitattributes",
    "git~1/x",
    ".g\u200cit/x",
    ".git./x",
    "a\\.git\\x",
    "..\u202etxt",
    "con",
    "n" * 255,
)


async def test_odd_names_are_kept_as_data_and_a_strict_server_takes_them(tmp_path: Path, pwn: Path) -> None:
    remote = bare(tmp_path / "remote")
    git(remote, "config", "receive.fsckObjects", "true")
    git(remote, "config", "fsck.hasDotgit", "error")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        for index, path in enumerate(ODD):
            await add(journal, path, f"content {index}".encode())
        one = archive(tmp_path / "a", remote)
        assert one.commit(await picture(journal), journal) and one.push()
        sha, problems = journal.state_sha(), one.problems
    assert problems == () and git(remote, "fsck", "--strict", "--no-dangling") == ""
    in_git = tree(remote)
    assert {f"workspace/{path}" for path in ODD if plain(path)} == {
        path for path in in_git if path.startswith("workspace/")
    }
    assert {"-dash", "; touch pwn", "été/ü", "con", "a b "} <= {path for path in ODD if plain(path)}
    assert not any(".git" in part.casefold() or "\n" in part for path in in_git for part in path.split("/"))
    came = restored(tmp_path / "a", tmp_path / "b")
    assert (came.state.state_sha, came.missing, came.problems) == (sha, (), ())
    async with opened(tmp_path / "b", *FOLDS) as journal:
        files = journal.whole(FILES).files
        kept = {path: files[f"workspace/{path}"].sha256 for path in ODD}
        assert [journal.blobs.get(one or "") for one in kept.values()] == [
            f"content {index}".encode() for index in range(len(ODD))
        ]


async def test_a_path_that_is_a_file_and_a_folder_loses_neither(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await add(journal, "x", b"file")
        one = archive(tmp_path / "a")
        one.commit(await picture(journal), journal)
        await add(journal, "x/y", b"below")  # the file's end is recorded after this
        one.commit(await picture(journal), journal)
        assert restored(tmp_path / "a", tmp_path / "b").missing == ()
        await add(journal, "x", None)
        one.commit(await picture(journal), journal)
        assert show(tmp_path / "a" / "git", "workspace/x/y") == "below"
        await add(journal, "x/y", None)
        await add(journal, "x", b"file again")
        one.commit(await picture(journal), journal)
    assert show(tmp_path / "a" / "git", "workspace/x") == "file again"


def test_a_name_that_is_no_utf8_is_no_plain_one() -> None:
    assert not plain(os.fsdecode(b"bad\xff"))


async def test_a_known_secret_is_in_no_object(tmp_path: Path) -> None:
    canary = "CANARY-3fK9wQz71LmX"
    async with opened(tmp_path, *FOLDS, with_means=means(secrets={"FINN_TOKEN": canary})) as journal:
        await say(journal, f"my token is {canary}")
        await journal.seal(STREAM)
        await say(journal, f"once more: {canary}")
        archive(tmp_path).commit(await picture(journal), journal)
    objects = git(tmp_path / "git", "cat-file", "--batch-all-objects", "--batch")
    assert canary not in objects and "[REDACTED:FINN_TOKEN]" in objects


async def test_what_a_stranger_adds_to_the_tree_is_looked_at_but_not_used(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await add(journal, "x", b"1")
        archive(tmp_path / "a").commit(await picture(journal), journal)
    head = git(tmp_path / "a" / "git", "rev-parse", BRANCH)
    extra = "".join(
        f"M {mode} inline {path}\ndata 4\nevil\n"
        for mode, path in (("100644", "../../etc/cron.d/x"), ("120000", "workspace/link"), ("100644", "blobs/ab/zz"))
        if ".." not in path
    )
    odd = f'M 100644 inline "blobs/{"a" * 2}/{"b" * 62}"\ndata 4\nevil\nM 160000 {head} submodule\n'
    feed = f"commit refs/heads/{BRANCH}\ncommitter s <s@e> 1 +0000\ndata 0\nfrom {head}\n{extra}{odd}"
    git(tmp_path / "a" / "git", "fast-import", "--quiet", feed=feed.encode())
    came = restored(tmp_path / "a", tmp_path / "b")
    held = {path.read_bytes() for path in (tmp_path / "b" / "blobs").rglob("*") if path.is_file()}
    assert b"evil" not in held and b"1" in held
    assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in (tmp_path / "b").rglob("*"))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["blobs", "chunks", "snapshots", "wal"]
    assert came.state.seq > 0


@pytest.mark.parametrize("limit", ["MEMBERS", "MEMBER_BYTES", "TOTAL_BYTES"])
async def test_an_archive_beyond_every_measure_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await add(journal, "x", bytes(5000))
        archive(tmp_path / "a").commit(await picture(journal), journal)
    monkeypatch.setattr(f"persistence.retrieval.{limit}", 2)
    with pytest.raises(Damaged, match="more than an archive can"):
        restored(tmp_path / "a", tmp_path / "b")
    assert not any(path.is_file() for path in (tmp_path / "b").rglob("*"))
