"""A whole finn in the loop of the test, on a store that does what the test says."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent import models
from agent.models import Chosen
from gateway import storage, tasks
from gateway.app import Finn
from gateway.auth import Auth
from gateway.settings import read
from persistence.clock import SystemClock, system_entropy
from persistence.errors import Exists, StoreUnreachable
from persistence.events import OWNER, SessionCreated
from persistence.layout import log_key, manifest_key
from persistence.remote import look
from persistence.store import Store
from persistence.stores.memory import MemoryStore
from scheduler.health import Fact
from tests.persistence.writers import Watched

PATIENCE_S = 20.0


class Living:
    """A finn that lives, without a port."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = read({"FINN_DATA_DIR": str(folder), "FINN_STORE_URL": "file:///nowhere", **environ})
        clock = SystemClock()
        model = models.choose(Chosen(model="builtin"), clock)
        auth = Auth.open(folder / "auth", clock=clock, entropy=system_entropy, token=None)
        self.finn = Finn(settings, model, auth, clock, system_entropy, 8080)
        self.app = self.finn.app(lambda: None, lambda: None)

    @property
    def storage(self) -> storage.Storage:
        assert self.finn._own.storage is not None
        return self.finn._own.storage

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self.finn.failure:
                    raise self.finn.failure
                await asyncio.sleep(0.005)

    async def serving(self) -> None:
        await self.until(lambda: self.finn.state == "serving")

    async def session(self) -> str:
        """A new session."""
        rooms = self.finn.rooms()
        name = rooms.ids.new()
        await rooms.turns.record(SessionCreated(title="new"), name, OWNER)
        return name

    async def say(self, session: str, text: str) -> str:
        """Says something; the answer."""
        turns = self.finn.rooms().turns
        return (await turns.outcome(session, await turns.say(session, text, text, by=OWNER))).reply

    async def saved(self) -> None:
        """Returns when the store has everything."""
        await self.until(lambda: self.storage.tiers(0)[0].state == "saved")

    def facts(self) -> dict[str, Fact]:
        return {fact.name: fact for source in self.finn.sources() for fact in source()}


@asynccontextmanager
async def living(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, *, stop: bool = True, **environ: str
) -> AsyncIterator[Living]:
    """A finn on that store; stopped cleanly at the end, or only cut off."""
    monkeypatch.setattr(storage, "store_of", lambda settings: store)
    it = Living(folder, environ)
    async with it.app.router.lifespan_context(it.app):
        yield it
        if stop:
            await it.finn.drain()


async def test_every_task_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(tmp_path, MemoryStore(), monkeypatch) as it:
        await it.serving()
        await it.say(await it.session(), "help")
        await it.saved()
        scheduler = it.finn.scheduler()
        for run in scheduler.runs:
            await scheduler.attempt(run.task)
        names = ("replicate", "orphans", "snapshot", "health", "stale_beads", "drill", "prune")
        assert {run.task.name: run.last_error for run in scheduler.runs} == dict.fromkeys(names, "")


async def test_a_git_that_was_away_when_a_store_was_taken_that_had_been_set_back_soon_says_that_it_knows_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SETTLE_S", 0.0)
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    store = MemoryStore()
    async with living(tmp_path / "a", store, monkeypatch, FINN_GIT_REMOTE=str(remote)) as it:
        await it.serving()
        session = await it.session()
        await it.saved()
        past = dict(store.objects)
        await it.say(session, "help")
    store.objects = past
    remote.rename(tmp_path / "away.git")
    async with living(
        tmp_path / "b", store, monkeypatch, FINN_GIT_REMOTE=str(remote), FINN_ARCHIVE_INTERVAL="1s"
    ) as it:
        await it.serving()
        assert it.finn.rooms().journal.source == "store"
        assert "could not be compared" in it.finn.rooms().journal.loss
        (tmp_path / "away.git").rename(remote)
        await it.until(lambda: "holds another history" in told(it))


