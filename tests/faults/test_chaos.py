"""For each thing that can break: it is broken under a real process, health says so within two looks, and well again.

    CASES   what is broken and mended under one running finn, which has a store, a git remote, a model behind HTTP and,
            for root, a disk of its own
    rest    what needs a start or an end: another writer, a start, a stop, what is wrong from the start

A look is a run of the health task. Each `breaks` and `mends` returns when finn has met what was done to it, so that
nothing here waits for a while.
"""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scheduler.health import BY_NAME, rule_of
from tests.end_to_end.bucket import Bucket, ready, saved, tier
from tests.end_to_end.finn import ECHO, Answer, Finn, finn, until
from tests.end_to_end.machines import Remote
from tests.end_to_end.test_versions import append, future
from tests.fault_proxy import Fault
from tests.model_server import ModelServer, Step
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

DISK_MIB, LITTLE_MIB, NONE_MIB = 1024, 192, 32  #: of a disk of its own: as it is, with little left, with nearly none
LARGE = 2_000_000
KEY = "sk-canary-of-the-chaos-0123456789"
WELL: list[Step] = [{"text": "well"}]
WRITE = [{"tool": "write", "args": {"path": "note", "content": "x"}}]  # after it the files are looked at


class Model:
    """A model provider in a thread of its own, which says whatever it is told to say from now on."""

    def __init__(self) -> None:
        self._server = ModelServer([WELL])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._server.start(0))

    def says(self, *answers: list[Step]) -> None:
        """One after the other, the last of them for ever."""
        self._server.requests.clear()
        self._server.script = [*answers]

    @property
    def asked(self) -> int:
        return len(self._server.requests)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "FINN_MODEL": "openai:test",
            "FINN_MODEL_BASE_URL": self._server.url("openai"),
            "OPENAI_API_KEY": KEY,
        }

    def close(self) -> None:
        self._run(self._server.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, step: Any) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(20)


@dataclass
class World:
    """A finn, and everything that it leans on."""

    bucket: Bucket
    it: Finn
    model: Model
    remote: Remote
    disk: Path | None
    kept: dict[str, Any] = field(default_factory=dict)  #: what a mending needs to know of the breaking

    # ------------------------------------------------------------ what is said

    def health(self) -> Answer:
        return self.it.ask("GET", "/health")

    def check(self, fact: str) -> Any:
        """What health says of a fact; a fact that is absent is well."""
        return self.health().json["checks"].get(fact, [{"status": "pass", "observedValue": None}])[0]

    def unwell(self) -> dict[str, str]:
        """Everything that is not well, with what is said of it."""
        checks = self.health().json["checks"].items()
        return {name: one.get("output", "") for name, (one,) in checks if one["status"] != "pass"}

    def bead(self) -> str:
        """What the agent's own bead says of its health."""
        beads = self.it.ask("GET", "/api/beads?all=true&limit=0").json
        labels = [label for bead in beads if bead.get("external_ref") == "finn:agent" for label in bead["labels"]]
        return next((label for label in labels if label.startswith("health:")), "")

    # ------------------------------------------------------------ what is done

    def run(self, task: str) -> Any:
        """A task, run by hand as soon as it does not run by itself."""

        def answered() -> bool:
            self.kept["ran"] = self.it.ask("POST", f"/api/tasks/{task}/run")
            return bool(self.kept["ran"].status != 409)

        until(answered)
        assert self.kept["ran"].status == 200, self.kept["ran"]
        return self.kept["ran"].json

    def look_twice(self) -> None:
        for _ in range(2):
            assert self.run("health")["last_error"] is None

    def write(self) -> Answer:
        """Something that the log has to take."""
        return self.it.ask("POST", "/api/sessions", {"title": "x"})

    def turn(self) -> None:
        """A prompt, and the end of its turn."""
        self.it.say(self.it.new_session(), "hello")


# ---------------------------------------------------------------- the store


def lose_store(world: World) -> None:
    world.bucket.proxy().away = True
    world.write()
    until(lambda: tier(world.it)["error"])


def refuse_keys(world: World) -> None:
    world.bucket.proxy().add(Fault("status", status=403, code="InvalidAccessKeyId", times=None))
    world.write()
    until(lambda: tier(world.it)["error"])


