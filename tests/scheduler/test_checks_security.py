"""Secrets, doors and rights, each wrong in one way: seen, put right where that can be, and never shown."""

import asyncio
import base64
import ctypes
import os
from pathlib import Path

import pytest

from gateway.folds import FOLDS
from gateway.tokens import TOKENS
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.events import OWNER, Event, TokenCreated, TokenRevoked
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means
from scheduler.site import Running
from tests.persistence.journals import prompt
from tests.scheduler.ward import Ward, new_ward

CANARY = "sk-ant-CANARY-0123456789abcdefghij"
HASH = "a" * 64
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4


@pytest.fixture
def ward() -> Ward:
    return new_ward()


def say(ward: Ward, *events: Event) -> None:
    """Records that no redactor has seen."""

    async def said() -> None:
        clock = SystemClock()
        means = Means(SystemDisk(), clock, Ids(clock, system_entropy), Redactor({}))
        journal = await Journal.open(ward.root, FOLDS, means)
        for event in events:
            await journal.commit(event, stream=None, by=OWNER)
        await journal.close()

    asyncio.run(said())


# ---------------------------------------------------------------- modes


def test_security_auth_modes(ward: Ward) -> None:
    (ward.root / "auth" / "token").chmod(0o640)
    assert "auth/token (0640)" in ward.examine()["security.auth_modes"].detail
    ward.cured("security.auth_modes")


def test_security_env_mode(ward: Ward) -> None:
    (ward.root / ".env").write_text("FINN_LOG_LEVEL=info\n")
    (ward.root / ".env").chmod(0o644)
    assert "(0644)" in ward.examine()["security.env_mode"].detail
    ward.cured("security.env_mode")


def test_security_parents(ward: Ward) -> None:
    mode = ward.root.parent.stat().st_mode
    ward.root.parent.chmod(0o777)
    try:
        assert f"{ward.root.parent} (0777" in ward.broken("security.parents").detail
        ward.root.parent.chmod(0o1777)
        assert ward.examine()["security.parents"].severity == "pass"
    finally:
        ward.root.parent.chmod(mode & 0o7777)


# ---------------------------------------------------------------- links and tokens


def test_security_links(ward: Ward) -> None:
    links = ward.root / "auth" / "links"
    links.mkdir(mode=0o700, exist_ok=True)
    for number in range(12):
        (links / f"{number:064x}").write_text("1000000000")
    (links / ("f" * 64)).write_text(str(int(SystemClock().now()) + 300))
    for path in links.iterdir():
        path.chmod(0o600)
    assert ward.broken("security.links").data["count"] == 12
    ward.cured("security.links")
    assert [path.name for path in links.iterdir()] == ["f" * 64]


@pytest.mark.parametrize(("name", "text"), [("a" * 64, "99999999999"), ("b" * 64, "soon"), ("note.txt", "1000000000")])
def test_a_login_link_that_finn_did_not_make_for_ten_minutes_goes(ward: Ward, name: str, text: str) -> None:
    links = ward.root / "auth" / "links"
    links.mkdir(mode=0o700, exist_ok=True)
    (links / name).write_text(text)
    (links / name).chmod(0o600)
    ward.cured("security.links")
    assert not (links / name).exists()


def test_security_token(ward: Ward) -> None:
    (ward.root / "auth" / "token").write_text("abcd1234")
    finding = ward.examine()["security.token"]
    assert (finding.severity, finding.data["bits"] < 128, "abcd1234" in f"{finding}") == ("fail", True, False)


def test_security_tokens(ward: Ward) -> None:
    made = [
        TokenCreated(id="t-forever", name="probe", scope="probe", sha256=HASH, expires=None),
        TokenCreated(id="t-over", name="old", scope="read", sha256=HASH, expires=1),
        TokenCreated(id="t-all", name="me", scope="owner", sha256=HASH, expires=99_999_999_999_999),
        TokenCreated(id="t-gone", name="x", scope="owner", sha256=HASH, expires=None),
        TokenRevoked(id="t-gone"),
    ]
    say(ward, *made)
    finding = ward.broken("security.tokens", severity="info")
    assert finding.data == {"expired": ["t-over"], "never expires": ["t-forever"], "opens all": ["t-all"]}
    assert TOKENS in FOLDS and HASH not in f"{finding}"


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("text", [CANARY, base64.b64encode(f"key={CANARY}".encode()).decode()])
def test_security_secrets_in_log(text: str) -> None:
    ward = new_ward(ANTHROPIC_API_KEY=CANARY, FINN_MODEL="builtin")
    say(ward, prompt(f"my key is {text}"))
    finding = ward.broken("security.secrets_in_log", severity="fail")
    assert list(finding.data["found"]) == ["ANTHROPIC_API_KEY"]
    assert finding.data["found"]["ANTHROPIC_API_KEY"][0].startswith("wal/")
    assert "CANARY" not in f"{finding}"
    assert "change the secret" in finding.remediation