async def test_a_store_that_comes_back_behind_what_git_gave_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    store = Away(SystemClock())
    async with living(tmp_path / "a", store, monkeypatch, FINN_GIT_REMOTE=str(remote)) as it:
        await it.serving()
        session = await it.session()
        await it.saved()
        past = dict(store.objects)
        await it.say(session, "help")
    store.objects, store.away = past, True
    async with living(tmp_path / "b", store, monkeypatch, FINN_GIT_REMOTE=str(remote)) as it:
        await it.serving()
        assert it.finn.rooms().journal.source == "git"
        store.away = False
        await it.saved()
        known = it.finn.rooms().journal.seq
    async with living(tmp_path / "c", store, monkeypatch) as it:
        await it.serving()
        assert it.finn.rooms().journal.source == "store"
        assert it.finn.rooms().journal.seq >= known


def told(it: Living) -> str:
    """What health says of git."""
    return str(it.facts()["git:lastError"].output) if "git:lastError" in it.facts() else ""


class Away(MemoryStore):
    """A store that does not answer for a while."""

    away = False

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        if self.away:
            raise StoreUnreachable("the store is away")
        return super().get(key, first, count)


async def test_what_a_claim_after_the_start_had_to_step_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Away(SystemClock())
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        await it.saved()
    tip = look(store, clock=SystemClock())
    assert tip is not None
    strange = manifest_key(tip.m + 1)
    store.objects[strange] = b"damaged"
    store.away = True
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        assert it.finn.rooms().journal.loss == ""
        store.away = False
        await it.saved()
        assert strange in it.facts()["recovery:source"].output
    assert strange in caplog.text


async def test_what_the_replica_had_to_leave_out_or_step_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        await it.saved()
        assert it.storage._primary is not None and it.storage._primary.replica is not None
        strange = log_key(it.storage._primary.replica.n + 1)
        store.put(strange, b"of nobody")
        await it.session()
        await it.until(lambda: f"{strange} holds what this writer did not write" in caplog.text)


async def test_a_log_that_did_not_grow_is_not_searched_for_garbage_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Watched(MemoryStore())
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        await it.saved()
        assert it.storage._primary is not None
        await it.storage._primary.collect()
        assert ("list", "log/") in store.calls
        store.calls.clear()
        await it.storage._primary.collect()
        assert [key for call, key in store.calls if call != "get"] == []


async def test_a_clean_stop_leaves_everything_in_the_store_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    async with living(tmp_path / "one", store, monkeypatch) as it:
        await it.serving()
        session = await it.session()
        await it.say(session, "remember that the code is 4711")
        seq = it.finn.rooms().journal.seq
    async with living(tmp_path / "two", store, monkeypatch) as it:
        await it.serving()
        journal = it.finn.rooms().journal
        assert (journal.source, journal.seq >= seq, journal.epoch) == ("store", True, 2)
        assert await it.say(session, "what do you remember about code") != ""


async def test_a_takeover_takes_five_requests_besides_what_is_new_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Watched(MemoryStore())
    async with living(tmp_path / "one", store, monkeypatch) as one:
        await one.serving()
        await one.saved()
        async with living(tmp_path / "two", store, monkeypatch) as two:
            await two.serving()
            one.storage.hurry()
            await one.until(lambda: one.finn.state == "fenced")
            await two.say(await two.session(), "help")
            await two.saved()
            seq = two.finn.rooms().journal.seq
        await one.serving()
        looked = max(index for index, call in enumerate(store.calls) if call == ("get", "manifest/HINT"))
        asked = [call for call in store.calls[looked:] if not call[1].startswith(("seg/", "snap/"))]
        assert [call for call, _ in asked[:5]] == ["get", "get", "get", "create", "create"]
        assert asked[4][1].startswith("log/")
        assert one.finn.rooms().journal.seq >= seq


async def test_a_store_that_hangs_for_ever_holds_up_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never, hangs = threading.Event(), threading.Event()

    def before(call: str, key: str) -> None:
        if hangs.is_set():
            never.wait()

    store = Watched(MemoryStore(), before=before)
    async with living(tmp_path, store, monkeypatch, FINN_SHUTDOWN_BUDGET="1s") as it:
        await it.serving()
        await it.saved()
        hangs.set()
        await it.say(await it.session(), "help")
    assert it.finn.state == "draining"
    never.set()


