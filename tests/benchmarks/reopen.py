"""Opening a long session in a finn that has just started: the WebSocket up to its hello, then the newest page.

The process has answered before, but never for this session, so its chunks are not in memory. The anchor is two requests
of nothing on the same server.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import history
from tests.benchmarks.processes import Http, Line, finn, token
from tests.benchmarks.rounds import Goal, Measured, Round

PAGE = 60
SETTLED_S = 3.0  #: without growth, and a file is complete
WARM = 20  #: messages of the session that is opened before


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    for messages in (1000,) if quick else (10_000, 100_000):
        data = folder / f"data-{messages}"
        long, warm = history.write(data, (messages, WARM))
        rounds = []
        let_it_mirror(data)
        for _ in range(3 if quick else 9):
            with finn(data) as process:
                process.answers("/readyz")
                http = Http(process.port, token(data))
                open_session(process.port, http, token(data), warm)
                anchor = twice(http, "/livez")
                rounds.append(Round(anchor, open_session(process.port, http, token(data), long)))
        yield Measured(
            f"reopening a session of {messages:,} messages", "ms", "2 × GET /livez", rounds, Goal("ours", most=5)
        )


def let_it_mirror(data: Path) -> None:
    """Runs finn until the files of the sessions are written, as they are where finn itself wrote the history."""
    with finn(data) as process:
        process.answers("/readyz")
        size = -1
        while (now := sum(path.stat().st_size for path in data.glob("state/sessions/*"))) != size or not now:
            size = now
            time.sleep(SETTLED_S)


def twice(http: Http, path: str) -> float:
    """Milliseconds of two requests."""
    begin = time.perf_counter()
    http.get(path)
    http.get(path)
    return (time.perf_counter() - begin) * 1000


def open_session(port: int, http: Http, bearer: str, session: str) -> float:
    """Milliseconds until everything is there that a page shows of a session."""
    begin = time.perf_counter()
    line = Line(port, bearer, session)
    before = line.frame()["seq"] + 1
    status, body = http.get(f"/api/sessions/{session}/messages?before={before}&limit={PAGE}&notes=true")
    took = (time.perf_counter() - begin) * 1000
    line.close()
    found = json.loads(body)
    assert status == 200 and len(found["messages"]) in (PAGE, WARM), found
    return took
