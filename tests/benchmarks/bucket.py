"""A bucket on loopback, in a process of its own, and what a life of an agent leaves in it.

    with bucket(folder) as it:
        it.settings                      what finn is told to find it
        upload(data, it.store())         what a replica and a clean stop would have made of that data directory
        fetched(it, keys, into)          the same bytes by eight plain connections: the anchor

The server is moto, written in Python on the same processors: each of its answers takes some milliseconds of them, where
a store in a data centre takes longer and leaves the processors alone.
"""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from gateway.folds import FOLDS
from persistence.cascade import beginning
from persistence.claim import claim
from persistence.clock import SystemClock, system_entropy
from persistence.compaction import compact, newest
from persistence.disk import SystemDisk
from persistence.journal import Journal
from persistence.remote import AHEAD, look
from persistence.replay import Paths
from persistence.replica import Replica
from persistence.store import Access, Below, Store
from persistence.stores import open_store
from tests.benchmarks import history
from tests.benchmarks.processes import free_port, run
from tests.s3_server import KEY_ID, SECRET, S3Server, authorization

AGENT = "main"
PREFIX = "bench"
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Bucket:
    """Where it is."""

    port: int
    name: str

    @property
    def settings(self) -> Mapping[str, str]:
        """What finn is told."""
        return {
            "FINN_STORE_URL": f"s3://{self.name}/{PREFIX}",
            "AWS_ENDPOINT_URL_S3": self._endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def store(self) -> Store:
        """What finn opens."""
        access = Access(self._endpoint, "us-east-1", KEY_ID, SECRET)
        return Below(open_store(f"s3://{self.name}/{PREFIX}", access), AGENT)

    def path(self, key: str) -> str:
        """Of an object, as HTTP asks for it."""
        return f"/{self.name}/{PREFIX}/{AGENT}/{key}"

    @property
    def _endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """A new one, gone at the end."""
    port = free_port()
    command = (sys.executable, "-m", "tests.s3_server", "--port", str(port))
    with run(command, port, folder, {"PYTHONPATH": str(ROOT)}) as process:
        process.listens()
        yield Bucket(port, S3Server(port=port).bucket("bench"))


async def upload(data: Path, store: Store) -> None:
    """Snapshot, log and all that they name, put together and released."""
    disk, clock, paths = SystemDisk(), SystemClock(), Paths(data)
    journal = await Journal.open(data, FOLDS, history.means())
    await journal.snapshot()
    start = beginning(disk, paths)
    claimed = claim(store, None, writer="bench", release="bench", entropy=system_entropy, clock=clock, start=start)
    replica = Replica(store, claimed, journal, release="bench", clock=clock, entropy=system_entropy)
    replica.flush()
    compact(replica, newest(disk, paths.snapshots, after=0))
    replica.release()
    await journal.close()


def needed(store: Store) -> list[str]:
    """The objects that hold the log and its state: what a restoration has to fetch."""
    tip = look(store, clock=SystemClock())
    assert tip is not None and tip.manifest.snap is not None
    return [tip.manifest.snap.key, *(seg.key for seg in tip.manifest.segs)]


def fetched(it: Bucket, keys: Sequence[str], into: Path) -> int:
    """Gets the objects by as many plain connections as finn has, each to a file; how many bytes they are."""
    waiting, sizes = iter(keys), list[int]()
    crew = [threading.Thread(target=_fetch, args=(it, waiting, into, sizes)) for _ in range(min(AHEAD, len(keys)))]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    return sum(sizes)


def _fetch(it: Bucket, waiting: Iterator[str], into: Path, sizes: list[int]) -> None:
    connection = HTTPConnection("127.0.0.1", it.port)
    for key in waiting:
        connection.request("GET", it.path(key), headers={"Authorization": authorization()})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        (into / key.replace("/", "-")).write_bytes(body)
        sizes.append(len(body))
    connection.close()
