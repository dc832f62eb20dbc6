"""The way to the owner: recorded before it is sent, sent until it is taken, and never to where finn does not go."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

import gateway.owner
from agent.outbound import Outbound
from gateway.owner import Owner
from gateway.places import Hook
from gateway.secret import Secret
from persistence.clock import FakeClock, SystemClock
from persistence.errors import StorageFull
from persistence.events import OwnerReached, OwnerTold, Record
from persistence.journal import Journal
from scheduler.alerts import ALERTS, LIMIT
from scheduler.health import Fact, Report, judge
from scheduler.message import Sender
from tests.canary import Authority, Canary, Request, answer, well
from tests.persistence.journals import killed, logged, means, opened

HERE, PRIVATE = "127.0.0.1", "127.0.0.2"
SECRET = "path-that-opens-the-hook"
DAY_S = 24 * 3600.0


def report(*facts: Fact) -> Report:
    return judge([lambda: facts], 0)


WELL = report(Fact("epoch", 1))
WARN = report(Fact("store:lastError", "no answer", output="no answer"))
FAIL = report(Fact("wal:error", "no room", output="no room"))


class Life:
    """An Owner over a real log, on a clock that stands still, with canaries for the owner's addresses."""

    def __init__(self, root: Path, journal: Journal, owner: Owner, clock: FakeClock) -> None:
        self.root = root
        self.journal = journal
        self.owner = owner
        self.clock = clock

    async def see(self, *reports: Report) -> None:
        """Looks, a minute apart."""
        for one in reports:
            self.clock.advance(60)
            await self.owner.look(one)

    def error(self) -> str:
        return "; ".join(fact.output for fact in self.owner.facts())

    async def settled(self) -> None:
        """Returns when all that was said has arrived, and the log knows it."""
        await until(lambda: self.journal.whole(ALERTS).arrived and not self.owner._waiting)

    def records(self) -> list[str]:
        return told(self.root)


def told(root: Path) -> list[str]:
    """What a log holds of the owner."""
    return [record.type for record in logged(root) if record.type.startswith("owner_")]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def hook(canary: Canary, form: str = "json") -> Hook:
    origin = f"https://hooks.example:{canary.port}"
    return Hook(origin, form, Secret(f"{origin}/{SECRET}"))


@asynccontextmanager
async def life(
    root: Path,
    authority: Authority,
    alert: Hook | None = None,
    ping: Hook | None = None,
    resolve: Callable[[str, int], Sequence[str]] = lambda _, __: [HERE],
) -> AsyncIterator[Life]:
    clock = FakeClock()
    judge = {ip_address(HERE)}.__contains__
    outbound = Outbound(SystemClock(), resolve=resolve, judge=judge, trust=authority.trusted)
    async with opened(root, ALERTS, with_means=means(clock=clock)) as journal:
        owner = Owner(alert, ping, journal, clock, Sender("main", "1.2.3", "https://finn.example"), outbound)
        serving = asyncio.create_task(owner.serve())
        try:
            yield Life(root, journal, owner, clock)
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            owner.end()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "tls"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def listening(authority: Authority, answering: Callable[[Request], Iterable[bytes]] = well) -> Canary:
    return Canary(answering, authority=authority, names=["hooks.example"])


def statuses(canary: Canary) -> list[str]:
    return [one.json["status"] for one in canary.requests]


# ---------------------------------------------------------------- word


