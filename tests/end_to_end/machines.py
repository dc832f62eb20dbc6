"""Machines that are lost, and what is left of them: a bucket or a folder, a git remote, and the test's own notes.

Bucket │ Directory     a store that the test can look into, damage, take away and bring back
lose(it)               the process is killed and its disk is gone
state(data)            the seq and the state's hash of a directory that nobody works on
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gateway.folds import FOLDS
from persistence import snapshot
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.redact import Redactor
from persistence.replay import Means, Paths, replay
from persistence.store import Store
from persistence.stores import open_store
from tests.end_to_end.finn import Finn, until
from tests.s3_server import KEY_ID, SECRET, S3Server

TOKEN = "0123456789abcdef" * 4


class Place(Protocol):
    """Where a finn has its copy."""

    @property
    def settings(self) -> Mapping[str, str]: ...

    def objects(self) -> dict[str, bytes]:
        """Everything that lies there, by key."""

    def put(self, key: str, data: bytes) -> None: ...

    def take_away(self) -> None:
        """Nobody reaches it."""

    def bring_back(self) -> None: ...

    def empty(self) -> None:
        """It is there, and holds nothing."""


class Directory:
    """A store that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.folder.mkdir(parents=True)

    @property
    def settings(self) -> Mapping[str, str]:
        return {"FINN_STORE_URL": f"file://{self.folder}"}

    def objects(self) -> dict[str, bytes]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def put(self, key: str, data: bytes) -> None:
        (self.folder / key).write_bytes(data)

    def take_away(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    def bring_back(self) -> None:
        self.folder.with_name("away").rename(self.folder)

    def empty(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()


class Bucket:
    """A bucket of a real S3 server."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._name = server.bucket()

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "FINN_STORE_URL": f"s3://{self._name}/finn",
            "AWS_ENDPOINT_URL_S3": self._server.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def objects(self) -> dict[str, bytes]:
        store = self._store()
        try:
            return {found.key: store.get(found.key) for found in store.list("")}
        finally:
            store.close()

    def put(self, key: str, data: bytes) -> None:
        store = self._store()
        store.put(key, data)
        store.close()

    def take_away(self) -> None:
        self._server.stop()

    def bring_back(self) -> None:
        self._server.start()

    def empty(self) -> None:
        store = self._store()
        for key in self.objects():
            store.delete(key)
        store.close()

    def _store(self) -> Store:
        return open_store(f"s3://{self._name}/finn", self._server.access())


class Remote:
    """A git repository that finn pushes to, as a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "remote.git"
        subprocess.run(["git", "init", "-q", "--bare", self.folder], check=True)

    @property
    def settings(self) -> Mapping[str, str]:
        return {"FINN_GIT_REMOTE": str(self.folder)}

    def git(self, *arguments: str, data: bytes = b"") -> bytes:
        done = subprocess.run(["git", "-C", self.folder, *arguments], input=data, capture_output=True, check=False)
        return done.stdout

    @property
    def seq(self) -> int:
        """The last record of which the archive's newest commit speaks; 0 where there is none."""
        said = self.git("show", "state/main:STATE.json")
        return int(json.loads(said)["seq"]) if said else 0


# ---------------------------------------------------------------- a finn with copies, asked from outside


def lose(it: Finn) -> None:
    """The machine is gone; what starts next has an empty disk."""
    it.kill()
    gone(it.data)


def gone(folder: Path) -> None:
    """The folder is deleted, whoever goes on writing into it."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def tier(it: Finn, name: str) -> Any:
    """What it says of one of its copies."""
    return next(one for one in it.ask("GET", "/api/storage").json["tiers"] if one["name"] == name)


def saved(it: Finn) -> None:
    """Returns when the store has all that was acknowledged before."""
    seq = it.ask("GET", "/api/storage").json["seq"]
    until(lambda: (tier(it, "store")["last_seq"] or 0) >= seq, "never saved")


def source(it: Finn) -> Any:
    """Where it has its past from, and what it says to that."""
    (check,) = it.ask("GET", "/health").json["checks"]["recovery:source"]
    return check


def ready(it: Finn) -> str:
    """What a probe is told: `ok`, or the code of the reason."""
    answer = it.ask("GET", "/readyz", bearer=False)
    return "ok" if answer.status == 200 else answer.code


def texts(it: Finn, session: str) -> list[str]:
    """What was said in a session, in order."""
    return [one["text"] for one in it.messages(session) if one["text"]]


def state(data: Path) -> tuple[int, str]:
    """The last seq and the state's hash; the directory is copied first, for a look may repair."""
    copy = data.with_name(f"{data.name}-looked-at")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    clock = SystemClock()
    found = replay(Paths(copy), FOLDS, Means(SystemDisk(), clock, Ids(clock, system_entropy), Redactor({})))
    shutil.rmtree(copy)
    return found.head.seq, snapshot.state_sha({**found.foreign, **found.folded.dump()})
