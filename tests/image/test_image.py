"""The image as it is shipped: built from the Dockerfile, run as any user would run it, and looked at from outside."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEEP
from tests.end_to_end.bucket import lose, saved, texts
from tests.end_to_end.finn import ECHO, Finn, Frame, slow, until
from tests.image.contained import LIMITS, TIGHT, TOKEN, USER, Contained, contained
from tests.image.yard import IMAGE, RELEASE, ROOT, Yard
from tests.s3_server import KEY_ID, SECRET, S3Server

pytestmark = pytest.mark.slow

MOST_MB = 300
MOST_SENT_MB = 110
LONG = {"when": "long", "calls": [[slow("word " * 400)]]}  #: an answer of 10 s
Make = Callable[..., Contained]


@pytest.fixture
def make(yard: Yard, tmp_path: Path) -> Iterator[Make]:
    """Containers that are gone when the test is."""
    made: list[Contained] = []

    def one(*replies: object, **more: Any) -> Contained:
        made.append(contained(yard, tmp_path / f"finn-{len(made)}", replies or (ECHO,), **more))
        return made[-1]

    yield one
    for each in made:
        each.kill()


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def calls(when: str, command: str) -> dict[str, object]:
    """What the model does when it is asked for that: a command, and its outcome as the answer."""
    return {"when": when, "calls": [[{"tool": "bash", "args": {"command": command}}], [{"text": "{result}"}]]}


# ---------------------------------------------------------------- it works, with few rights


async def test_it_talks_over_http_and_the_socket_without_any_right(make: Make) -> None:
    it = make()
    it.start()
    assert it.inside("id", "-u").stdout == f"{USER}\n"
    assert "Read-only file system" in it.inside("touch", "/opt/finn/new").stderr
    rights = it.inside("grep", "-E", "^(CapEff|CapBnd|NoNewPrivs)", "/proc/1/status").stdout
    assert set(rights.split()) == {"CapEff:", "CapBnd:", "0" * 16, "NoNewPrivs:", "1"}

    session = it.new_session()
    assert it.say(session, "hello")["reply"] == "You said: hello"
    async with it.open(session) as line:
        frames = await line.turn("and again")
    assert frames[-1]["data"]["stop_reason"] == "stop"
    assert texts(it, session) == ["hello", "You said: hello", "and again", "You said: and again"]
    assert it.ask("GET", "/health").json["releaseId"] == RELEASE


async def test_a_stop_in_the_middle_of_a_turn_ends_with_0_and_the_next_start_goes_on(make: Make) -> None:
    it = make(LONG, ECHO, FINN_SHUTDOWN_BUDGET="2s")
    it.start()
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("long")
        await line.until("text_delta")
        await line.say("and then")
        it.send_signal(signal.SIGTERM)
        assert await line.closed() == 1012
        seen = streamed(line.frames)
    assert await asyncio.to_thread(it.wait) == 0

    it.start()
    await asyncio.to_thread(it.idle, session)
    said = texts(it, session)
    assert said[:2] == ["long", "and then"]
    assert said[2].startswith(seen)
    assert said[3:] == ["You said: and then"]
    assert it.stop() == 0
    assert json.loads(it.command("verify", "--json").stdout)["ok"]


def streamed(frames: list[Frame]) -> str:
    return "".join(frame["data"]["delta"] for frame in frames if frame["type"] == "text_delta")


def test_killed_and_on_an_empty_disk_it_goes_on_from_the_store(make: Make, store: S3Server) -> None:
    bucket = {
        "FINN_STORE_URL": f"s3://{store.bucket()}/agents",
        "AWS_ENDPOINT_URL_S3": store.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    it = make(**bucket)
    it.start()
    session = it.new_session()
    it.say(session, "hello")
    saved(it)
    lose(it)
    it.renew()
    it.start()
    assert texts(it, session) == ["hello", "You said: hello"]
    assert it.say(session, "again")["reply"] == "You said: again"
    saved(it)


def test_it_writes_nothing_outside_of_data_and_tmp(make: Make) -> None:
    it = make(calls("run", "date >now; echo done"), ECHO, options=LIMITS, FINN_SANDBOX="none")
    it.start()
    session = it.new_session()
    assert "done" in it.say(session, "run")["reply"]
    it.ask("GET", "/metrics")
    it.inside("finn", "doctor")
    it.inside("python", "-m", "gateway.alive")
    own = ("/data", "/model", "/tmp", "/etc", "/run", "/opt/finn/x")  # podman's mounts, and what it makes for them
    assert [line for line in it.changed() if line.split()[1].startswith("/etc/")] == []
    assert [line for line in it.changed() if not line.split()[1].startswith(own)] == []


# ---------------------------------------------------------------- what starts it and what looks after it


def test_on_every_address_without_a_token_it_ends_with_2_and_one_sentence(yard: Yard) -> None:
    told = yard.podman("run", "--rm", "--network", "none", *TIGHT, IMAGE, check=False)
    assert told.returncode == 2
    (sentence,) = [line for line in told.stderr.splitlines() if line.startswith("finn: ")]
    assert "FINN_TOKEN" in sentence


def test_a_data_directory_that_it_may_not_write_ends_it_with_1_and_one_sentence(make: Make) -> None:
    it = make()
    shutil.chown(it.data, 0, 0)  # as Docker makes a folder that is to be mounted and is not there
    it.data.chmod(0o755)
    told = it.command("serve")
    assert told.returncode == 1
    (sentence,) = [line for line in told.stderr.splitlines() if line.startswith("finn: ")]
    assert "/data" in sentence


def test_the_health_check_tells_a_finn_that_lives_from_one_that_does_not(yard: Yard, make: Make) -> None:
    config = json.loads(yard.podman("image", "inspect", IMAGE).stdout)[0]
    kind, *check = config["HealthCheck"]["Test"] if "HealthCheck" in config else config["Healthcheck"]["Test"]
    assert kind == "CMD"
    it = make()
    it.start()
    port = {"FINN_PORT": str(it.port)}
    assert it.inside(*check, env=port).returncode == 0
    wrong = it.inside(*check, env={"FINN_PORT": "1"})
    assert (wrong.returncode, wrong.stderr.startswith("finn: ")) == (1, True)
    it.inside("sh", "-c", f"kill -STOP {json.loads((it.data / 'run.json').read_text())['pid']}")
    late = it.inside(*check, env=port)
    assert (late.returncode, late.stderr.splitlines()[0]) == (1, "finn: timed out")


def test_as_first_process_it_reaps_the_orphans_of_its_tools(make: Make) -> None:
    """A command leaves a process behind that outlives it, and ends with a code of its own."""
    left = "setsid sh -c 'echo $$ >left; read line <gate' >/dev/null 2>&1 &"
    it = make(
        calls("leave", f"mkfifo gate; {left} until [ -s left ]; do sleep 0.01; done; exit 7"), FINN_SANDBOX="none"
    )
    it.start()
    reply = it.say(it.new_session(), "leave")["reply"]
    assert "Command exited with code 7" in reply
    orphan = (it.data / "workspace" / "left").read_text().strip()
    parent = "import sys; print(open(f'/proc/{sys.argv[1]}/stat').read().rpartition(')')[2].split()[1])"
    assert it.inside("python", "-c", parent, orphan).stdout == "1\n"
    it.inside("sh", "-c", "echo >/data/workspace/gate")
    until(lambda: it.inside("test", "-e", f"/proc/{orphan}").returncode == 1, "the orphan stayed a zombie")


# ---------------------------------------------------------------- where its commands run


def rung(it: Finn) -> Any:
    until(lambda: "sandbox:rung" in it.ask("GET", "/health").json["checks"])
    return it.ask("GET", "/health").json["checks"]["sandbox:rung"][0]


def test_health_names_the_rung_and_says_why_there_is_no_better_one(make: Make) -> None:
    it = make()
    it.start()
    found = rung(it)
    assert found["observedValue"] in ("bwrap", "landlock", "refused")
    assert found["observedValue"] == "bwrap" or found["output"]


def test_where_a_container_may_nest_commands_run_under_bubblewrap(make: Make) -> None:
    nesting = ("--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL")
    it = make(calls("who", "id -u; ls /proc | grep -c '^[0-9]'; ls /data 2>&1"), options=(*TIGHT, *nesting))
    it.start()
    assert rung(it)["observedValue"] == "bwrap"
    reply = it.say(it.new_session(), "who")["reply"]
    assert f"{USER}\n" in reply
    assert "workspace" in reply
    assert "wal" not in reply


# ---------------------------------------------------------------- what it is made of


def test_it_weighs_no_more_than_it_may_and_says_of_what(yard: Yard) -> None:
    unpacked, sent = re.search(r"^all +([0-9.]+) +([0-9.]+)$", yard.weights, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert float(unpacked) <= MOST_MB
    assert float(sent) <= MOST_SENT_MB
    parts = yard.weights.partition("part ")[2].splitlines()[1:]
    assert sum(float(line.split()[-1]) for line in parts if line and line[0] != " ") == pytest.approx(
        float(unpacked), rel=0.1
    ), "the parts are the whole, but for headers and padding"


LOOK = r"""
import importlib.util, json, os, pathlib, shutil, stat, sys, sysconfig
site, library = pathlib.Path(sysconfig.get_path("purelib")), pathlib.Path(sysconfig.get_path("stdlib"))
files = [p for p in pathlib.Path("/").rglob("*") if p.parts[1] not in ("proc", "sys", "dev", "run", "data", "tmp")]
compiled = [p for root in (site, library) for p in root.rglob("*.py")]
def flags(p):
    cached = pathlib.Path(importlib.util.cache_from_source(str(p)))
    return int.from_bytes(cached.read_bytes()[4:8], "little") if cached.exists() else None