async def test_a_store_that_is_away_at_the_start_is_claimed_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()

    def before(call: str, key: str) -> None:
        if away.is_set():
            raise StoreUnreachable("the store is away")

    store = Watched(MemoryStore(), before=before)
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        session = await it.session()
    away.set()
    async with living(tmp_path, store, monkeypatch) as it:
        await it.serving()
        await it.say(session, "help")
        epoch, tier = it.finn.rooms().journal.epoch, it.storage.tiers(0)[0]
        assert (tier.last_seq, tier.state) == (None, "failing")
        assert it.facts()["store:lastError"].output == "the store is away"
        away.clear()
        await it.saved()
        assert it.finn.rooms().journal.epoch > epoch
        assert "store:lastError" not in it.facts()


class Careless(MemoryStore):
    """It takes the condition, ignores it, and says that all is well."""

    def create(self, key: str, data: bytes) -> None:
        try:
            super().create(key, data)
        except Exists:
            self.put(key, data)


async def test_a_store_that_ignores_conditions_is_said_and_nothing_is_overwritten_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Careless()
    async with living(tmp_path / "one", store, monkeypatch) as it:
        await it.serving()
        assert "two instances at once" in it.facts()["store:unfenced"].output
        session = await it.session()
        await it.say(session, "remember that the code is 4711")
        epoch = it.finn.rooms().journal.epoch
    kept = dict(store.objects)
    async with living(tmp_path / "two", store, monkeypatch) as it:
        await it.serving()
        journal = it.finn.rooms().journal
        assert (journal.source, journal.epoch > epoch) == ("store", True)
        epoch = journal.epoch
        await it.say(session, "help")
        await it.saved()
    assert {key: data for key, data in store.objects.items() if key in kept} == kept
    assert {key.split("/")[0] for key in store.objects} == {"unfenced"}
    async with living(tmp_path / "three", store, monkeypatch) as it:
        await it.serving()
        assert it.finn.rooms().journal.epoch > epoch


async def test_a_writers_past_that_cannot_be_used_is_said_where_nobody_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Careless()
    async with living(tmp_path / "one", store, monkeypatch) as it:
        await it.serving()
        await it.saved()
    store.objects.update({key: b"damaged" for key in store.objects if "/manifest/" in key})
    async with living(tmp_path / "two", store, monkeypatch) as it:
        await it.serving()
        assert "cannot be used" in it.finn.rooms().journal.loss


async def test_at_level_store_what_was_not_confirmed_is_seen_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()

    def before(call: str, key: str) -> None:
        if away.is_set():
            raise StoreUnreachable("the store is away")

    store = Watched(MemoryStore(), before=before)
    async with living(tmp_path, store, monkeypatch, FINN_DURABILITY="store", FINN_SHUTDOWN_BUDGET="1s") as it:
        await it.serving()
        session = await it.session()
        away.set()
        saying = asyncio.create_task(it.say(session, "help"))
        journal = it.finn.rooms().journal
        await it.until(lambda: journal.durable > journal.seq)
        assert not saying.done()
        away.clear()
        assert await saying


def test_without_a_store_none_of_it_is_loaded_and_no_thread_is_made() -> None:
    program = """
import asyncio, sys, threading, tempfile
from pathlib import Path
from agent import models
from agent.models import Chosen
from gateway.app import Finn
from gateway.auth import Auth
from gateway.settings import read
from persistence.clock import SystemClock, system_entropy
async def main(folder):
    clock = SystemClock()
    settings = read({"FINN_DATA_DIR": folder})
    auth = Auth.open(Path(folder) / "auth", clock=clock, entropy=system_entropy, token=None)
    finn = Finn(settings, models.choose(Chosen(model="builtin"), clock), auth, clock, system_entropy, 8080)
    app = finn.app(lambda: None, lambda: None)
    async with app.router.lifespan_context(app):
        while finn.state != "serving":
            assert not finn.failure, finn.failure
            await asyncio.sleep(0.01)
        names = {thread.name for thread in threading.enumerate() if thread.name.startswith(("finn-", "store-"))}
        print(*(names - {"finn-look"}))
        await finn.drain()
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
later = {"gateway.storage", "persistence.cascade", "persistence.stores", "persistence.archive", "boto3", "git"}
print(*sorted(later & set(sys.modules)))
"""
    child = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (child.stdout, child.stderr) == ("\n\n", "")
