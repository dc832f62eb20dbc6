"""Canaries over store and git: what opens the copies stands in none of them, nor where anybody on the machine can read.

A whole life: talk, a tool that looks for them, files, a sealed session, a bucket and a remote that fail, a lost disk.
"""

import base64
import os
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.finn import ECHO, Finn, made, until
from tests.end_to_end.machines import Bucket, Directory, Remote, gone, ready, saved, texts
from tests.end_to_end.test_secrets import SNOOP, spellings
from tests.git_server import GitServer
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

TOKEN = "CANARY-token/+=3f9A2c7E81bD4056aZ"
AWS = "CANARY-aws/secret+9d2B7f40C6e1538A"
SESSION = "CANARY-session/token+77aB2c9D0e4F615"
PASSWORD = "CANARY-git-Wq7mT2xLr9pZ4vN8"
USER = "me"
LOGIN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()  #: as it goes over the wire
SECRETS = (TOKEN, AWS, SESSION, PASSWORD, LOGIN)
ALL = " ".join(SECRETS)
REPLIES = (
    {
        "when": "snoop",
        "calls": [
            [
                {"tool": "bash", "args": {"command": SNOOP}},
                {"tool": "bash", "args": {"command": "cat ../git/config ../git/*; git config --list --show-origin"}},
                {"tool": "write", "args": {"path": "plan.txt", "content": "no secret"}},
                {"tool": "write", "args": {"path": "copy.txt", "content": ALL}},
                {"tool": "remember", "args": {"text": f"the keys are {ALL}"}},
            ],
            [{"thinking": f"so they are {ALL}"}, {"text": f"They are {ALL}."}],
        ],
    },
    ECHO,
)


def hits(data: bytes) -> list[str]:
    """The secrets that stand in it, in any spelling."""
    return [secret for secret in SECRETS if any(form in data for form in spellings(secret))]


def opened(data: bytes) -> bytes:
    """The bytes, and what they are packed from."""
    try:
        return data + zlib.decompress(data)
    except zlib.error:
        return data


def leaks(files: Iterable[tuple[str, bytes]]) -> dict[str, list[str]]:
    return {name: found for name, data in files if (found := hits(name.encode() + opened(data)))}


def below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def git_objects(folder: Path) -> bytes:
    """All that a repository holds, unpacked."""
    said = ["cat-file", "--batch-all-objects", "--batch"]
    found = subprocess.run(["git", "-C", folder, *said], capture_output=True, check=True).stdout
    assert b"no secret" in found, "it was looked into"
    return found