print(json.dumps({
    "modules": [n for n in ("pip", "ensurepip", "idlelib", "tkinter", "hatchling") if importlib.util.find_spec(n)],
    "commands": [n for n in ("pip", "pip3", "curl", "perldoc", "gcc") if shutil.which(n)],
    "raises": [str(p) for p in files if p.is_file() and not p.is_symlink() and p.stat().st_mode & 0o6000],
    "writable": [str(p) for p in files if not p.is_symlink() and os.access(p, os.W_OK)],
    "services": sorted(p.name for p in (site / "botocore/data").iterdir() if p.is_dir()),
    "tops": sorted(p.name for p in (site / "botocore/data").iterdir() if p.is_file()),
    "unchecked": [str(p) for p in compiled if flags(p) != 3],
    "lent": [n for n in ("/etc/pip.conf", "/run/secrets/ca", "/build", "/src", "/wheels") if os.path.exists(n)],
    "licences": len(list(pathlib.Path("/usr/share/doc").glob("*/copyright"))),
    "needed": [n for n in ("git", "bwrap", "prlimit", "choom", "bash") if not shutil.which(n)],
}))
"""


def test_it_holds_what_finn_needs_and_nothing_that_only_a_build_does(yard: Yard) -> None:
    told = yard.podman("run", "--rm", "--network", "none", *TIGHT, "--entrypoint", "python", IMAGE, "-c", LOOK)
    found = json.loads(told.stdout)
    assert found.pop("licences") > 50
    assert [one for one in found.pop("writable") if not one.startswith(("/var/tmp", "/var/lock"))] == []
    assert {"endpoints.json", "partitions.json", "_retry.json"} <= set(found.pop("tops"))
    assert found.pop("services") == ["s3", "signin", "sso", "sso-oidc", "sts"]
    assert {name: some for name, some in found.items() if some} == {}


def test_its_labels_say_what_it_is_and_its_settings_are_those_of_the_contract(yard: Yard) -> None:
    image = json.loads(yard.podman("image", "inspect", IMAGE).stdout)[0]
    config, settings = image["Config"], dict(one.split("=", 1) for one in image["Config"]["Env"])
    assert (config["User"], config["WorkingDir"]) == (f"{USER}:{USER}", "/data")
    assert (config["Entrypoint"], config["Cmd"]) == (["finn"], ["serve"])
    assert (list(config["Volumes"]), list(config["ExposedPorts"])) == (["/data"], ["8080/tcp"])
    assert settings["FINN_RELEASE"] == RELEASE
    assert (settings["HOME"], settings["FINN_DATA_DIR"]) == ("/data", "/data")
    assert (settings["PYTHONSAFEPATH"], settings["PYTHONDONTWRITEBYTECODE"]) == ("1", "1")
    assert config["Labels"]["org.opencontainers.image.revision"] == RELEASE
    assert TOKEN not in json.dumps(image)


def test_the_folder_it_is_built_from_shows_the_build_nothing_but_the_program() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert allowed == {name for line in copied for name in line.split()}


@pytest.mark.skipif(not DEEP, reason="two builds from nothing take minutes; scripts/test deep")
def test_the_same_inputs_give_the_same_image(yard: Yard) -> None:
    tags = ("localhost/finn:once", "localhost/finn:twice")
    for tag in tags:
        yard.built(tag, "--anew")
    assert yard.id_of(tags[0]) == yard.id_of(tags[1])
