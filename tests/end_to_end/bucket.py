"""A bucket and whoever works on it: real processes, each behind a fault proxy of its own, before one real S3 server.

    finn "one" ─▶ proxy of one ─┐
    finn "two" ─▶ proxy of two ─┴▶ moto          bucket.frames(), bucket.objects(): what really lies there

What a finn says of its copies is asked with the functions below; what the bucket holds is read past every proxy.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from persistence.clock import SystemClock
from persistence.codec import named_blobs
from persistence.disk import SystemDisk
from persistence.errors import NotFound
from persistence.frame import PREFIX_BYTES
from persistence.layout import blob_key
from persistence.remote import Tip, look
from persistence.runs import Runs
from persistence.store import Below, Store
from persistence.stores import open_store
from tests.end_to_end.finn import ECHO, Finn, made, until
from tests.fault_proxy import FaultProxy, Request
from tests.s3_server import KEY_ID, SECRET, S3Server

AGENT = "main"
TOKEN = "0123456789abcdef" * 4
RUN_BYTES = 1 << 30
ENDLESS = 1 << 62


class Bucket:
    """A new bucket on a running server. `close` ends every process that was made here."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder
        self.name = server.bucket()
        self.proxies: dict[str, FaultProxy] = {}
        self.store: Store = Below(open_store(f"s3://{self.name}/agents", server.access()), AGENT)
        self._server = server
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    # ------------------------------------------------------------ processes

    def finn(self, name: str = "one", replies: Sequence[object] = (ECHO,), **settings: str) -> Finn:
        """A finn that is started already, on a directory of its own."""
        it = self.made(name, replies, **settings)
        it.start()
        return it

    def made(self, name: str = "one", replies: Sequence[object] = (ECHO,), **settings: str) -> Finn:
        it = made(self.folder / name, replies, {**self._settings(name), "FINN_TOKEN": TOKEN, **settings})
        self._stack.callback(it.kill)
        return it

    def proxy(self, name: str = "one") -> FaultProxy:
        """What stands between that finn and the bucket."""
        if name not in self.proxies:
            self.proxies[name] = self._stack.enter_context(FaultProxy(self._server.port))
        return self.proxies[name]

    def _settings(self, name: str) -> dict[str, str]:
        return {
            "FINN_STORE_URL": f"s3://{self.name}/agents",
            "AWS_ENDPOINT_URL_S3": self.proxy(name).endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    # ------------------------------------------------------------ what lies there

    def tip(self) -> Tip:
        """The end of the log."""
        return tip_of(self.store)

    def frames(self) -> bytes:
        """The log, as far as the snapshot does not sum it up: every record's frame, in order."""
        return frames_of(self.store)

    def objects(self) -> dict[str, bytes]:
        """Every object by its name."""
        return {one.key: self.store.get(one.key) for one in self.store.list("")}

    def has(self, it: Finn) -> bool:
        """Whether this is exactly the log of that finn, each record once, with every blob that a record names.

        It begins with the one that the snapshot in the bucket does not sum up.
        """
        frames = self.frames()
        blobs = {sha: self.store.get(blob_key(sha)) for sha in _named(frames)}
        same = frames == local_frames(it, self.tip().manifest.begins - 1)
        return same and all(sha256(data).hexdigest() == sha for sha, data in blobs.items())


def tip_of(store: Store) -> Tip:
    """The end of a log in a store, which is sound."""
    tip = look(store, clock=SystemClock())
    assert tip is not None
    assert tip.problems == ()
    return tip


def frames_of(store: Store) -> bytes:
    """A log in a store: the frame of every record that its snapshot does not sum up, in order."""
    tip = tip_of(store)
    return b"".join(store.get(seg.key) for seg in tip.manifest.segs) + b"".join(one.body for one in tip.tail)


def _named(frames: bytes) -> Iterator[str]:
    for frame in frames.splitlines():
        yield from named_blobs(frame[PREFIX_BYTES:])


def local_frames(it: Finn, after: int = 0) -> bytes:
    """The log on a finn's own disk, as frames, from the record after that one on."""
    runs, found = Runs(SystemDisk(), it.data / "wal", lambda: ENDLESS), b""
    while True:
        try:
            run = runs.after(after, RUN_BYTES)
        except NotFound:
            return found
        after, found = run.last, found + run.body


def puts(requests: Sequence[Request], part: str = "/log/") -> list[Request]:
    """The writes among these requests, of the names that hold `part`."""
    return [one for one in requests if one.method == "PUT" and part in one.path]


# ---------------------------------------------------------------- what a finn says


def lose(it: Finn) -> None:
    """The machine is gone; what starts next has an empty disk."""
    it.kill()
    shutil.rmtree(it.data)


def tier(it: Finn) -> Any:
    """What it says of its store."""
    return next(one for one in it.ask("GET", "/api/storage").json["tiers"] if one["name"] == "store")


def saved(it: Finn) -> None:
    """Returns when the store has everything that this finn knows."""
    until(lambda: tier(it)["state"] == "saved", f"never saved: {tier(it)}")


def checks(it: Finn) -> dict[str, Any]:
    """What each check of its health observed."""
    return {name: rows[0]["observedValue"] for name, rows in it.ask("GET", "/health").json["checks"].items()}


def status(it: Finn) -> str:
    """Its health in a word."""
    return str(it.ask("GET", "/health").json["status"])


def ready(it: Finn) -> str:
    """What a probe is told: `ok`, or the code of the reason."""
    answer = it.ask("GET", "/readyz", bearer=False)
    return "ok" if answer.status == 200 else answer.code


def texts(it: Finn, session: str) -> list[str]:
    """What was said in a session, in order."""
    return [one["text"] for one in it.messages(session)]