async def test_what_turns_bad_is_told_once_and_that_it_is_well_once(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            await it.see(WELL, WELL, WARN, WARN, WARN, WARN)
            await it.settled()
            await it.see(WARN, WELL, WELL, WELL)
            await it.settled()
            assert it.records() == ["owner_told", "owner_reached"] * 2
        assert statuses(canary) == ["warn", "pass"]
        assert {one.target for one in canary.requests} == {f"/{SECRET}"}
        assert canary.requests[0].json["problems"] == [
            {"name": "store:lastError", "status": "warn", "output": "no answer"}
        ]


async def test_while_all_is_well_nothing_is_asked_and_nothing_written(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            await it.see(*[WELL] * 10, WARN, WELL, FAIL, *[WELL] * 10)
            assert (it.records(), it.owner._waiting, canary.hits) == ([], type(it.owner._waiting)(), 0)


async def test_a_restart_tells_nothing_twice_and_what_changed_meanwhile(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            await it.see(WARN, WARN)
            await it.settled()
        async with life(root, authority, hook(canary)) as it:
            await it.see(WARN, WELL, WARN, WARN)
            await it.settled()
        assert statuses(canary) == ["warn"]
        async with life(root, authority, hook(canary)) as it:
            await it.see(WELL, WELL, WELL)
            await it.settled()
        assert statuses(canary) == ["warn", "pass"]


async def test_word_is_durable_before_it_is_sent_and_said_again_where_it_may_be_lost(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    copies: list[Path] = []

    def copying(_: Request) -> Iterable[bytes]:
        copies.append(killed(root, tmp_path / "copies"))
        return answer()

    with listening(authority, copying) as canary:
        async with life(root, authority, hook(canary)) as it:
            await it.see(WARN, WARN)
            await it.settled()
        assert told(copies[0]) == ["owner_told"]
        canary.answering = well
        async with life(copies[0], authority, hook(canary)) as it:
            await it.see(WARN, WARN, WARN)
            await it.settled()
            await it.see(WARN, WARN)
        assert ["may not have arrived" in one.json["summary"] for one in canary.requests] == [False, True]


async def test_what_is_not_taken_is_sent_again_with_pauses(root: Path, authority: Authority) -> None:
    clock, at = FakeClock(), list[float]()

    def slowly(_: Request) -> Iterable[bytes]:
        at.append(clock.now())
        return answer(503 if len(at) < 6 else 204, body=b"")

    with listening(authority, slowly) as canary:
        async with life(root, authority, hook(canary)) as it:
            clock = it.clock
            await it.see(WARN, WARN)
            await it.settled()
            assert [round(later - first) for first, later in pairwise(at)] == [5, 5, 300, 300, 300]
            assert it.error() == ""
            assert it.records() == ["owner_told", "owner_reached"]
        assert statuses(canary) == ["warn"] * 6


async def test_while_nothing_is_taken_health_says_why_and_shows_no_secret(
    root: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    def failing(_: Request) -> Iterable[bytes]:
        return answer(204 if gate.is_set() else 404, body=b"")

    with listening(authority, failing) as canary:
        async with life(root, authority, hook(canary)) as it:
            await it.see(WARN, WARN)
            await until(it.error)
            assert it.error() == f"FINN_ALERT_URL: https://hooks.example:{canary.port} answers with 404"
            gate.set()
            await it.settled()
            assert it.error() == ""
        assert SECRET not in caplog.text
        assert SECRET.encode() not in b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


async def test_a_look_waits_for_nobody(root: Path, authority: Authority) -> None:
    gate = threading.Event()

    def hanging(_: Request) -> Iterable[bytes]:
        gate.wait()
        return answer()

    with listening(authority, hanging) as canary:
        async with life(root, authority, hook(canary), hook(canary)) as it:
            await it.see(WARN, WARN, WELL, WELL)
            await until(lambda: canary.hits == 2)
            await it.see(FAIL, FAIL)
            gate.set()
            await it.settled()
        assert [one.json["status"] for one in canary.requests if one.method == "POST"] == ["warn", "pass", "fail"]


async def test_at_level_store_a_message_does_not_wait_for_the_store_that_is_broken(
    root: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.owner, "RECORD_S", 0.02)
    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            it.journal.hold()
            await it.see(WARN, WARN)
            await until(lambda: statuses(canary) == ["warn"])
            before = it.journal.seq
            await until(lambda: it.journal.durable == before + 2)
            assert it.records() == ["owner_told", "owner_reached"]
            assert it.journal.whole(ALERTS).times == ()
            it.journal.confirm(it.journal.durable)
            await it.settled()
            assert len(it.journal.whole(ALERTS).times) == 1


async def test_where_the_log_takes_nothing_the_owner_is_told_all_the_same(
    root: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> Record:
        raise StorageFull("no space left")

    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            monkeypatch.setattr(it.journal, "commit", full)
            await it.see(FAIL, FAIL, FAIL)
            await until(lambda: statuses(canary) == ["fail"])


async def test_ten_messages_a_day_and_the_last_word_is_true(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, hook(canary)) as it:
            for _ in range(LIMIT):
                await it.see(WARN, WARN, WELL, WELL)
                await it.settled()
            await it.see(WARN, WARN)
            assert len(canary.requests) == LIMIT
            assert ["last message until" in one.json["summary"] for one in canary.requests] == [False] * 9 + [True]
            it.clock.advance(DAY_S)
            await it.see(WARN)
            await until(lambda: len(canary.requests) > LIMIT)
            await it.settled()
        assert statuses(canary)[LIMIT:] == ["warn"]


async def test_the_form_is_that_of_the_address(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, hook(canary, "ntfy")) as it:
            await it.see(FAIL, FAIL)
            await it.settled()
    headers = canary.requests[0].headers
    assert (headers["title"], headers["priority"], headers["click"]) == (
        "finn main: fail",
        "urgent",
        "https://finn.example",
    )


# ---------------------------------------------------------------- pings


async def test_a_ping_goes_out_with_each_look_but_for_those_that_fail(root: Path, authority: Authority) -> None:
    with listening(authority) as canary:
        async with life(root, authority, ping=hook(canary)) as it:
            for count, seen in enumerate((WELL, WARN, WARN), 1):
                await it.see(seen)
                await until(lambda count=count: len(canary.requests) == count)  # type: ignore[misc]
            for seen in (FAIL, FAIL, FAIL, WELL):
                await it.see(seen)
                await until(lambda: not it.owner._beat.is_set())
            await until(lambda: len(canary.requests) == 4)
            assert (it.records(), {one.method for one in canary.requests}, canary.hits) == ([], {"GET"}, 4)


async def test_an_address_that_takes_no_ping_is_left_alone_for_a_while(root: Path, authority: Authority) -> None:
    with listening(authority, lambda _: answer(500)) as canary:
        async with life(root, authority, ping=hook(canary)) as it:
            for count in range(1, 4):
                await it.see(WELL)
                await until(lambda count=count: canary.hits == count and it.owner._ping)  # type: ignore[misc]
                await until(lambda count=count: it.owner._ping._breaker.failures == count)  # type: ignore
            assert it.error().startswith("FINN_PING_URL: ")
            canary.answering = well
            await it.see(WELL)
            await until(lambda: not it.owner._beat.is_set())
            assert it.error()
            await it.see(WELL)
            await until(lambda: not it.error())
            assert canary.hits == 4


# ---------------------------------------------------------------- where it does not go (T7)


@pytest.mark.parametrize("addresses", [[PRIVATE], [HERE, PRIVATE], ["::ffff:127.0.0.2"], ["169.254.169.254"]])
async def test_a_name_that_leads_to_no_public_address_is_told_nothing(
    root: Path, authority: Authority, addresses: list[str]
) -> None:
    with Canary(host=PRIVATE, authority=authority, names=["hooks.example"]) as canary:
        async with life(root, authority, hook(canary), hook(canary), resolve=lambda _, __: addresses) as it:
            await it.see(WARN, WARN)
            await until(lambda: "FINN_ALERT_URL" in it.error() and "FINN_PING_URL" in it.error())
            assert "which is no public address" in it.error()
            assert SECRET not in it.error()
        assert canary.hits == 0


async def test_a_name_that_is_bound_anew_between_two_messages_is_judged_anew(root: Path, authority: Authority) -> None:
    with listening(authority) as canary, Canary(host=PRIVATE, port=canary.port) as private:
        where = [HERE]
        async with life(root, authority, hook(canary), resolve=lambda _, __: where) as it:
            await it.see(WARN, WARN)
            await it.settled()
            where[0] = PRIVATE
            await it.see(WELL, WELL)
            await until(it.error)
        assert (len(canary.requests), private.hits) == (1, 0)


async def test_a_webhook_that_redirects_home_is_not_followed(root: Path, authority: Authority) -> None:
    with Canary(host=PRIVATE) as private:
        there = f"Location: https://{PRIVATE}:{private.port}/"
        with listening(authority, lambda _: answer(307, there)) as canary:
            async with life(root, authority, hook(canary)) as it:
                await it.see(WARN, WARN)
                await until(it.error)
        assert (private.hits, canary.hits > 0) == (0, True)


def test_what_is_told_is_known_to_the_fold() -> None:
    assert ALERTS.events == (OwnerTold, OwnerReached)


def test_who_sets_no_address_loads_nothing_of_it() -> None:
    program = "import sys, gateway.app; print([m for m in ('gateway.owner', 'agent.outbound') if m in sys.modules])"
    child = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert (child.stdout, child.stderr) == ("[]\n", "")
