"""A store that does not hold what it should, each time in one way: a folder that a finn filled, and what befell it."""

import json
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.clock import SystemClock
from persistence.disk import SystemDisk
from persistence.errors import StoreRefused, UsageError
from persistence.layout import encode_manifest, manifest_key
from persistence.quarantine import keep
from persistence.remote import look
from persistence.standby import Mark, mark, marked
from persistence.store import Below, Found, Store
from persistence.stores import open_store
from tests.persistence.faulty_store import FaultyStore
from tests.scheduler.test_checks_git import say
from tests.scheduler.ward import Ward, new_ward

WRITER = "01ARZ3NDEKTSV4RRFFQ69G5WRT"


@pytest.fixture
def ward() -> Ward:
    return new_ward(store=True)


def store_of(ward: Ward) -> Store:
    """The ward's store, at this agent's prefix."""
    return Below(open_store(ward.environ["FINN_STORE_URL"]), "main")


def unsound(ward: Ward) -> list[str]:
    """What a person should do something about, and did not have to before."""
    found = ward.examine().values()
    return [
        one.id for one in found if one.severity in ("warn", "fail") and ward.healthy[one.id].severity != one.severity
    ]


def claimed(ward: Ward, **changes: object) -> None:
    """Another writer's manifest after the newest."""
    store = store_of(ward)
    tip = look(store, clock=SystemClock())
    assert tip is not None
    m = tip.manifest.m + 1
    more = {"m": m, "previous": tip.manifest.self_sha256, "writer": WRITER, "released": False, **changes}
    store.create(manifest_key(m), encode_manifest(replace(tip.manifest, **more))[1])  # type: ignore[arg-type]


class Odd:
    """A store in which one call of each kind does something else."""

    def __init__(self, store: Store, error: Exception | None = None, gate: threading.Event | None = None) -> None:
        self._store, self._error, self._gate = store, error, gate

    @property
    def url(self) -> str:
        return self._store.url

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        if self._gate is not None:
            self._gate.wait()
        if self._error is not None:
            raise self._error
        return self._store.get(key, first, count)

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        return self._store.list(prefix, after)

    def create(self, key: str, data: bytes) -> None:
        raise AssertionError("the doctor writes nothing")

    def put(self, key: str, data: bytes) -> None:
        raise AssertionError("the doctor writes nothing")

    def delete(self, key: str) -> None:
        raise AssertionError("the doctor deletes nothing")

    def close(self) -> None:
        self._store.close()


def test_store_configured() -> None:
    finding = new_ward().examine()["store.configured"]
    assert (finding.severity, "on this disk alone" in finding.detail) == ("info", True)
    assert "FINN_STORE_URL" in finding.remediation


def test_a_store_that_is_well_is_told_so_and_nothing_is_written_there(ward: Ward) -> None:
    ward.changed["store"] = lambda: Odd(store_of(ward))
    found = {name: one.severity for name, one in ward.examine().items() if name.startswith("store.")}
    assert set(found.values()) == {"pass"}


def test_store_answers(ward: Ward) -> None:
    down = FaultyStore(store_of(ward), random.Random(1))
    down.down = True
    ward.changed["store"] = lambda: down
    assert unsound(ward) == ["store.answers"]
    assert "does not answer" in ward.examine()["store.answers"].detail


def test_a_store_that_is_silent_is_waited_for_so_long_and_no_longer(ward: Ward) -> None:
    gate = threading.Event()
    ward.changed |= {"store": lambda: Odd(store_of(ward), gate=gate), "limit_s": 0.05}
    assert unsound(ward) == ["store.answers"]
    assert "no answer within 0.05 s" in ward.examine()["store.answers"].detail
    gate.set()


def test_without_a_network_the_store_is_not_asked(ward: Ward) -> None:
    def opened() -> Store:
        raise AssertionError("asked")

    ward.changed |= {"store": opened, "network": False}
    assert unsound(ward) == []
    assert ward.examine()["store.answers"].severity == "info"


def test_store_credentials(ward: Ward) -> None:
    refusal = StoreRefused("the bucket answers 403 to this key", hint="give it s3:GetObject")
    ward.changed["store"] = lambda: Odd(store_of(ward), refusal)
    assert unsound(ward) == ["store.credentials"]
    assert ward.examine()["store.credentials"].severity == "fail"


def test_a_folder_that_refuses_is_not_mended_by_a_key() -> None:
    ward = new_ward(store=True)
    folder = Path(ward.environ["FINN_STORE_URL"].removeprefix("file://"))
    shutil.rmtree(folder)
    folder.write_text("in the way")
    told = ward.examine()["store.credentials"].remediation
    assert "link or file" in told and "AWS" not in told


def test_a_store_that_cannot_even_be_opened_is_a_finding(ward: Ward) -> None:
    def opened() -> Store:
        raise UsageError("no such scheme", hint="s3:// or file://")

    ward.changed["store"] = opened
    assert unsound(ward) == ["store.answers"]


