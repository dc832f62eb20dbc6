"""`finn verify`: what the local log and, with --store, the replica prove of themselves.

data directory ─▶ every checksum and the chain ┐
store ──────────▶ everything that is kept ─────┴▶ ok, or each fault as a sentence       reads only, takes no lock
"""

from collections.abc import Iterator
from dataclasses import asdict

from gateway.settings import Settings
from gateway.sources import store_of
from persistence.audit import audit
from persistence.clock import SystemClock
from persistence.disk import SystemDisk
from persistence.errors import StorageFailed, UsageError
from persistence.events import Json
from persistence.recovery import Verdict
from persistence.recovery import verify as verify_log

NOTHING = Verdict(ok=True, last_seq=0, first_bad_seq=None, gaps=(), damage=())


def verify(settings: Settings, *, store: bool) -> dict[str, Json]:
    """The answer for programs. With `store` there may be no log here. Raises UsageError, StoreError."""
    wal = settings.data_dir / "wal"
    if not wal.is_dir() and not store:
        raise StorageFailed(f"there is no log in {wal}", hint="say --data-dir, or start finn once")
    verdict = verify_log(SystemDisk(), wal) if wal.is_dir() else NOTHING
    found: dict[str, Json] = {
        "ok": verdict.ok,
        "last_seq": verdict.last_seq,
        "first_bad_seq": verdict.first_bad_seq,
        "gaps": [{"from": first, "to": last} for first, last in verdict.gaps],
        "damage": list(verdict.damage),
    }
    if store:
        found["store"] = _store(settings)
        found["ok"] = verdict.ok and found["store"]["ok"]
    return found


def _store(settings: Settings) -> dict[str, Json]:
    store = store_of(settings)
    if store is None:
        raise UsageError("no store is set", hint="set FINN_STORE_URL, or leave --store away")
    try:
        return {"url": store.url, **asdict(audit(store, clock=SystemClock()))}
    finally:
        store.close()


def told(found: dict[str, Json]) -> Iterator[str]:
    """The answer for people, line by line."""
    store = found.get("store")
    yield f"{_word(not found['damage'])}: {found['last_seq']} records{' here' if store else ''}"
    yield from (f"  {sentence}" for sentence in found["damage"])
    yield from (f"  records {gap['from']} to {gap['to']} are a declared gap" for gap in found["gaps"])
    if store:
        size = f"{store['objects']} objects, {store['bytes'] / (1 << 20):.1f} MB"
        what = f"{store['last_seq']} records in {size}" if store["manifest"] else "nothing yet"
        yield f"{_word(store['ok'])}: {what} in {store['url']}"
        yield from (f"  {sentence}" for sentence in store["problems"])


def _word(ok: bool) -> str:
    return "ok" if ok else "DAMAGED"