def hang_store(world: World) -> None:
    world.bucket.proxy().add(Fault("blackhole", times=None))
    world.write()
    assert "did not end" in world.run("replicate")["last_error"]


def find_store(world: World) -> None:
    world.bucket.proxy().clear()
    world.bucket.proxy().cut()
    saved(world.it)
    assert world.run("replicate")["last_error"] is None


# ---------------------------------------------------------------- git


def lose_remote(world: World) -> None:
    world.remote.folder.rename(world.remote.folder.with_name("away.git"))
    world.write()
    assert world.run("archive")["last_error"]


def find_remote(world: World) -> None:
    world.remote.folder.with_name("away.git").rename(world.remote.folder)
    assert world.run("archive")["last_error"] is None


# ---------------------------------------------------------------- the disk and the folders


def shrink(world: World, left_mib: int) -> None:
    """The disk has so much left."""
    if world.disk is None:
        pytest.skip("only root can give finn a disk of its own")
    there = os.statvfs(world.disk)
    used = (there.f_blocks - there.f_bfree) * there.f_frsize >> 20
    remount(world.disk, used + left_mib)


def enlarge(world: World) -> None:
    assert world.disk is not None
    remount(world.disk, DISK_MIB)


def refuse_writes(world: World) -> None:
    """No file of the process may grow beyond what the log has already."""
    size = max(path.stat().st_size for path in (world.it.data / "wal").glob("*.wal"))
    _, hard = resource.prlimit(world.it.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(world.it.pid, resource.RLIMIT_FSIZE, (size, hard))
    assert world.write().code == "storage_full"


def allow_writes(world: World) -> None:
    """Nobody writes anything: the log itself notices."""
    _, hard = resource.prlimit(world.it.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(world.it.pid, resource.RLIMIT_FSIZE, (hard, hard))
    until(lambda: world.check("wal:error")["status"] == "pass")


def take_away(world: World, name: str) -> None:
    path = world.it.data / name
    path.rename(path.with_name("taken"))


def put_back(world: World, name: str) -> None:
    path = world.it.data / name
    path.with_name("taken").rename(path)


def replace_lock(world: World) -> None:
    take_away(world, "wal/LOCK")
    (world.it.data / "wal" / "LOCK").touch()


# ---------------------------------------------------------------- what the agent is made of


def empty_identity(world: World) -> None:
    path = world.it.data / "grimoires" / "BEAUVOIR.md"
    world.kept["identity"] = path.read_bytes()
    path.write_bytes(b"")


def mend_identity(world: World) -> None:
    (world.it.data / "grimoires" / "BEAUVOIR.md").write_bytes(world.kept["identity"])


def refuse_key(world: World) -> None:
    world.model.says([{"status": 401, "message": f"wrong key {KEY}", "code": "invalid_api_key"}])
    world.turn()
    assert "the provider does not accept the key" in world.check("model:state")["output"]
    assert KEY not in str(world.health().json)


def overload(world: World) -> None:
    """The first attempt fails; the next one comes in two seconds."""
    world.model.says([{"status": 429, "message": "slow down", "headers": {"retry-after": "1"}}], WELL)
    session = world.kept["session"] = world.it.new_session()
    world.it.ask("POST", f"/api/sessions/{session}/messages", {"text": "hello"})
    until(lambda: world.check("model:state")["status"] == "warn")


def answer_late(world: World) -> None:
    world.it.idle(world.kept["session"])
    assert world.model.asked == 2


def answer_again(world: World) -> None:
    world.model.says(WELL)
    world.turn()


def leave_out(world: World) -> None:
    (world.it.data / "workspace" / "large").write_bytes(bytes(LARGE))
    world.model.says(WRITE, WELL)
    world.turn()


def take_in(world: World) -> None:
    (world.it.data / "workspace" / "large").unlink()
    world.model.says(WRITE, WELL)
    world.turn()


# ---------------------------------------------------------------- beads


def lie_still(world: World) -> None:
    world.kept["bead"] = world.it.ask("POST", "/api/beads", {"title": "work", "status": "in_progress"}).json["id"]
    until(lambda: world.run("stale_beads") and world.check("beads:stale")["observedValue"])


def finish(world: World) -> None:
    assert world.it.ask("PATCH", f"/api/beads/{world.kept['bead']}", {"status": "closed"}).status == 200


def bead_file(world: World) -> Path:
    return world.it.data / "state" / ".beads" / "issues.jsonl"


def break_beads(world: World) -> None:
    """Half a merge, by hand."""
    until(bead_file(world).exists)
    bead_file(world).write_text(bead_file(world).read_text() + "<<<<<<< HEAD\n")
    world.it.ask("GET", "/api/beads")  # it is looked at before


def mend_beads(world: World) -> None:
    """As finn itself has written it meanwhile, with one more touch."""
    until(lambda: "<<<<" not in bead_file(world).read_text())
    bead_file(world).write_text(bead_file(world).read_text() + "\n")
    world.it.ask("GET", "/api/beads")


# ---------------------------------------------------------------- another writer


def be_taken_over(world: World) -> None:
    world.kept["two"] = world.bucket.finn("two")
    world.write()
    until(lambda: ready(world.it) == "fenced")


def take_over(world: World) -> None:
    assert world.kept["two"].stop() == 0
    until(lambda: ready(world.it) == "ok")
    saved(world.it)


# ---------------------------------------------------------------- the table

Done = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """What is broken and mended, and the fact that tells of it. `mute`: the bead cannot be told meanwhile."""

    name: str
    fact: str
    breaks: Done
    mends: Done
    status: str = "warn"
    mute: bool = False


CASES: tuple[Case, ...] = (
    Case("a store that is away", "store:lastError", lose_store, find_store),
    Case("a store that refuses the keys", "store:lastError", refuse_keys, find_store),
    Case("a task that hangs", "task:replicate", hang_store, find_store),
    Case("a git remote that is gone", "git:lastError", lose_remote, find_remote),
    Case("an archive that fails", "task:archive", lose_remote, find_remote),
    Case("a disk with little left", "disk:free", lambda world: shrink(world, LITTLE_MIB), enlarge),
    Case("a disk with nearly nothing left", "disk:free", lambda world: shrink(world, NONE_MIB), enlarge, "fail"),
    Case("a log that takes nothing", "wal:error", refuse_writes, allow_writes, "fail", mute=True),
    Case(
        "a log that is moved away",
        "dirs:wal",
        lambda world: take_away(world, "wal"),
        lambda world: put_back(world, "wal"),
        "fail",
    ),
    Case("a lock that is replaced", "dirs:lock", replace_lock, lambda world: put_back(world, "wal/LOCK")),
    Case(
        "a run.json that is gone",
        "dirs:run",
        lambda world: take_away(world, "run.json"),
        lambda world: put_back(world, "run.json"),
    ),
    Case("an identity that is empty", "identity:checksum", empty_identity, mend_identity),
    Case("a model that refuses the key", "model:state", refuse_key, answer_again),
    Case("a model that is overloaded", "model:state", overload, answer_late, mute=True),
    Case("a file that is too large to keep", "files:leftOut", leave_out, take_in),
    Case("a bead that lies still", "beads:stale", lie_still, finish),
    Case("a file of beads that is broken by hand", "beads:file", break_beads, mend_beads),
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("chaos")
    bucket, model, remote = Bucket(folder, server), Model(), Remote(folder)
    settings = {
        **model.settings,
        **remote.settings,
        "FINN_SYNC_INTERVAL": "5s",
        "FINN_SHUTDOWN_BUDGET": "3s",
        "FINN_STALE_BEADS_AFTER": "1s",
        "FINN_WORKSPACE_FILE_MAX": f"{LARGE // 2}",
    }
    it = bucket.made("one", **settings)
    with own_disk(it.data) as disk:
        try:
            it.start()
            yield World(bucket, it, model, remote, disk)
        finally:
            bucket.close()
            model.close()


@contextmanager
def own_disk(path: Path) -> Iterator[Path | None]:
    """A disk of its own at that path, for root; None for everybody else."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def remount(disk: Path, size_mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_mib}m", str(disk)], check=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_health_says_what_is_broken_within_two_looks_and_that_it_is_well_again(world: World, case: Case) -> None:
    until(lambda: world.unwell() == {}, f"it was not well before: {world.unwell()}")
    case.breaks(world)
    world.look_twice()
    check = world.check(case.fact)
    assert (check["status"], bool(check["output"])) == (case.status, True), world.unwell()
    answer = world.health()
    assert (answer.json["status"], answer.status) == (case.status, 503 if case.status == "fail" else 200)
    assert case.mute or world.bead() == "health:degraded"
    case.mends(world)
    world.look_twice()
    assert world.unwell() == {}
    assert (world.health().json["status"], world.health().status) == ("pass", 200)
    assert world.bead() == "health:ok"


def test_every_fact_that_a_running_finn_tells_is_in_the_table(world: World) -> None:
    told = world.health().json["checks"]
    assert [name for name in told if rule_of(name).name not in BY_NAME] == []
    assert {"store:lagSeconds", "git:lagSeconds", "disk:free", "task:archive", "model:state"} <= told.keys()


# ---------------------------------------------------------------- another writer, a start, a stop


def test_whoever_is_fenced_says_so_and_is_well_again_when_it_takes_over(world: World) -> None:
    saved(world.it)
    be_taken_over(world)
    assert (world.check("gateway:state")["observedValue"], world.health().json["status"]) == ("fenced", "warn")
    assert world.health().status == 200
    take_over(world)
    world.look_twice()
    assert world.unwell() == {}


def test_a_start_says_that_it_is_one(world: World) -> None:
    it, proxy = world.it, world.bucket.proxy()
    saved(it)
    it.kill()
    proxy.add(Fault("blackhole", times=None))
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(it.start)
        until(lambda: answers(it) and world.health().json["status"] == "warn")
        said = world.health().json
        assert said.get("output") == "finn is starting" or "starting" in str(said["checks"]["gateway:state"])
        proxy.clear()
        proxy.cut()
        starting.result()
    saved(it)
    world.look_twice()
    assert world.unwell() == {}


def answers(it: Finn) -> bool:
    try:
        return it.ask("GET", "/livez", bearer=False).status == 200
    except OSError:
        return False


def test_a_stop_says_that_it_is_one_and_the_next_start_is_well(world: World) -> None:
    it, proxy = world.it, world.bucket.proxy()
    proxy.add(Fault("blackhole", times=None))
    world.write()
    it.send_signal(signal.SIGTERM)
    until(lambda: world.check("gateway:state")["observedValue"] == "draining")
    assert (world.health().json["status"], ready(it)) == ("warn", "draining")
    proxy.clear()
    proxy.cut()
    assert it.wait() == 0
    it.start()
    saved(it)
    world.look_twice()
    assert world.unwell() == {}


# ---------------------------------------------------------------- what is so from the start


def test_what_is_wrong_from_the_start_is_said_until_a_start_without_it(tmp_path: Path) -> None:
    odd = {"FINN_SOMETHING_ELSE": "1", "FINN_SANDBOX": "landlock"}
    with finn(tmp_path, [ECHO], **odd) as it:
        said = unwell(it)
        assert said.keys() == {"settings:problems", "sandbox:rung"}
        assert "FINN_SOMETHING_ELSE" in said["settings:problems"]
        it.say(it.new_session(), "one")
    with finn(tmp_path, [ECHO]) as it:
        assert unwell(it) == {}
        session = it.new_session()
        for text in ("one", "two", "three"):
            it.say(session, text)
        it.kill()
        shutil.copytree(it.data / "wal", tmp_path / "sound")
        append(it, *future(session))
        damage(it, b'"three"')
        it.start()
        said = unwell(it)
        assert said.keys() == {"wal:held", "recovery:source"}
        assert "finn verify" in said["recovery:source"]
        it.kill()
        for name in ("wal", "snapshots"):
            shutil.rmtree(it.data / name, ignore_errors=True)
        shutil.copytree(tmp_path / "sound", it.data / "wal")
        it.start()
        assert unwell(it) == {}


def unwell(it: Finn) -> dict[str, str]:
    checks = it.ask("GET", "/health").json["checks"].items()
    return {name: one["output"] for name, (one,) in checks if one["status"] != "pass"}


def damage(it: Finn, text: bytes) -> None:
    """Changes a few bytes in the middle of the log."""
    (path,) = (it.data / "wal").glob("*.wal")
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, b"#" * len(text), 1))
