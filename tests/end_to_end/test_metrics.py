"""What an operator sees of a finn from outside: the numbers at /metrics, and the lines of its log."""

import json
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.logs import MAX_FIELD
from tests.end_to_end.finn import ECHO, Finn, finn, until
from tests.end_to_end.machines import Directory

TOKEN = "a-token-that-nobody-would-guess-0123456789abcdef"
READING = {"when": "read", "calls": [[{"tool": "read", "args": {"path": "plan.md"}}], [{"text": "done"}]]}
NASTY = 'a\x1b[2J{"level":"admin"}\u2028\x7f' * 700  #: about 15 KB


def numbers(it: Finn) -> dict[str, float]:
    """`name{label=value,…}` to its number, as a Prometheus would read it."""
    answer = it.ask("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def lines(it: Finn) -> list[dict[str, Any]]:
    """The log, line by line; each has to be an object."""
    return [json.loads(line) for line in it.log.splitlines()]


def messages(it: Finn) -> list[str]:
    return [line["msg"] for line in lines(it)]


# ---------------------------------------------------------------- numbers


def test_the_numbers_move_with_what_happens(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    with finn(tmp_path, [READING, ECHO], **store.settings) as it:
        (it.data / "workspace" / "plan.md").write_text("tea")
        before = numbers(it)
        session = it.new_session()
        it.say(session, "read it")
        it.say(session, "hello")
        until(lambda: numbers(it)["finn_store_lag_records"] == 0)
        after = numbers(it)
        assert after["finn_wal_records_total"] - before["finn_wal_records_total"] >= 8
        assert after["finn_wal_bytes_total"] > before["finn_wal_bytes_total"]
        assert after["finn_wal_sync_seconds_count"] > before["finn_wal_sync_seconds_count"]
        assert after["finn_store_sent_bytes_total"] > before["finn_store_sent_bytes_total"]
        assert after["finn_turns_total{stop_reason=stop}"] == 2
        assert after["finn_turn_seconds_count"] == 2
        assert after["finn_tool_calls_total{outcome=ok,tool=read}"] == 1
        assert after["finn_tokens_total{kind=input}"] > 0
        said = "finn_http_requests_total{method=POST,route=/api/sessions/{session}/messages,status=200}"
        assert after[said] == 2
        seq = it.ask("GET", "/health").json["checks"]["wal:lastSeq"][0]["observedValue"]
        assert after["finn_last_seq"] <= seq
        assert after["finn_health_status{status=pass}"] == 1
        assert after["process_resident_memory_bytes"] > 0


def test_a_task_that_fails_is_counted_until_its_breaker_is_open_and_the_log_tells(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    with finn(tmp_path, [ECHO], **store.settings) as it:
        until(lambda: it.ask("GET", "/api/storage").json["tiers"][1]["state"] == "saved")
        store.take_away()
        it.new_session()
        for _ in range(3):
            it.ask("POST", "/api/tasks/replicate/run", {})
        told = numbers(it)
        assert told["finn_task_runs_total{outcome=failed,task=replicate}"] >= 3
        assert told["finn_breaker_state{state=open,task=replicate}"] == 1
        assert told["finn_breaker_state{state=closed,task=replicate}"] == 0
        assert sum(value for name, value in told.items() if "finn_store_calls" in name and "failed" in name) > 0
        assert told["finn_store_lag_records"] > 0
        until(lambda: "a breaker is open" in messages(it))
        (line,) = [line for line in lines(it) if line["msg"] == "a breaker is open"]
        assert (line["level"], line["task"], line["failures"]) == ("warning", "replicate", 3)


def test_counters_begin_at_nothing_after_a_start(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        it.say(it.new_session(), "hello")
        assert numbers(it)["finn_turns_total{stop_reason=stop}"] == 1
        it.restart()
        told = numbers(it)
        assert "finn_turns_total{stop_reason=stop}" not in told
        assert told["finn_turn_seconds_count"] == 0
        assert told["finn_last_seq"] > 0


def test_no_label_holds_what_somebody_sent(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO], FINN_TOKEN=TOKEN) as it:
        session = it.new_session("a title of ours")
        it.say(session, "hello")
        it.ask("POST", "/api/beads", {"title": "a bead of ours"})
        for path in (f"/api/sessions/{session}", "/wp-login.php", "/api/beads/none", "/static/app.js", f"/?t={TOKEN}"):
            it.ask("GET", path)
        it.ask("BREW", "/api/sessions")
        text = it.ask("GET", "/metrics").body.decode()
        for private in (session, TOKEN, "wp-login", "app.js", "none", "BREW", "ours", "hello", str(it.data)):
            assert private not in text
        assert 'finn_http_requests_total{method="GET",route="/api/sessions/{session}",status="200"} 1.0' in text
        assert 'finn_http_requests_total{method="GET",route="other",status="404"}' in text


def test_the_numbers_are_for_whoever_has_a_token(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        assert it.ask("GET", "/metrics", bearer=False).status == 401


# ---------------------------------------------------------------- the log


def test_the_log_tells_of_the_start_the_turns_and_the_end(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    with finn(tmp_path, [ECHO], FINN_RELEASE="r7", **store.settings) as it:
        session = it.new_session()
        turn = it.say(session, "hello")["turn"]
        assert it.stop() == 0
        told = {line["msg"]: line for line in lines(it)}
    start, ready, ended = told["finn starts"], told["finn is ready"], told["a turn ended"]
    assert (start["release"], start["data_dir"], start["model"]) == ("r7", str(it.data), "scripted:script.json")
    assert start["store"] == store.settings["FINN_STORE_URL"]
    assert (ready["source"], ready["epoch"], ready["seconds"] >= 0) == ("template", 1, True)
    assert (ended["session"], ended["turn"], ended["stop_reason"]) == (session, turn, "stop")
    assert ended["ms"] >= 0 and ended["tokens"] > 0
    order = [message for message in told if message.startswith("finn ")]
    assert order == ["finn starts", "finn is ready", "finn drains", "finn has drained"]


def test_the_level_says_how_much_is_told(tmp_path: Path) -> None:
    with finn(tmp_path / "much", [ECHO], FINN_LOG_LEVEL="debug") as it:
        it.ask("GET", "/livez")
        until(lambda: any(line.get("path") == "/livez" for line in lines(it)))
    with finn(tmp_path / "little", [ECHO], FINN_LOG_LEVEL="warning") as it:
        it.say(it.new_session(), "hello")
        assert it.stop() == 0
        assert [line for line in lines(it) if line["level"] in ("debug", "info")] == []


def test_nothing_that_is_sent_writes_a_line_of_its_own(tmp_path: Path) -> None:
    with finn(tmp_path, [READING, ECHO], FINN_LOG_LEVEL="debug") as it:
        session = it.new_session(NASTY[:100])
        it.raw(it.head("GET /api/sessions", "Connection: close", f"User-Agent: {NASTY[:9]}".replace("\u2028", "")))
        it.ask(
            "GET",
            "/api/sessions",
            headers={"User-Agent": NASTY.encode().decode("latin-1")[:15_000].replace("\x7f", "")},
        )
        it.ask("GET", "/api/sessions/%0a%7b%22level%22%3a%22admin%22%7d%1b%5b2J")
        it.ask("GET", "/" + "%1b%5b2J" * 1_000)
        it.ask("GET", "/health", headers={"X-Request-Id": 'x{"level":"admin"}'})
        it.ask("POST", "/api/beads", {"title": NASTY[:100]})
        (it.data / "workspace" / ("plan\n\x1b[2J" + "x" * 200)).write_text("tea")
        it.say(session, f"read {NASTY}")
        assert it.stop() == 0
        raw = (tmp_path / "stderr").read_bytes()
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw)
    for line in raw.decode().splitlines():
        fields = json.loads(line)
        assert fields["level"] in ("debug", "info", "warning", "error"), line
        assert [name for name, value in fields.items() if isinstance(value, str) and len(value) > MAX_FIELD] == []
