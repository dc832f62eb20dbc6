"""What reaches the owner of a real finn: one message when its store breaks, one when it is back, whatever happens."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.canary import Authority, Canary, Request, answer
from tests.end_to_end.finn import ECHO, Finn, made, until
from tests.end_to_end.machines import Directory
from tests.end_to_end.network import PUBLIC, alone
from tests.persistence.journals import logged

pytestmark = pytest.mark.slow

SECRET = "path-that-opens-the-hook"
HOOKS, TRAP = "hooks.example", "trap.example"
NAMES = {HOOKS: PUBLIC, TRAP: "127.0.0.1"}


class Stage:
    """A finn with a store, and what listens at its owner's addresses."""

    def __init__(self, folder: Path, name: str = HOOKS, answering: Callable[[Request], Iterable[bytes]] | None = None):
        self.store = Directory(folder)
        self.authority = Authority(folder)
        host = NAMES[name]
        self.canary = Canary(answering or (lambda _: answer()), host=host, authority=self.authority, names=[name])
        self.finn = made(
            folder / "finn",
            [ECHO],
            {
                **self.store.settings,
                "FINN_ALERT_URL": f"https://{name}:{self.canary.port}/alert/{SECRET}",
                "FINN_PING_URL": f"https://{name}:{self.canary.port}/ping/{SECRET}",
                "FINN_SANDBOX": "none",
                "SSL_CERT_FILE": str(self.authority.path),
            },
        )

    def __enter__(self) -> "Stage":
        self.canary.__enter__()
        self.finn.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.finn.kill()
        self.canary.__exit__(*exc)

    @property
    def told(self) -> list[Any]:
        """The messages that came, in order."""
        return [one.json for one in self.canary.requests if one.method == "POST"]

    @property
    def statuses(self) -> list[str]:
        return [one["status"] for one in self.told]

    @property
    def pings(self) -> int:
        return sum(one.method == "GET" for one in self.canary.requests)

    def reached(self, times: int) -> None:
        """Returns when so many messages were taken, and the log knows it."""
        until(lambda: records(self.finn) == times * ["owner_told", "owner_reached"], f"{self.told} {checks(self.finn)}")

    def look(self, times: int = 3) -> None:
        """The health task runs so often, as it does each minute."""
        for _ in range(times):
            until(lambda: self.finn.ask("POST", "/api/tasks/health/run").status == 200)

    def break_store(self) -> None:
        self.store.take_away()
        self.finn.say(self.finn.new_session(), "hello")
        until(lambda: "store:lastError" in checks(self.finn))

    def mend_store(self) -> None:
        self.store.bring_back()
        until(lambda: "store:lastError" not in checks(self.finn))
        until(lambda: not self.finn.ask("POST", "/api/tasks/replicate/run").json["last_error"])


def checks(it: Finn) -> dict[str, Any]:
    found: dict[str, Any] = it.ask("GET", "/health").json["checks"]
    return found


def test_a_store_that_breaks_and_comes_back_is_two_messages_through_every_kill(tmp_path: Path) -> None:
    def story() -> None:
        with Stage(tmp_path) as stage:
            stage.look()
            until(lambda: stage.pings)
            stage.break_store()
            stage.look()
            stage.reached(1)
            stage.finn.kill()
            stage.finn.start()
            stage.look()
            stage.mend_store()
            stage.look()
            stage.reached(2)
            stage.finn.kill()
            stage.finn.start()
            stage.look()
            stage.finn.kill()
            assert stage.statuses == ["warn", "pass"]
            assert records(stage.finn) == 2 * ["owner_told", "owner_reached"]
            assert {one["name"] for one in stage.told[0]["problems"]} <= {"store:lastError", "task:replicate"}
            assert set(stage.canary.names) == {HOOKS}
            assert_hidden(stage)

    alone(story, NAMES, tmp_path)


def test_a_message_that_a_kill_overtook_is_said_again_with_a_word_on_it(tmp_path: Path) -> None:
    def story() -> None:
        gate = threading.Event()

        def waiting(request: Request) -> Iterable[bytes]:
            if request.method == "POST":
                gate.wait()
            return answer()

        with Stage(tmp_path, answering=waiting) as stage:
            stage.look()
            stage.break_store()
            stage.look()
            until(lambda: stage.told)
            stage.finn.kill()
            gate.set()
            assert records(stage.finn) == ["owner_told"]
            stage.finn.start()
            stage.look()
            until(lambda: len(stage.told) > 1)
            assert ["may not have arrived" in one["summary"] for one in stage.told] == [False, True]

    alone(story, NAMES, tmp_path)


def test_a_name_that_leads_home_is_told_nothing_and_health_says_so(tmp_path: Path) -> None:
    def story() -> None:
        with Stage(tmp_path, TRAP) as stage:
            stage.break_store()
            stage.look()
            until(lambda: "FINN_ALERT_URL" in said(stage.finn) and "FINN_PING_URL" in said(stage.finn))
            assert "127.0.0.1, which is no public address" in said(stage.finn)
            stage.finn.kill()
            assert stage.canary.hits == 0
            assert_hidden(stage)

    alone(story, NAMES, tmp_path)


@pytest.mark.parametrize("name", ["FINN_ALERT_URL", "FINN_PING_URL"])
def test_an_address_that_can_never_be_told_ends_the_start(tmp_path: Path, name: str) -> None:
    done = made(tmp_path).command("serve", **{name: f"https://127.0.0.1/{SECRET}"})
    assert (done.returncode, done.stderr.startswith(f"finn: {name} leads to 127.0.0.1")) == (2, True)
    assert SECRET not in done.stdout + done.stderr


def said(it: Finn) -> str:
    """Why the owner cannot be told, as health has it."""
    return str(checks(it).get("owner:lastError", [{"output": ""}])[0]["output"])


def records(it: Finn) -> list[str]:
    return [record.type for record in logged(it.data) if record.type.startswith("owner_")]


def assert_hidden(stage: Stage) -> None:
    """What opens the owner's addresses stands in nothing that finn has written."""
    written = b"".join(path.read_bytes() for path in stage.finn.data.rglob("*") if path.is_file())
    stored = b"".join(stage.store.objects().values()) if stage.store.folder.exists() else b""
    assert SECRET.encode() not in written + stored + stage.finn.log.encode()