def arguments() -> dict[str, bytes]:
    """What anybody may read of the processes on this machine."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[path.parent.name] = path.read_bytes()
        except OSError:
            continue
    return found


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    repository = tmp_path / "server" / "state.git"
    subprocess.run(["git", "init", "-q", "--bare", repository], check=True)
    subprocess.run(["git", "-C", repository, "config", "http.receivepack", "true"], check=True)
    with GitServer(tmp_path / "server", USER, PASSWORD) as server:
        yield server


def recorded(folder: Path) -> tuple[Path, Path]:
    """A folder with a `git` that writes its arguments down, and where it writes them."""
    script, log = folder / "bin" / "git", folder / "arguments"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nexec "$(PATH=/usr/bin:/bin command -v git)" "$@"\n')
    script.chmod(0o755)
    return script.parent, log


def lived(it: Finn) -> str:
    """Everything that writes anything anywhere."""
    session = it.new_session(f"about {ALL}")
    it.say(session, f"snoop, they are {ALL}")
    (it.data / "workspace" / "leak.txt").write_text(ALL)
    for number in range(3):
        it.say(session, f"{number} {ALL} " * 1_000)
    it.say(session, f"long {ALL} " * 4_000)
    until(lambda: any(path.is_file() for path in (it.data / "chunks").rglob("*")), "the session was never sealed")
    return session


def test_no_secret_is_in_any_copy_log_record_or_argument(tmp_path: Path, git_server: GitServer) -> None:
    path, log = recorded(tmp_path)
    place = git_server.url("state.git").replace("http://", f"http://{USER}:{PASSWORD}@")
    with S3Server() as s3:
        bucket = Bucket(s3)
        keys = {"AWS_SECRET_ACCESS_KEY": AWS, "AWS_SESSION_TOKEN": SESSION, "FINN_TOKEN": TOKEN}
        there = {"FINN_GIT_REMOTE": place, "FINN_ARCHIVE_INTERVAL": "1s", "FINN_LOG_LEVEL": "debug"}
        around = {"PATH": f"{path}:{os.environ['PATH']}"}
        it = made(tmp_path / "one", REPLIES, {**bucket.settings, **keys, **there, **around})
        try:
            it.start()
            session = lived(it)
            assert it.stop() == 0
            said, objects = [it.command("status").stdout], tmp_path / "server" / "state.git"
            it.start()
            saved(it)
            s3.stop()
            it.say(session, "where are you?")
            until(lambda: b'"failing"' in it.ask("GET", "/api/storage").body)
            said += [it.ask("GET", path).body.decode() for path in ("/health", "/api/storage", f"/ws/{session}")]
            said += [it.command("verify", "--store").stderr, it.command("status").stdout]
            s3.start()
            saved(it)
            git_server.status = 500
            it.say(session, "and you?")
            until(lambda: b"git:lastError" in it.ask("GET", "/health").body)
            said.append(it.ask("GET", "/health").body.decode())
            git_server.status, git_server.silent = 0, True
            it.say(session, "hello?")
            until(lambda: any(b"remote-http" in one for one in arguments().values()), "nobody asked")
            assert leaks(arguments().items()) == {}
            assert leaks(below(it.data)) == {"workspace/leak.txt": [*SECRETS]}, "only what a person put there"
            it.kill()
            gone(it.data)
            it.start()
            assert ready(it) == "ok" and len(texts(it, session)) > 8
            made_anew = it.command("restore", "--to", str(tmp_path / "anew"), "--json")
            said += [made_anew.stdout, made_anew.stderr, it.log, log.read_text()]
            it.kill()
            found = bucket.objects()
        finally:
            it.kill()
    assert leaks(found.items()) == {}
    assert {key.split("/")[1] for key in found} >= {"log", "manifest", "seg", "snap", "chunk", "blob"}
    assert leaks(below(it.data)) == leaks(below(tmp_path / "anew")) == {}
    assert hits(git_objects(objects)) == []
    assert [hits(one.encode()) for one in said] == [[] for _ in said]
    assert "push" in log.read_text()
    assert b"[REDACTED:" in b"".join(found.values())


# ---------------------------------------------------------------- what is planted for git


HOOKS = ("pre-commit", "post-commit", "pre-push", "reference-transaction", "post-checkout", "post-index-change")


def planted(root: Path, home: Path, pwn: Path) -> None:
    """Whatever makes a git that looks at it run a program."""
    run = f"touch {pwn}"
    config = (
        f"[core]\n\tfsmonitor = {run}\n\tpager = {run}\n\thooksPath = {root}/.git/hooks\n\tsshCommand = {run}\n"
        f'[filter "evil"]\n\tclean = {run}\n\tsmudge = {run}\n\trequired = true\n[diff]\n\texternal = {run}\n'
        f'[alias]\n\tpush = "!{run}"\n\tfast-import = "!{run}"\n[credential]\n\thelper = !{run}\n'
    )
    for folder in (root / ".git", root / "nested.git"):
        for name in ("hooks", "objects", "refs"):
            (folder / name).mkdir(parents=True)
        (folder / "HEAD").write_text("ref: refs/heads/main\n")
        (folder / "config").write_text(config)
        for name in HOOKS:
            (folder / "hooks" / name).write_text(f"#!/bin/sh\n{run}\n")
            (folder / "hooks" / name).chmod(0o755)
    (home / ".gitconfig").write_text(config)
    (root / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (root / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch\n')
    (root / "plan.txt").write_text("no secret")


def snapped(folder: Path, pwn: Path) -> bool:
    """Whether the trap catches a git that is not careful."""
    planted(folder / "bait", folder, pwn)
    subprocess.run(["git", "-C", folder / "bait", "add", "."], env={**os.environ, "HOME": str(folder)}, check=False)
    return pwn.exists()


def test_what_the_agent_plants_for_git_runs_nowhere_and_is_kept_as_a_file(tmp_path: Path) -> None:
    assert snapped(tmp_path, tmp_path / "snapped")
    place, remote, pwn = Directory(tmp_path), Remote(tmp_path), tmp_path / "pwn"
    settings = {**place.settings, **remote.settings, "FINN_ARCHIVE_INTERVAL": "1s"}
    it = made(tmp_path / "one", [ECHO], settings)
    try:
        it.start()
        planted(it.data / "workspace", it.folder, pwn)
        session = it.new_session()
        it.say(session, "one")
        assert it.stop() == 0
        assert remote.git("show", "state/main:workspace/plan.txt") == b"no secret"
        gone(it.data)
        place.empty()
        it.start()
        assert texts(it, session)[0] == "one"
        assert (it.data / "workspace" / ".gitattributes").read_text() == "* filter=evil diff=evil\n"
        assert it.stop() == 0
    finally:
        it.kill()
    assert not pwn.exists()
