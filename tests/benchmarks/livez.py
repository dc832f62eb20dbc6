"""Whether the loop ever blocks: /livez while everything goes on that copies are made of, and while a log is restored.

    work       sessions talk as with a real model, each record goes to the store, the tail is put together after 32
               objects, a commit goes to git every second, and the first of each takes all that was there before
    restore    from the start of a process on an empty disk until it takes prompts

Both are asked every few milliseconds. The anchor is /health of the smallest server on the same libraries, asked in turn
within the same seconds: what it needs is what the machine and the asking cost.
"""

import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import quantiles

from tests.benchmarks.bucket import Bucket, bucket
from tests.benchmarks.confirmed import TURN
from tests.benchmarks.processes import Http, Line, Process, bare, finn, token
from tests.benchmarks.restore import RESTORED_BYTES, unsealed
from tests.benchmarks.rounds import Goal, Measured, Round
from tests.benchmarks.turns import model_server

PAUSE_S = 0.003
SESSIONS = 3
SETTLED_S = 1.0  #: after taking prompts: the copies begin then


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    size = RESTORED_BYTES // (20 if quick else 1)
    data, count, seconds = folder / "data", 1 if quick else 6, 2.0 if quick else 5.0
    unsealed(data, size)
    with bucket(folder) as it, bare(folder) as smallest:
        smallest.answers("/health")
        worked = list(_at_work(folder, data, it, smallest, count, seconds))
        shutil.rmtree(data)
        restored = [_restoring(data, it, smallest) for _ in range(count)]
    goal = Goal("ours", most=20)
    yield Measured("/livez while all copies are at work, 99th percentile", "ms", "bare Starlette", worked, goal)
    yield Measured("/livez while 20 MB are restored, 99th percentile", "ms", "bare Starlette", restored, goal)


def _at_work(folder: Path, data: Path, it: Bucket, smallest: Process, count: int, seconds: float) -> Iterator[Round]:
    remote = folder / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    settings = {**it.settings, "FINN_GIT_REMOTE": str(remote), "FINN_ARCHIVE_INTERVAL": "1s"}
    with model_server(folder, 5_000, TURN) as model, finn(data, {**settings, **model.settings}) as process:
        process.takes_prompts(data)
        over = threading.Event()
        players = [threading.Thread(target=_talk, args=(process, token(data), over)) for _ in range(SESSIONS)]
        for player in players:
            player.start()
        for _ in range(count):
            end = time.perf_counter() + seconds
            yield _asked(smallest, process, partial(_past, end))
        over.set()
        for player in players:
            player.join()


def _past(end: float) -> bool:
    return time.perf_counter() > end


def _talk(process: Process, bearer: str, over: threading.Event) -> None:
    http = Http(process.port, bearer)
    _, body = http.post("/api/sessions", b"{}")
    line = Line(process.port, bearer, body.decode().partition('"id":"')[2][:26])
    line.frame()
    while not over.is_set():
        line.say("What is on the list for today?", uuid.uuid4().hex)
        line.until("turn_end")
    line.close()


def _restoring(data: Path, it: Bucket, smallest: Process) -> Round:
    ready: list[float] = []

    def over() -> bool:
        with suppress(OSError):
            ready.extend([time.perf_counter()] if not ready and (data / "run.json").stat() else [])
        return bool(ready) and time.perf_counter() > ready[0] + SETTLED_S

    with finn(data, it.settings) as process:
        process.listens()
        taken = _asked(smallest, process, over)
    shutil.rmtree(data)
    return taken


def _asked(smallest: Process, process: Process, over: Callable[[], bool]) -> Round:
    """The 99th percentiles of both, in milliseconds."""
    anchor, ours = list[float](), list[float]()
    plain, asked = Http(smallest.port), Http(process.port)
    while not over():
        for http, path, times in ((plain, "/health", anchor), (asked, "/livez", ours)):
            began = time.perf_counter()
            status, _ = http.get(path)
            times.append((time.perf_counter() - began) * 1000)
            assert status == 200
        time.sleep(PAUSE_S)
    return Round(_late(anchor), _late(ours))


def _late(times: list[float]) -> float:
    return quantiles(times, n=100)[98]
