"""What deploy/fly says is what flyctl reads and what finn needs; and the router sends everybody to the right agent."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gateway import settings

ROOT = Path(__file__).parents[2]
FLY = ROOT / "deploy" / "fly"
SCHEMA = json.loads((FLY / "schema.json").read_text())
FILES = (FLY / "fly.toml", FLY / "router" / "fly.toml")
TIGRIS = {
    "BUCKET_NAME": "finn-state",
    "AWS_ENDPOINT_URL_S3": "https://fly.storage.tigris.dev",
    "AWS_ACCESS_KEY_ID": "tid_of_a_test",
    "AWS_SECRET_ACCESS_KEY": "tsec_of_a_test",
}


def said() -> Any:
    return tomllib.loads(FILES[0].read_text())


def faults(config: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(config)
    return sorted(f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FLY)))
def test_the_file_holds_what_flyctl_reads_and_nothing_else(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert faults(tomllib.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kill_timeout", "kill_timout"),
        ('strategy = "rolling"', 'strategy = "roling"'),
        ("auto_stop_machines", "auto_stop_machine"),
        ('interval = "15s"', 'interval = "15"'),
        ("internal_port = 8080", 'internal_port = "8080"'),
        ('memory = "512mb"', 'memory = "512"'),
    ],
)
def test_a_slip_of_the_pen_is_found(right: str, wrong: str) -> None:
    text = FILES[0].read_text()
    assert right in text
    assert faults(tomllib.loads(text.replace(right, wrong))) != []


def test_one_machine_with_one_volume_is_stopped_before_the_next_release_starts() -> None:
    config = said()
    assert config["deploy"]["strategy"] == "rolling"
    assert [mount["destination"] for mount in config["mounts"]] == ["/data"]
    assert config["http_service"]["auto_stop_machines"] == "off"
    assert config["http_service"]["min_machines_running"] == 1
    assert [check["path"] for check in config["http_service"]["checks"]] == ["/readyz"]
    assert "--ha=false" in (FLY / "README.md").read_text()


def test_finn_understands_the_environment_and_has_stopped_before_it_is_killed(tmp_path: Path) -> None:
    config = said()
    own = {
        **config["env"],
        "FINN_HOST": "0.0.0.0",
        "FINN_DATA_DIR": str(tmp_path),
        "FINN_TOKEN": "0123456789abcdef" * 4,
    }
    read = settings.read({**own, **TIGRIS})
    assert read.problems == ()
    assert (read.store_url, read.aws_region) == ("s3://finn-state", "auto")
    assert read.shutdown_budget + 10 <= settings.duration(config["kill_timeout"])
    assert read.port == config["http_service"]["internal_port"]


def test_the_dockerfile_that_is_named_is_there() -> None:
    assert (FLY / said()["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"


# ---------------------------------------------------------------- the router


@pytest.fixture(scope="module")
def router() -> Iterator[int]:
    """The port of the router as its machine runs it, but for the port."""
    program = "import os, uvicorn; from deploy.fly.router.router import router"
    program += "\nuvicorn.run(router(os.environ), port=0, lifespan='off', access_log=False)"
    running = subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        env={"AGENTS": "alice bob", "DOMAIN": "agents.example.org"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    try:
        line = next((line for line in running.stderr if "running on" in line), "")
        match = re.search(r"http://127\.0\.0\.1:([0-9]+)", line)
        assert match, "it ended before it listened"
        yield int(match[1])
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def asked(port: int, host: str, path: str = "/") -> tuple[int, str | None]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("fly-replay")
    finally:
        connection.close()


@pytest.mark.slow
def test_each_agent_is_an_app_and_nobody_else_is_one(router: int) -> None:
    assert asked(router, "alice.agents.example.org") == (200, "app=finn-alice")
    assert asked(router, "Bob.Agents.Example.org:443", "/api/sessions") == (200, "app=finn-bob")
    strangers = (
        "eve.agents.example.org",
        "agents.example.org",
        "alice.example.org",
        "alice;state=x.agents.example.org",
    )
    for host in (*strangers, "alice.agents.example.org.evil", "a.alice.agents.example.org"):
        assert asked(router, host) == (404, None), host
    assert asked(router, "172.19.0.2:8080", "/livez") == (200, None)


@pytest.mark.slow
def test_a_websocket_is_sent_on_and_never_accepted(router: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{router}/ws/x", additional_headers={"Host": "alice.agents.example.org"}, proxy=None)
    assert refused.value.response.headers["fly-replay"] == "app=finn-alice"
