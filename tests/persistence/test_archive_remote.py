"""The archive and its remote: pushed, joined, parted from, fenced, out of reach. The remotes are real repositories."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence.archive import Archive
from persistence.errors import ArchiveRefused, ArchiveUnreachable, Fenced, UsageError
from persistence.git import Answer, Git, Remote
from tests.git_server import GitServer
from tests.persistence.archives import (
    BRANCH,
    FOLDS,
    OTHER,
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
from tests.persistence.journals import STREAM, means, opened, say, texts

PASSWORD = "CANARY-Wq7mT2xLr9"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A server with an empty repository `state.git` that asks for a password."""
    git(bare(tmp_path / "server" / "state.git"), "config", "http.receivepack", "true")
    with GitServer(tmp_path / "server", "me", PASSWORD) as one:
        yield one


def strangers_commit(repository: Path, path: str, text: str, *, below: str | None = BRANCH) -> str:
    """A commit on the branch that somebody else made there by hand."""
    start = f"commit refs/heads/{BRANCH}\ncommitter somebody <s@else> 1795000001 +0000\ndata 4\nedit\n"
    origin = f"from {git(repository, 'rev-parse', below)}\n" if below else ""
    force = () if below else ("--force",)
    file = f"M 100644 inline {path}\ndata {len(text)}\n{text}\n"
    git(repository, "fast-import", "--quiet", *force, feed=(start + origin + file).encode())
    return git(repository, "rev-parse", BRANCH)