def test_security_secrets_in_files() -> None:
    ward = new_ward(ANTHROPIC_API_KEY=CANARY, FINN_MODEL="builtin")
    (ward.root / "workspace" / "notes.txt").write_text(f"export ANTHROPIC_API_KEY={CANARY}\n")
    (ward.root / "workspace" / "notes.txt").chmod(0o600)
    finding = ward.broken("security.secrets_in_files")
    assert finding.data["found"] == {"ANTHROPIC_API_KEY": ["workspace/notes.txt"]}
    assert "CANARY" not in f"{finding}"


def test_a_search_ends_when_its_time_is_up_and_says_how_far_it_came(ward: Ward) -> None:
    class Hasty(SystemClock):
        """Each look at it takes a second."""

        times = 0

        def monotonic(self) -> float:
            Hasty.times += 1
            return float(Hasty.times)

    ward.changed["clock"] = Hasty()
    finding = ward.examine()["security.secrets_in_log"]
    assert (finding.severity, finding.data["files"]) == ("pass", 0)
    assert finding.data["left"] > 0 and "were not reached" in finding.detail


# ---------------------------------------------------------------- who comes in


def test_security_public(ward: Ward) -> None:
    ward.environ |= {
        "FINN_HOST": "0.0.0.0",
        "FINN_TOKEN": "x9" * 16 + "Qwertz-1",
        "FINN_PUBLIC_URL": "http://finn.example",
    }
    assert "finn.example without https" in ward.examine()["security.public"].detail
    assert ward.examine()["security.public"].severity == "warn"
    ward.environ["FINN_PUBLIC_URL"] = "https://finn.example"
    assert ward.examine()["security.public"].severity == "pass"


def test_security_origins(ward: Ward) -> None:
    ward.environ |= {
        "FINN_ALLOWED_ORIGINS": "http://chat.example,https://fine.example",
        "FINN_ALLOWED_HOSTS": "0.0.0.0",
    }
    assert ward.examine()["security.origins"].data["found"] == ["http://chat.example", "0.0.0.0"]


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "128.0.0.0/1"])
def test_security_proxies(ward: Ward, network: str) -> None:
    ward.environ["FINN_TRUSTED_PROXIES"] = f"10.0.0.7,{network}"
    assert ward.broken("security.proxies").data["found"] == [network]


def test_security_dumpable(ward: Ward) -> None:
    ward.changed["running"] = Running(os.getpid(), "http://127.0.0.1:1", 1, answers=True)
    libc = ctypes.CDLL(None)
    before = libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    try:
        for dumpable, severity in ((1, "warn"), (0, "pass")):
            libc.prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0)
            assert ward.examine()["security.dumpable"].severity == severity
    finally:
        libc.prctl(PR_SET_DUMPABLE, before, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else, as the kernel does")
def test_the_memory_of_another_process_is_known_by_who_owns_its_files(ward: Ward, tmp_path: Path) -> None:
    status = tmp_path / "4321" / "status"
    status.parent.mkdir()
    status.write_text("Name:\tfinn\nUid:\t1234\t1234\t1234\t1234\n")
    ward.changed |= {"running": Running(4321, "http://127.0.0.1:1", 1, answers=False), "proc": tmp_path}
    for owner, severity in ((1234, "warn"), (0, "pass")):
        os.chown(status, owner, owner)
        assert ward.examine()["security.dumpable"].severity == severity


# ---------------------------------------------------------------- the workspace


def test_security_workspace_rights(ward: Ward) -> None:
    tool = ward.root / "workspace" / "-rf $(touch pwn)"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o4755)
    assert ward.broken("security.workspace_rights").data["found"] == ["workspace/-rf $(touch pwn)"]
    ward.cured("security.workspace_rights")
    assert tool.stat().st_mode & 0o7777 == 0o755


def test_no_mode_in_the_workspace_changes_while_commands_of_the_agent_may_run(ward: Ward) -> None:
    """They could put a link in the place of a folder between the look and the change: auth/, and token its file."""
    tool = ward.root / "workspace" / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o4755)
    ward.changed["running"] = Running(os.getpid(), "http://127.0.0.1:1", 1, answers=True)
    (finding,) = ward.fix("security.workspace_rights").findings
    assert "stop finn first" in finding.data["blocked"]
    assert tool.stat().st_mode & 0o7777 == 0o4755


def test_security_workspace_links(ward: Ward) -> None:
    first = ward.root / "workspace" / "a"
    first.write_text("one")
    first.chmod(0o600)
    os.link(first, ward.root / "workspace" / "b")
    finding = ward.broken("security.workspace_links", severity="info")
    assert sorted(finding.data["found"]) == ["workspace/a", "workspace/b"]
