"""One process for one directory, a clean end, and what a start says that cannot be."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.finn import COMMAND, ECHO, NONE, Finn, Frame, Headers, finn, made, slow, until
from tests.site import fingerprint

pytestmark = pytest.mark.slow

LONG = "word " * 400
HELD_UP = [{"when": "long", "calls": [[slow(LONG)]]}, ECHO]  #: an answer of 10 s


def serve(data: Path, *arguments: str, prefix: Sequence[str] = (), settings: Headers = NONE) -> "Ended":
    """A `finn serve` that is expected to end by itself."""
    environment = Finn(data.parent, {"FINN_MODEL": "builtin", "FINN_PORT": "0", **settings}).environment()
    command = [*prefix, str(COMMAND), "serve", "--data-dir", str(data), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


Ended = subprocess.CompletedProcess[str]


# ---------------------------------------------------------------- one process


def test_a_second_process_on_a_directory_exits_1_and_names_the_first(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        second = serve(it.data)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith("finn: ")
        assert f"process {it.pid} since " in second.stderr
        assert it.ask("GET", "/api/sessions").status == 200


def test_the_log_of_a_held_directory_is_not_touched_by_a_second_process(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        it.stop()
        it.start()
        before = fingerprint(it.data)
        serve(it.data)
        assert fingerprint(it.data) == before


def test_after_a_kill_the_next_process_starts_at_once(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session()
        it.say(session, "hello")
        for _ in range(3):
            it.restart()
        assert [one["text"] for one in it.messages(session)] == ["hello", "You said: hello"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a process is PID 1 only in a PID namespace, which takes root")
def test_as_pid_1_it_holds_its_directory_and_starts_again_after_a_kill(tmp_path: Path) -> None:
    it = made(tmp_path, [ECHO], wrapper=("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"))
    try:
        it.start()
        session = it.new_session()
        it.say(session, "hello")
        second = serve(it.data, prefix=("unshare", "--pid", "--fork", "--mount-proc"))
        assert second.returncode == 1
        assert "process 2 since " in second.stderr, "the first process of all is the one that reaps"
        it.kill()
        until(lambda: not listens(it.port))
        it.start()
        assert it.say(session, "again")["reply"] == "You said: again"
    finally:
        it.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------- a clean end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_running_turn_as_interrupted_and_sends_clients_away(
    tmp_path: Path, number: signal.Signals
) -> None:
    with finn(tmp_path, HELD_UP) as it:
        session = it.new_session()
        async with it.open(session) as line, it.open(it.new_session()) as idle:
            running = await line.say("long")
            await line.until("text_delta")
            waiting = await line.say("and then")
            it.send_signal(number)
            assert await line.closed() == 1012
            assert await idle.closed() == 1012
            assert idle.frames[-1]["type"] == "draining"
        assert await asyncio.to_thread(it.wait) == 0

        assert line.frames[-1] == {"type": "draining", "retry_ms": line.frames[-1]["retry_ms"]}
        (message,), (end,) = line.of("message"), line.of("turn_end")
        assert (end["turn"], end["data"]["stop_reason"]) == (running["turn"], "interrupted")
        assert message["data"]["stop_reason"] == "interrupted"
        assert message["data"]["text"] == streamed(line.frames)
        assert len(it.sent()) == 1, "nothing new is begun while it stops"
        assert it.verify()["ok"]

        it.start()
        await asyncio.to_thread(it.idle, session)
        assert [asked(one) for one in it.sent()] == ["long", "and then"]
        told = it.messages(session)
        assert [one["text"] for one in told] == ["long", "and then", message["data"]["text"], "You said: and then"]
        assert told[1]["turn"] == waiting["turn"]


def streamed(frames: list[Frame]) -> str:
    return "".join(frame["data"]["delta"] for frame in frames if frame["type"] == "text_delta")


def asked(request: Any) -> str:
    """What the owner said last in a request to the model."""
    return str([one["text"] for one in request["messages"] if one["role"] == "user"][-1])


def test_an_idle_process_ends_with_0_and_leaves_no_run_json(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        assert (it.data / "run.json").exists()
        assert it.stop() == 0
        assert not (it.data / "run.json").exists()
        assert "error" not in [level(line) for line in it.log.splitlines()]


def level(line: str) -> str:
    return line.partition('"level": "')[2].partition('"')[0]


async def test_clients_that_leave_while_it_stops_do_not_make_the_end_a_failure(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session()
        for _ in range(5):
            async with it.open(session), it.open(session):
                pass
        assert await asyncio.to_thread(it.stop) == 0


async def test_a_caller_who_waits_for_a_turn_is_told_that_it_was_interrupted(tmp_path: Path) -> None:
    with finn(tmp_path, HELD_UP) as it:
        session = it.new_session()
        async with it.open(session) as line:
            waits = asyncio.create_task(asyncio.to_thread(it.say, session, "long"))
            await line.until("text_delta")
            it.send_signal(signal.SIGTERM)
            assert (await waits)["stop_reason"] == "interrupted"
        assert await asyncio.to_thread(it.wait) == 0


async def test_event_streams_end_and_callers_whose_prompt_waits_are_told_to_come_back(tmp_path: Path) -> None:
    with finn(tmp_path, HELD_UP) as it, ThreadPoolExecutor() as threads:
        session = it.new_session()
        stream = threads.submit(it.raw, it.head(f"GET /api/sessions/{session}/events"))
        path = f"/api/sessions/{session}/messages?wait=true"
        async with it.open(session) as line:
            threads.submit(it.ask, "POST", path, {"text": "long"})
            await line.until("text_delta")
            waits = threads.submit(it.ask, "POST", path, {"text": "next"}, {"Idempotency-Key": "next"})
            await line.until("user_message")
            it.send_signal(signal.SIGTERM)
            assert await line.closed() == 1012
        assert await asyncio.to_thread(it.wait) == 0
        assert waits.result().code == "draining"
        assert stream.result().count(b"event: turn_end") == 1
        assert b"event: draining" in stream.result().partition(b"event: turn_end")[2]
        assert "error" not in [level(line) for line in it.log.splitlines()]
        it.start()
        assert it.say(session, "next", {"Idempotency-Key": "next"})["reply"] == "You said: next"


# ---------------------------------------------------------------- what cannot be


def test_a_port_in_use_exits_1_naming_who_has_it_and_creates_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve(tmp_path / "data", "--port", str(port))
    assert ended.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use by " in ended.stderr
    assert f"(pid {os.getpid()})" in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"FINN_MODLE": "builtin"}, "FINN_MODLE"),
        ({"FINN_HOST": "0.0.0.0"}, "FINN_TOKEN"),
        ({"FINN_TOKEN": "short"}, "FINN_TOKEN"),
        ({"FINN_SHUTDOWN_BUDGET": "soon"}, "FINN_SHUTDOWN_BUDGET"),
        ({"FINN_PORT": "70000"}, "FINN_PORT"),
        ({"FINN_MODEL": "scripted:/nowhere.json"}, "/nowhere.json"),
        ({"FINN_MODEL": "telepathy"}, "FINN_MODEL"),
        ({"FINN_SANDBOX": "sandcastle"}, "FINN_SANDBOX"),
    ],
)
def test_a_wrong_setting_exits_2_naming_it_and_creates_nothing(
    tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    ended = serve(tmp_path / "data", settings=settings)
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("finn: ")
    assert named in last
    assert not (tmp_path / "data").exists()


def test_a_file_where_the_data_directory_should_be_exits_1_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    before = fingerprint(tmp_path)
    ended = serve(tmp_path / "data")
    assert ended.returncode == 1
    assert f"finn: {tmp_path / 'data'} cannot be used: " in ended.stderr
    assert fingerprint(tmp_path) == before


POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  #: root without the right to pass over permissions


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="needs setpriv to give up root's rights")
def test_an_unwritable_data_directory_exits_1_and_creates_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    before = fingerprint(tmp_path)
    ended = serve(data, prefix=POWERLESS if os.geteuid() == 0 else ())
    assert ended.returncode == 1, ended
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"finn: {data}"), last
    assert "cannot be used: Permission denied" in last
    assert "Traceback" not in ended.stderr
    assert fingerprint(tmp_path) == before


BRACKETS = b"[" * 100_000 + b"]" * 100_000
STRANGE = (
    "..%2Fx",
    "%2e%2e%2f%2e%2e%2fauth%2ftoken",
    "a" * 300,
    "%00",
    "x%00y",
    "%ff%fe",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
)


def test_bad_input_gets_a_clear_problem_and_nothing_is_created_or_changed(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session("a session")
        it.say(session, "hello")
        it.stop()
        it.start()
        before = fingerprint(it.data)
        path = f"/api/sessions/{session}/messages"

        def wrong(body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
            answer = it.ask("POST", path, body, headers or {})
            return answer.status, answer.code

        assert wrong(b'{"text":"' + b"x" * 2**20 + b'"}') == (413, "too_large")
        assert wrong(b'{"text":"\xff\xfe"}') == (400, "invalid_json")
        assert wrong(BRACKETS) == (400, "invalid_json")
        assert wrong(b'{"text":' + BRACKETS + b"}") == (400, "invalid_json")
        assert wrong(b'{"text":') == (400, "invalid_json")
        assert wrong(b'{"text":1}') == (400, "invalid_body")
        assert wrong(b'{"text":"x","more":1}') == (400, "invalid_body")
        assert wrong(b'{"text":"\\ud800"}') == (400, "invalid_json")
        assert wrong(b'{"text":" \\n\\t"}') == (400, "empty_prompt")
        assert wrong(b"{}") == (400, "invalid_body")
        assert wrong(b'{"text":"x"}', {"Content-Type": "text/plain"}) == (415, "unsupported_media_type")
        assert wrong(b'{"text":"x"}', {"Authorization": "Bearer wrong"}) == (401, "unauthorized")
        assert wrong(b'{"text":"x"}', {"Host": "rebind.evil"}) == (421, "misdirected")
        assert wrong(b'{"text":"x"}', {"Origin": "http://evil.example"}) == (403, "forbidden_origin")
        assert wrong(b'{"text":"x"}', {"Idempotency-Key": "k" * 300}) == (400, "invalid_body")
        for name in STRANGE:
            for method, rest in [
                ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore"), ("GET", "/messages"),
                ("POST", "/messages"), ("POST", "/stop"), ("GET", "/events"), ("GET", "/export"),
            ]:  # fmt: skip
                body = {"POST": {"text": "x"}, "PATCH": {"title": "x"}}.get(method)
                answer = it.ask(method, f"/api/sessions/{name}{rest}", body)
                assert (answer.status, answer.code) == (404, "not_found"), (method, name, rest)
        for query in ("limit=0", "limit=1001", "limit=x", "limit=-1", "after=x", "limit=" + "9" * 5000):
            assert it.ask("GET", f"/api/sessions?{query}").code == "invalid_body", query
            assert it.ask("GET", f"{path}?{query}").code == "invalid_body", query
        assert it.ask("GET", f"/api/sessions/{session}/export?format=exe").code == "invalid_body"
        assert it.ask("PUT", path).code == "method_not_allowed"
        assert it.ask("GET", "/api/nothing").code == "not_found"
        assert it.ask("GET", "/static/..%2f..%2fpyproject.toml").status == 404

        assert fingerprint(it.data) == before
        assert it.ask("GET", "/health").json["status"] in ("pass", "warn")
        assert "Traceback" not in it.log
        assert it.say(session, "still here")["reply"] == "You said: still here"


def test_a_caller_whose_body_was_refused_unread_is_told_why_and_hung_up_on(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        line = f"POST /api/sessions/{it.new_session()}/messages"
        sent = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        body = chunks(b"x" * 65536, 17)
        heads = it.head(line, *sent), it.head(line, *sent, host="elsewhere")
        with ThreadPoolExecutor() as threads:
            told = list(threads.map(lambda head: it.raw(head + body), heads))
        assert [answer[:13] for answer in told] == [b"HTTP/1.1 413 ", b"HTTP/1.1 421 "]


def chunks(piece: bytes, count: int) -> bytes:
    return (b"%x\r\n%b\r\n" % (len(piece), piece)) * count + b"0\r\n\r\n"
