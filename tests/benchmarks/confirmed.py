"""How long a record is on this disk alone: from the moment a client sees it, durable here, until the store confirms it.

Sessions talk at once, each with the pauses of a model that thinks, calls a tool and streams its answer. finn is asked
again and again how far the store is, so each figure is what it took at most. The anchor is one plain PUT of 2 KiB to
the same server.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles

from tests.benchmarks import history
from tests.benchmarks.bucket import Bucket, bucket
from tests.benchmarks.processes import Http, Line, Process, finn, token
from tests.benchmarks.rounds import Goal, Measured, Round
from tests.benchmarks.turns import USAGE, Turn, model_server
from tests.s3_server import authorization

SESSIONS = 3
LOOK_S = 0.01  #: between two questions how far the store is
OBJECT = bytes(2048)
TURN: Turn = (
    [
        {"sleep": 0.3},
        {"text": "Let me look.", "chunk": 3, "delay": 0.02},
        {"tool": "read", "args": {"path": "x"}},
        USAGE,
    ],
    [{"sleep": 0.2}, {"text": history.TEXT, "chunk": 20, "delay": 0.05}, USAGE],
)


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data = folder / "data"
    sessions = history.write(data, (200,) * SESSIONS)
    count = 2 if quick else 12
    with (
        bucket(folder) as it,
        model_server(folder, (count + 1) * SESSIONS, TURN) as model,
        finn(data, {**model.settings, **it.settings}) as process,
    ):
        process.takes_prompts(data)
        watch = Watch(process, token(data))
        for session in sessions:
            watch.plays(session, 1)  # the SDK is loaded, and the store has what was there before
        watch.forget()
        rounds = [_round(watch, it, sessions) for _ in range(count)]
        watch.end()
    middle = [Round(median(plain), median(ours)) for plain, ours in rounds]
    worst = [
        Round(_late([one for plain, _ in rounds for one in plain]), _late([one for _, ours in rounds for one in ours]))
    ]
    yield Measured("acknowledged to confirmed in the store, median", "s", "a plain PUT", middle, Goal("ours", most=0.3))
    yield Measured("the same, 99th percentile of all", "s", "a plain PUT", worst, Goal("ours", most=1))


def _late(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def _round(watch: "Watch", it: Bucket, sessions: list[str]) -> tuple[list[float], list[float]]:
    """The seconds of plain PUTs, and of every record of one turn in each session."""
    plain = [_put(it, index) for index in range(20)]
    players = [threading.Thread(target=watch.plays, args=(session, 1)) for session in sessions]
    for player in players:
        player.start()
    for player in players:
        player.join()
    return plain, watch.taken()


def _put(it: Bucket, index: int) -> float:
    connection = HTTPConnection("127.0.0.1", it.port)
    connection.connect()
    began = time.perf_counter()
    headers = {"Authorization": authorization(), "If-None-Match": "*"}
    connection.request("PUT", f"/{it.name}/plain/{uuid.uuid4().hex}-{index}", OBJECT, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    took = time.perf_counter() - began
    connection.close()
    return took


class Watch:
    """Knows of every record when a client saw it, and when it was known to be in the store."""

    def __init__(self, process: Process, bearer: str) -> None:
        self._port = process.port
        self._bearer = bearer
        self._seen: dict[int, float] = {}
        self._confirmed: list[tuple[int, float]] = [(0, 0.0)]
        self._over = False
        self._looking = threading.Thread(target=self._look)
        self._looking.start()

    def plays(self, session: str, turns: int) -> None:
        """Plays turns in a session, to the end."""
        line = Line(self._port, self._bearer, session)
        line.frame()
        for _ in range(turns):
            line.say("What is on the list for today?", uuid.uuid4().hex)
            while (frame := line.frame())["type"] != "turn_end":
                self._see(frame)
            self._see(frame)
        line.close()

    def taken(self) -> list[float]:
        """What each record since the last call took; waits until the store has them all."""
        while self._confirmed[-1][0] < max(self._seen):
            time.sleep(LOOK_S)
        known, taken = list(self._confirmed), []
        for seq, at in self._seen.items():
            taken.append(max(0.0, next(when for reached, when in known if reached >= seq) - at))
        self.forget()
        return taken

    def forget(self) -> None:
        """What was seen so far does not count."""
        self._seen.clear()

    def end(self) -> None:
        self._over = True
        self._looking.join()

    def _see(self, frame: dict[str, object]) -> None:
        seq = frame.get("seq")
        if isinstance(seq, int):
            self._seen.setdefault(seq, time.perf_counter())

    def _look(self) -> None:
        http = Http(self._port, self._bearer)
        while not self._over:
            _, body = http.get("/api/storage")
            tiers = {one["name"]: one for one in json.loads(body)["tiers"]}
            seq = tiers["store"]["last_seq"] or 0
            if seq > self._confirmed[-1][0]:
                self._confirmed.append((seq, time.perf_counter()))
            time.sleep(LOOK_S)
