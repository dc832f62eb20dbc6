"""A turn with one tool call, from the prompt to its end, less what the model server took for itself.

    ours    WebSocket ─ prompt ─▶ finn ─▶ model server (a call of `read`) ─▶ finn ─▶ model server (a text) ─▶ turn_end
    anchor  the same two request bodies, as finn sent them, straight to the same server on a kept connection

The model server is a process of its own that waits for nothing. What is judged is the difference within a round.
"""

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import history
from tests.benchmarks.processes import Http, Line, Process, finn, free_port, run, token
from tests.benchmarks.rounds import Goal, Measured, Round

Turn = Sequence[Sequence[Mapping[str, Any]]]  #: what the model says to each request of a turn

SIZES = (20, 200, 10_000)
USAGE = {"usage": {"input": 20_000, "output": 100}}  # a quarter of a token a character, so that the window is real
SCRIPT: Turn = (
    [{"tool": "read", "args": {"path": "today.md"}}, USAGE],
    [{"text": "Three things are on the list."}, USAGE],
)
MODEL = {"FINN_MODEL": "openai:bench"}
ROOT = Path(__file__).parent.parent.parent


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data = folder / "data"
    sizes = SIZES[:2] if quick else SIZES
    sessions = dict(zip(sizes, history.write(data, sizes), strict=True))
    (data / "workspace").mkdir()
    (data / "workspace" / "today.md").write_text("- tea\n- rain\n- nothing else\n")
    count = 5 if quick else 25
    with model_server(folder, rounds=(count + 1) * len(sizes) * 2) as model, finn(data, model.settings) as process:
        process.answers("/readyz")
        players = {size: Player(process, model, token(data), session) for size, session in sessions.items()}
        rounds: dict[int, list[Round]] = {size: [] for size in sizes}
        for number in range(count + 1):
            for size, player in players.items():
                round_ = player.play()
                rounds[size].extend([round_] if number else [])
    for size in sizes:
        what = f"a turn with a tool call after {size:,} messages, less the model"
        yield Measured(what, "ms", "the model server itself", rounds[size], Goal("ours", most=20))
    if not quick:
        flat = [Round(short.ours, long.ours) for short, long in zip(rounds[200], rounds[10_000], strict=True)]
        yield Measured("the same: 10,000 messages against 200", "ms", "200 messages", flat, Goal("ratio", most=1.5))


@dataclass(frozen=True)
class ModelServer:
    """The server's port, and the file that says what it was asked."""

    port: int
    log: Path

    @property
    def settings(self) -> Mapping[str, str]:
        return {**MODEL, "FINN_MODEL_BASE_URL": f"http://127.0.0.1:{self.port}/v1"}

    def asked(self, count: int) -> list[bytes]:
        """The last requests, as they came."""
        lines = self.log.read_bytes().splitlines()[-count:]
        return [
            json.dumps(json.loads(line)["body"], ensure_ascii=False, separators=(",", ":")).encode() for line in lines
        ]


@contextmanager
def model_server(folder: Path, rounds: int, turn: Turn = SCRIPT) -> Iterator[ModelServer]:
    """tests/model_server.py in a process of its own, which plays the turn again and again."""
    script, log, port = folder / "script.json", folder / "asked.jsonl", free_port()
    script.write_text(json.dumps(list(turn) * rounds))
    command = (sys.executable, "-m", "tests.model_server", "--port", str(port), "--script", script, "--log", log)
    with run(command, port, folder, {"PYTHONPATH": str(ROOT)}) as process:
        process.listens()
        yield ModelServer(port, log)


class Player:
    """Plays the turn in one session, over and over."""

    def __init__(self, process: Process, model: ModelServer, bearer: str, session: str) -> None:
        self._model = model
        self._line = Line(process.port, bearer, session)
        self._direct = Http(model.port)

    def play(self) -> Round:
        """The milliseconds that the model server takes, and those that finn adds."""
        whole = self._turn()
        own = median(self._asked_directly(self._model.asked(2)) for _ in range(3))
        return Round(own, whole - own)

    def _turn(self) -> float:
        begin = time.perf_counter()
        self._line.say("What is on the list for today?", uuid.uuid4().hex)
        ended = self._line.until("turn_end")
        took = (time.perf_counter() - begin) * 1000
        assert ended["data"]["stop_reason"] == "stop", ended
        return took

    def _asked_directly(self, bodies: list[bytes]) -> float:
        begin = time.perf_counter()
        for body in bodies:
            status, _ = self._direct.post("/v1/chat/completions", body)
            assert status == 200
        return (time.perf_counter() - begin) * 1000