async def test_a_push_brings_the_branch_to_the_remote(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    pushed = archive(tmp_path / "a", remote).push()
    assert pushed is not None and commits(remote) == [pushed.commit] and not pushed.merged
    again = archive(tmp_path / "a", remote).push()
    assert again == pushed


async def test_what_a_stranger_committed_there_is_joined_and_not_lost(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        one = archive(tmp_path / "a", remote)
        await say(journal, "one")
        one.commit(await picture(journal), journal)
        one.push()
        theirs = strangers_commit(remote, "README", "hello")
        await say(journal, "two")
        mine = one.commit(await picture(journal), journal)
        pushed = one.push()
    assert pushed is not None and pushed.merged
    assert parents(remote) == [mine, theirs]
    assert "README" not in tree(remote) and "two" in show(remote, f"sessions/{STREAM}/tail.jsonl")
    assert show(remote, "README", theirs) == "hello"


async def test_after_a_join_the_next_commits_just_go_forward(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        one = archive(tmp_path / "a", remote)
        await say(journal, "one")
        one.commit(await picture(journal), journal)
        one.push()
        strangers_commit(remote, "README", "hello")
        await say(journal, "two")
        one.commit(await picture(journal), journal)
        one.push()
        assert one.commit(await picture(journal), journal) is None
        await say(journal, "three")
        last = one.commit(await picture(journal), journal)
        pushed = one.push()
    assert pushed is not None and (pushed.commit, pushed.merged) == (last, False)
    assert len(commits(remote)) == 5 and len(parents(remote)) == 1


async def test_an_empty_own_folder_is_joined_to_what_the_remote_has_of_this_log(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    first = archive(tmp_path / "a", remote).push()
    (tmp_path / "a" / "git").rename(tmp_path / "lost")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "two")
        one = archive(tmp_path / "a", remote)
        mine = one.commit(await picture(journal), journal)
        pushed = one.push()
    assert first is not None and pushed is not None
    assert parents(remote) == [mine, first.commit]


async def test_a_log_without_sessions_is_known_by_its_records(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", files={"x": b"1"})
    first = archive(tmp_path / "a", remote).push()
    restored(tmp_path / "a", tmp_path / "b")
    for name, joined in (("b", True), ("c", False)):
        async with opened(tmp_path / name, *FOLDS, with_means=means(seed=9)) as journal:
            await add(journal, "x", b"2")
            one = archive(tmp_path / name, remote)
            mine = one.commit(await picture(journal), journal)
            pushed = one.push()
            assert pushed is not None and first is not None and pushed.merged is joined
            assert not joined or parents(remote) == [mine, first.commit]


async def test_a_reign_that_goes_on_from_a_restored_archive_goes_forward(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    archive(tmp_path / "a", remote).push()
    (tmp_path / "b").mkdir()
    one = archive(tmp_path / "b", remote)
    state = one.latest()
    assert state is not None
    one.restore(state, tmp_path / "b", means(seed=5), epoch=2)
    async with opened(tmp_path / "b", *FOLDS) as journal:
        await say(journal, "two")
        mine = one.commit(await picture(journal), journal)
        pushed = one.push()
    assert pushed is not None and pushed.merged and parents(remote) == [mine, state.commit]


async def test_a_later_reign_at_the_remote_is_a_fence(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    archive(tmp_path / "a", remote).push()
    restored(tmp_path / "a", tmp_path / "b", epoch=5)
    async with opened(tmp_path / "b", *FOLDS) as journal:
        await say(journal, "two")
        later = archive(tmp_path / "b", remote)
        later.commit(await picture(journal), journal)
        later.push()
    tip = commits(remote)[0]
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "three")
        one = archive(tmp_path / "a", remote)
        one.commit(await picture(journal), journal)
        with pytest.raises(Fenced, match="epoch 5"):
            one.push()
    assert commits(remote)[0] == tip


async def test_another_agents_archive_is_left_alone_and_said(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "mine")
    archive(tmp_path / "a", remote).push()
    tip = commits(remote)[0]
    async with opened(tmp_path / "b", *FOLDS, with_means=means(seed=9)) as journal:
        await say(journal, "other", stream=OTHER)
        one = archive(tmp_path / "b", remote)
        one.commit(await picture(journal), journal)
        pushed = one.push()
        await say(journal, "more", stream=OTHER)
        last = one.commit(await picture(journal), journal)
        again = one.push()
    assert pushed is not None and again is not None
    assert pushed.conflict.startswith(f"{BRANCH}-conflict-") and again.conflict == pushed.conflict
    assert [one.problems[0].split(";")[0]] == [f"the branch {BRANCH} at {remote} holds another history"]
    assert commits(remote) == [tip] and commits(remote, pushed.conflict) == [last, pushed.commit]


async def test_a_branch_that_is_no_archive_at_all_is_left_alone(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    stranger = strangers_commit(remote, "README", "hello", below=None)
    await archived(tmp_path / "a", "one")
    pushed = archive(tmp_path / "a", remote).push()
    assert pushed is not None and pushed.conflict and commits(remote) == [stranger]


async def test_two_that_part_at_the_same_epoch_do_not_bury_each_other(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    archive(tmp_path / "a", remote).push()
    for name, seed in (("b", 2), ("c", 3)):
        restored(tmp_path / "a", tmp_path / name, epoch=2, with_means=means(seed=seed))
        async with opened(tmp_path / name, *FOLDS, with_means=means(seed=seed + 10)) as journal:
            await say(journal, f"by {name}", f"more by {name}")
            one = archive(tmp_path / name, remote)
            one.commit(await picture(journal), journal)
            pushed = one.push()
    assert pushed is not None and pushed.conflict
    assert any("by b" in show(remote, path) for path in tree(remote) if path.startswith("sessions/"))


async def test_a_remote_that_was_made_anew_gets_the_archive_again(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        one = archive(tmp_path / "a", remote)
        for text in ("one", "two"):
            await say(journal, text)
            one.commit(await picture(journal), journal)
            one.push()
        (tmp_path / "a" / "git").rename(tmp_path / "lost")
        two = archive(tmp_path / "a", remote)
        await say(journal, "three")
        two.commit(await picture(journal), journal)
        two.push()  # joined to a past of which only the end was fetched
        remote.rename(tmp_path / "gone")
        bare(remote)
        pushed = two.push()
    assert pushed is not None and commits(remote) == [pushed.commit]
    assert "three" in show(remote, f"sessions/{STREAM}/tail.jsonl")


async def test_a_remote_that_moves_during_the_push_is_joined(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    one = archive(tmp_path / "a", remote)
    one.push()
    strangers_commit(remote, "a", "1")
    # The server answers the first push of the join with another stranger's commit.
    script = f"#!/bin/sh\nrm -f hooks/pre-receive\nexec 3<&0\ngit update-ref refs/heads/{BRANCH} $MOVED\n"
    moved = strangers_commit(remote, "b", "2")
    git(remote, "update-ref", f"refs/heads/{BRANCH}", f"{moved}~1")
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        script.replace("$MOVED", moved).replace("git update-ref", "env -u GIT_QUARANTINE_PATH git update-ref")
    )
    hook.chmod(0o755)
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "two")
        one.commit(await picture(journal), journal)
        pushed = one.push()
    assert pushed is not None and pushed.merged and not hook.exists()
    assert moved in commits(remote) and commits(remote)[0] == pushed.commit


# ---------------------------------------------------------------- restored from there


async def test_the_remote_alone_gives_everything_back(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    sha = await archived(tmp_path / "a", "one", "two", files={"x": b"1"})
    archive(tmp_path / "a", remote).push()
    (tmp_path / "b").mkdir()
    one = archive(tmp_path / "b", remote)
    state = one.latest()
    assert state is not None and state.state_sha == sha
    came = one.restore(state, tmp_path / "b", means(seed=5), epoch=2)
    assert (came.missing, came.problems) == ((), ())
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "two"]


async def test_the_newer_of_the_own_folder_and_the_remote_is_the_latest(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    archive(tmp_path / "a", remote).push()
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "two")
        mine = archive(tmp_path / "a").commit(await picture(journal), journal)
    latest = archive(tmp_path / "a", remote).latest()
    assert latest is not None and latest.commit == mine


async def test_an_empty_remote_is_not_the_same_as_a_silent_one(tmp_path: Path, server: GitServer) -> None:
    (tmp_path / "a").mkdir()
    remote = Remote(server.url("state.git"), "me", PASSWORD)
    assert archive(tmp_path / "a", remote).latest() is None
    server.status = 503
    with pytest.raises(ArchiveUnreachable):
        archive(tmp_path / "a", remote).latest()


async def test_with_an_own_folder_a_silent_remote_is_only_a_problem(tmp_path: Path, server: GitServer) -> None:
    await archived(tmp_path / "a", "one")
    server.status = 500
    one = archive(tmp_path / "a", Remote(server.url("state.git"), "me", PASSWORD))
    assert one.latest() is not None and "500" in one.problems[0]


# ---------------------------------------------------------------- over HTTP, with a password


async def test_a_password_opens_the_remote_and_is_seen_nowhere_else(
    tmp_path: Path, server: GitServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    remote = Remote(server.url("state.git"), "me", PASSWORD)
    await archived(tmp_path / "a", "one")
    one = archive(tmp_path / "a", remote)
    arguments = _arguments_of(one)
    pushed = one.push()
    assert pushed is not None and commits(tmp_path / "server" / "state.git") == [pushed.commit]
    assert server.expected in server.seen
    secrets = (PASSWORD, (server.expected or "").rpartition(" ")[2])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in caplog.text and secret not in repr(remote) and secret.encode() not in kept
        assert not any(secret in argument for argument in arguments)


def _arguments_of(one: Archive) -> list[str]:
    """The arguments of every process that the push starts, as anybody on the machine may read them."""
    found: list[str] = []
    send = one._send

    def watched(*args: object) -> object:
        import threading

        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                for entry in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                    except OSError:
                        continue

        thread = threading.Thread(target=look)
        thread.start()
        try:
            return send(*args)  # type: ignore[arg-type]
        finally:
            over.set()
            thread.join()

    one._send = watched  # type: ignore[method-assign, assignment]
    return found


async def test_a_wrong_password_is_refused_without_asking_anybody(tmp_path: Path, server: GitServer) -> None:
    await archived(tmp_path / "a", "one")
    with pytest.raises(ArchiveRefused) as caught:
        archive(tmp_path / "a", Remote(server.url("state.git"), "me", "CANARY-wrong")).push()
    assert "CANARY" not in str(caught.value) and server.url("state.git") in str(caught.value)


async def test_a_redirect_does_not_carry_the_password_away(tmp_path: Path, server: GitServer) -> None:
    await archived(tmp_path / "a", "one")
    with GitServer(tmp_path / "server") as elsewhere:
        server.elsewhere = elsewhere.url("")[:-1]
        with pytest.raises(ArchiveRefused):
            archive(tmp_path / "a", Remote(server.url("state.git"), "me", PASSWORD)).push()
        assert elsewhere.asked == []


async def test_a_server_that_never_answers_is_given_up_with_all_that_waits_for_it(
    tmp_path: Path, server: GitServer
) -> None:
    await archived(tmp_path / "a", "one")
    server.silent = True
    with pytest.raises(ArchiveUnreachable, match="no answer in time"):
        archive(tmp_path / "a", Remote(server.url("state.git"), "me", PASSWORD)).push(limit_s=0.5)
    assert not [child for child in _processes() if str(tmp_path) in child or server.url("") in child]


def _processes() -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if entry.parent.name != str(os.getpid()):
            try:
                yield entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


async def test_a_rule_of_the_server_is_told_as_it_says_it(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote")
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho this branch is protected >&2\nexit 1\n")
    hook.chmod(0o755)
    await archived(tmp_path / "a", "one")
    with pytest.raises(ArchiveRefused, match="this branch is protected"):
        archive(tmp_path / "a", remote).push()


# ---------------------------------------------------------------- what is refused before anything is run


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch /tmp/pwn",
        "-oProxyCommand=touch /tmp/pwn",
        "ext::sh -c touch% /tmp/pwn",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-x@host/y",
        "fd::7",
        "https://host/x\n--force",
        "https://me:CANARY@host/x.git",
        "git@-oProxyCommand=x:y",
        "ftp://host/x",
        "relative/folder",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Remote(url)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/me/state.git",
        "http://127.0.0.1:81/x",
        "ssh://git@host:22/x",
        "git@github.com:me/state.git",
        "/srv/state.git",
        "file:///srv/state.git",
    ],
)
def test_an_address_of_a_repository_is_taken(url: str) -> None:
    assert Remote(url).url == url


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a..b", "a/", "/a", "a.lock", "a\nb", "x;touch pwn", "$(x)", "a/.b", "@{1}"]
)
def test_a_name_that_is_no_branch_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        archive(tmp_path, branch=name)


@pytest.mark.parametrize("inside", ["workspace/repository", "git", "."])
def test_a_remote_inside_the_data_directory_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(UsageError):
        archive(tmp_path, tmp_path / inside)


async def test_all_objects_are_proven_once_before_a_restoration_and_again_where_some_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs: list[str] = []
    run = Git.run

    def counted(self: Git, *args: str, **options: Any) -> Answer:
        if args[0] in ("fsck", "fetch"):
            proofs.append(args[0])
        return run(self, *args, **options)

    remote = bare(tmp_path / "remote")
    await archived(tmp_path / "a", "one")
    archive(tmp_path / "a", remote).push()
    shutil.copytree(tmp_path / "a" / "git", tmp_path / "behind" / "git")
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await say(journal, "two")
        one = archive(tmp_path / "a", remote)
        one.commit(await picture(journal), journal)
        one.push()
    monkeypatch.setattr(Git, "run", counted)
    for name, wanted in (("a", ["fsck"]), ("behind", ["fsck", "fetch", "fsck"])):
        proofs.clear()
        one, into = archive(tmp_path / name, remote), tmp_path / f"into {name}"
        state = one.latest()
        assert state is not None
        into.mkdir()
        one.restore(state, into, means(seed=5), epoch=2)
        assert proofs == wanted
