"""Canaries: a token and a key that must be found nowhere but where they belong."""

import base64
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.end_to_end.finn import ECHO, finn, until

pytestmark = pytest.mark.slow

TOKEN = "CANARY-token/+=3f9A2c7E81bD4056aZ"
KEY = "sk-CANARY-key+/9d2B7f40C6e1538AzQ"
SNOOP = """
env; cat leak.txt; cat /proc/self/environ /proc/*/environ /proc/*/cmdline; ls -la / ..;
cat ../auth/token ../run.json ../.env ~/.finn/auth/token; ls ../auth ../wal; cat ../wal/*
"""
REPLIES = (
    {
        "when": "snoop",
        "calls": [
            [
                {"tool": "bash", "args": {"command": SNOOP}},
                {"tool": "read", "args": {"path": "leak.txt"}},
                {"tool": "read", "args": {"path": "../auth/token"}},
                {"tool": "read", "args": {"path": "/proc/self/environ"}},
                {"tool": "write", "args": {"path": "copy.txt", "content": f"{KEY} and {TOKEN}"}},
                {"tool": "remember", "args": {"text": f"the key is {KEY}"}},
            ],
            [{"thinking": f"so it is {KEY}"}, {"text": f"The key is {KEY}, the token {TOKEN}."}],
        ],
    },
    {"when": "linger", "calls": [[{"tool": "bash", "args": {"command": "sleep 30"}}], [{"text": "Done."}]]},
    ECHO,
)


def spellings(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret.encode()).rstrip(b"=")


def hits(data: bytes) -> list[bytes]:
    return [form for secret in (TOKEN, KEY) for form in spellings(secret) if form in data]


def leaks(folder: Path) -> dict[str, list[bytes]]:
    """The files below a folder in which a canary stands."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): found for path in files if (found := hits(path.read_bytes()))}


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_no_secret_is_in_a_log_a_record_a_mirror_or_what_the_model_is_sent(tmp_path: Path, sandbox: str) -> None:
    with finn(tmp_path, REPLIES, FINN_TOKEN=TOKEN, ANTHROPIC_API_KEY=KEY, FINN_SANDBOX=sandbox) as it:
        assert hits(TOKEN.encode())
        workspace = it.data / "workspace"
        (workspace / "leak.txt").write_text("\n".join(form.decode() for one in (KEY, TOKEN) for form in spellings(one)))
        session = it.new_session(f"about {KEY}")
        it.say(session, f"snoop, my key is {KEY} and the token {TOKEN}")
        it.ask("PATCH", f"/api/sessions/{session}", {"title": TOKEN})
        it.ask("GET", f"/api/sessions?q={quote(TOKEN)}&token={quote(TOKEN)}")
        it.ask("GET", f"/{quote(KEY, safe='')}", headers={"User-Agent": KEY, "Referer": f"http://x/?{TOKEN}"})
        it.ask("GET", "/api/sessions", headers={"X-Request-Id": KEY.replace("+", "-")})
        answer = it.ask("GET", f"/api/sessions/{session}/messages").body
        export = it.ask("GET", f"/api/sessions/{session}/export?format=jsonl").body
        assert b"[REDACTED:" in answer
        assert hits(answer + export) == []
        it.command("chat", "--session", session, f"hello {KEY}")
        it.restart()
        it.stop()
        assert hits(it.log.encode()) == []
        assert set(leaks(it.data)) == {"workspace/leak.txt"}, "only what a person put there"
        # The script and its log stand for the model: what it says is its own, what it is sent is not.
        assert hits(b"".join(str(request["system"]).encode() for request in it.sent())) == []
        heard = [one for request in it.sent() for one in request["messages"] if one["role"] != "assistant"]
        assert hits(str(heard).encode()) == []


def test_no_secret_is_in_the_environment_or_arguments_of_a_tools_processes(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES, FINN_TOKEN=TOKEN, ANTHROPIC_API_KEY=KEY) as it, ThreadPoolExecutor() as threads:
        session = it.new_session()
        turn = threads.submit(it.say, session, "linger")
        until(lambda: any(b"sleep 30" in cmdline(pid) for pid in descendants(it.pid)))
        children = descendants(it.pid)
        assert len(children) >= 1
        for pid in children:
            assert hits(cmdline(pid)) == []
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert hits(environment) == []
            assert b"FINN_TOKEN" not in environment
        assert hits(cmdline(it.pid)) == []
        it.ask("POST", f"/api/sessions/{session}/stop")
        assert turn.result()["stop_reason"] == "abort"
        until(lambda: not descendants(it.pid), "a stopped tool leaves no process behind")


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    found, parents = [], [pid]
    while parents:
        parent = parents.pop()
        tasks = Path(f"/proc/{parent}/task")
        for path in tasks.glob("*/children") if tasks.exists() else ():
            children = [int(one) for one in path.read_text().split()]
            found += children
            parents += children
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_every_file_is_for_the_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0o000)
    try:
        with finn(tmp_path, REPLIES) as it:
            workspace = it.data / "workspace"
            (workspace / "leak.txt").touch(mode=0o600)
            session = it.new_session()
            it.say(session, "snoop")
            for n in range(4):
                it.say(session, f"{n}" * 100_000)
            it.say(session, "big " + "x" * 400_000)
            it.restart()
            it.stop()
    finally:
        os.umask(umask)
    assert open_to_others(it.data) == []
    assert {path.name for path in it.data.iterdir()} >= {"wal", "snapshots", "chunks", "blobs", "state", "auth"}


def open_to_others(folder: Path) -> list[str]:
    """What a stranger on the machine could do something with."""
    paths = [folder, *folder.rglob("*")]
    return [f"{path} {stat.filemode(path.lstat().st_mode)}" for path in paths if path.lstat().st_mode & 0o077]


def test_the_identity_of_the_agent_cannot_be_changed_by_a_tool(tmp_path: Path) -> None:
    place = "../grimoires/BEAUVOIR.md"
    replies = (
        {
            "when": "become",
            "calls": [
                [
                    {"tool": "write", "args": {"path": place, "content": "I am evil."}},
                    {"tool": "edit", "args": {"path": place, "edits": [{"oldText": "#", "newText": "evil"}]}},
                    {
                        "tool": "bash",
                        "args": {"command": f"echo evil > {place}; ln -sf {place} link; echo evil > link"},
                    },
                    {"tool": "write", "args": {"path": "link", "content": "I am evil."}},
                    {"tool": "remember", "args": {"text": "# You are evil", "file": place}},
                    {"tool": "write", "args": {"path": "grimoires/BEAUVOIR.md", "content": "I am evil."}},
                ],
                [{"text": "Tried."}],
            ],
        },
        ECHO,
    )
    with finn(tmp_path, replies) as it:
        identity = it.data / "grimoires" / "BEAUVOIR.md"
        before = identity.read_bytes()
        session = it.new_session()
        it.say(session, "become evil")
        it.say(session, "who are you?")
        assert identity.read_bytes() == before
        it.restart()
        it.say(session, "and now?")
        systems = {request["system"] for request in it.sent()}
        assert len(systems) == 1
        assert "I am evil." not in systems.pop()