def test_store_conditions(ward: Ward) -> None:
    claimed(ward, conditional=False)
    assert unsound(ward) == ["store.conditions"]


def test_store_history(ward: Ward, tmp_path: Path) -> None:
    other = new_ward()
    kept = tmp_path / "other"
    other.root.rename(kept)
    ward = new_ward(store=True)
    for name in ("wal", "snapshots", "chunks", "blobs"):
        (ward.root / name).rename(tmp_path / name)
        (kept / name).rename(ward.root / name)
    finding = ward.examine()["store.history"]
    assert (finding.severity, finding.data["relation"], finding.data["common"]) == ("fail", "unrelated", 0)
    assert "FINN_AGENT_ID" in finding.remediation


def test_a_store_that_is_further_is_told_with_figures(ward: Ward, tmp_path: Path) -> None:
    """The disk was set back to an earlier day: its log ends within what the store has."""
    segment = max((ward.root / "wal").glob("*.wal"))
    lines = segment.read_bytes().splitlines(keepends=True)
    records = [n for n, line in enumerate(lines) if b'{"seq":' in line]
    segment.write_bytes(b"".join(lines[: records[-3]]))
    for snapshot in (ward.root / "snapshots").iterdir():
        snapshot.unlink()
    finding = ward.examine()["store.history"]
    assert (finding.severity, finding.data["relation"]) == ("warn", "behind")
    assert finding.data["there"] > finding.data["here"] == finding.data["common"]


def test_store_epoch(ward: Ward) -> None:
    claimed(ward, epoch=7)
    assert unsound(ward) == ["store.epoch"]
    finding = ward.examine()["store.epoch"]
    assert (finding.data["there"], finding.data["writer"]) == (7, WRITER)
    assert "may be writing now" in finding.detail


def test_store_lag(ward: Ward) -> None:
    say(ward, "drill")

    class Later(SystemClock):
        def now(self) -> float:
            return super().now() + 100.0

    assert ward.examine()["store.lag"].severity == "pass"  # it is young
    ward.changed["clock"] = Later()
    finding = ward.examine()["store.lag"]
    assert (finding.severity, finding.data["records"]) == ("warn", 1)
    assert 100 <= finding.data["seconds"] < 200


def test_store_proof(ward: Ward) -> None:
    tip = look(store_of(ward), clock=SystemClock())
    assert tip is not None and tip.manifest.snap is not None
    store_of(ward).put(tip.manifest.snap.key, b"something else")
    assert unsound(ward) == ["store.proof"]
    assert tip.manifest.snap.key in ward.examine()["store.proof"].detail


def test_manifests_that_are_all_damaged_are_a_fault_of_what_the_store_holds(ward: Ward) -> None:
    store = store_of(ward)
    for one in list(store.list("manifest/")):
        store.put(one.key, b"{}")
    assert unsound(ward) == ["store.proof"]


def test_store_orphans(ward: Ward) -> None:
    store_of(ward).put(f"orphans/1-{WRITER}/{9:016d}.wal", b"x")
    finding = ward.examine()["store.orphans"]
    assert (finding.severity, finding.data["found"]) == ("info", [f"orphans/1-{WRITER}/{9:016d}.wal"])
    store_of(ward).put("orphans/what-is-this", b"x")
    assert ward.examine()["store.orphans"].severity == "warn"


def test_store_fence_left(ward: Ward) -> None:
    name = f"orphans-1-{WRITER}-{9:016d}.wal"
    keep(SystemDisk(), ward.root / "quarantine", name, b"frames", why="acknowledged after a fence")
    assert ward.examine()["store.fence_left"].data["found"] == [name]
    assert ward.examine()["store.fence_left"].severity == "warn"
    store_of(ward).put(f"orphans/1-{WRITER}/{9:016d}.wal", b"x")
    assert ward.examine()["store.fence_left"].severity == "pass"


def test_store_standby_mark(ward: Ward) -> None:
    mark(SystemDisk(), ward.root, Mark("1.0", 1, WRITER))
    assert "nobody in the store is later" in ward.broken("store.standby_mark").detail
    ward.cured("store.standby_mark")
    assert marked(SystemDisk(), ward.root) is None


def test_a_mark_that_holds_or_of_which_nobody_knows_stays(ward: Ward) -> None:
    mark(SystemDisk(), ward.root, Mark("1.0", 1, WRITER))
    claimed(ward, epoch=7)
    finding = ward.examine()["store.standby_mark"]
    assert (finding.severity, finding.fixability) == ("info", "notfixable")
    down = FaultyStore(store_of(ward), random.Random(1))
    down.down = True
    ward.changed["store"] = lambda: down
    assert ward.examine()["store.standby_mark"].severity == "info"
    assert ward.fix("store.standby_mark").applied == ()


def test_a_mark_that_cannot_be_read_goes(ward: Ward) -> None:
    (ward.root / "fenced.json").write_text(json.dumps({"epoch": "?"}))
    (ward.root / "fenced.json").chmod(0o600)
    ward.cured("store.standby_mark")
