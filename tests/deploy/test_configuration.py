"""What a person forgets or gets wrong when finn is brought up: it says so in one sentence, and either serves what it
can or ends for good. Nothing of this is worth a second try by a supervisor, and none asks for one.

    a setting nobody can act on       ends with 2, before a file is touched
    a place that cannot be used       ends with 1, before a file is touched
    a store that does not let it in   serves from its disk, warns, and is well again without a restart
    a clock that is a day off         serves, in order, and says so
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import count
from tests.end_to_end.finn import COMMAND, ECHO, Finn, made, until
from tests.end_to_end.machines import ready, saved
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_server import KEY_ID, SECRET, S3Server

TOKEN = "0123456789abcdef" * 4
PUBLIC = {"FINN_HOST": "0.0.0.0", "FINN_TOKEN": TOKEN, "FINN_PUBLIC_URL": "https://finn.example.org"}
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
PATIENCE_S = 30

pytestmark = pytest.mark.slow


def ended(data: Path, settings: Mapping[str, str], prefix: Sequence[str] = ()) -> tuple[int, str]:
    """The code of a finn that ends by itself, and its one sentence."""
    done = subprocess.run(
        [*prefix, COMMAND, "serve", "--data-dir", data],
        env={"PATH": "/usr/bin:/bin", "HOME": str(data.parent), "FINN_MODEL": "builtin", "FINN_PORT": "0", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("finn: ")
    assert told[0].endswith(")"), "there is no hint"
    assert done.stdout == ""
    return done.returncode, told[0]


# ---------------------------------------------------------------- it ends, once and for good

WITHOUT = {
    "no token on a public host": (
        "FINN_TOKEN",
        "FINN_HOST=0.0.0.0 is reachable from other machines, and FINN_TOKEN is",
    ),
    "no address on a public host": ("FINN_PUBLIC_URL", "and neither FINN_PUBLIC_URL nor FINN_ALLOWED_HOSTS is set"),
}
WRONG = {
    "a weak token": ({"FINN_TOKEN": "hunter2"}, "FINN_TOKEN has fewer than 128 bits"),
    "an address without a scheme": (
        {"FINN_PUBLIC_URL": "finn.example.org"},
        "FINN_PUBLIC_URL is written like https://",
    ),
    "acknowledgements that wait for no bucket": ({"FINN_DURABILITY": "store"}, "FINN_STORE_URL is not set"),
    "a bucket that is no URL": ({"FINN_STORE_URL": "my-bucket"}, "FINN_STORE_URL "),
    "a store inside the data": ({"FINN_STORE_URL": "file://{data}/copy"}, "FINN_STORE_URL lies inside"),
    "a slip of the pen": ({"FINN_SHUTDOWN_BUDGT": "60s"}, "did you mean FINN_SHUTDOWN_BUDGET?"),
    "a port of Kubernetes' making": ({"FINN_PORT": "tcp://10.0.0.7:80"}, "FINN_PORT is a number from 0 to 65535"),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_without_what_a_public_finn_needs_it_ends_with_2_and_says_what(what: str, tmp_path: Path) -> None:
    missing, sentence = WITHOUT[what]
    said = {name: value for name, value in PUBLIC.items() if name != missing}
    code, told = ended(tmp_path / "data", said)
    assert code == 2
    assert sentence in told
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("what", WRONG)
def test_with_a_wrong_setting_it_ends_with_2_and_says_which(what: str, tmp_path: Path) -> None:
    settings, sentence = WRONG[what]
    said = {name: value.format(data=tmp_path / "data") for name, value in settings.items()}
    code, told = ended(tmp_path / "data", {**PUBLIC, **said})
    assert code == 2
    assert sentence in told
    assert not (tmp_path / "data").exists()


def test_on_a_disk_that_is_read_only_it_ends_with_1_and_says_where(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prefix = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", str(data), str(data), "--")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    code, told = ended(data, PUBLIC, prefix)
    assert code == 1
    assert f"{data}" in told
    assert "Read-only file system" in told
    assert list(data.iterdir()) == []


# ---------------------------------------------------------------- it serves what it can


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """The way to a real store."""
    with S3Server() as server, FaultProxy(server.port) as one:
        server.bucket("finn-state")
        yield one


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def begun(stack: ExitStack, folder: Path, **settings: str) -> Finn:
    it = made(folder, [ECHO], {"FINN_TOKEN": TOKEN, **settings})
    stack.callback(it.kill)
    it.start()
    return it


def behind(proxy: FaultProxy, bucket: str = "finn-state") -> dict[str, str]:
    return {
        "BUCKET_NAME": bucket,
        "AWS_ENDPOINT_URL_S3": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "auto",
    }


def check(it: Finn, name: str) -> dict[str, str]:
    (found,) = it.ask("GET", "/health").json["checks"].get(name, [{"status": "absent"}])
    return dict(found)


def answers(it: Finn, text: str = "hello") -> bool:
    return bool(it.say(it.new_session(), text)["reply"] == f"You said: {text}")


def test_with_no_bucket_at_all_a_public_finn_serves_from_its_disk(stack: ExitStack, tmp_path: Path) -> None:
    it = begun(stack, tmp_path, FINN_MODEL="builtin", FINN_HOST="0.0.0.0", FINN_ALLOWED_HOSTS="127.0.0.1")
    assert ready(it) == "ok"
    assert it.ask("GET", "/health").json["status"] == "pass"
    assert "store:lagSeq" not in it.ask("GET", "/health").json["checks"]
    assert it.stop() == 0


REFUSED = {
    "a wrong key": (Fault("status", status=403, code="InvalidAccessKeyId", times=None), "AWS_ACCESS_KEY_ID"),
    "a key without the right": (Fault("status", status=403, code="AccessDenied", times=None), "AccessDenied"),
    "a bucket that is not there": (Fault("status", status=404, code="NoSuchBucket", times=None), "NoSuchBucket"),
    "a clock the store does not take": (
        Fault("status", status=403, code="RequestTimeTooSkewed", times=None),
        "set this machine's clock",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED)[:: count(3, 1)])
def test_what_the_store_refuses_is_said_and_the_disk_serves_until_it_is_put_right(
    what: str, stack: ExitStack, tmp_path: Path, proxy: FaultProxy
) -> None:
    fault, sentence = REFUSED[what]
    it = begun(stack, tmp_path)
    assert it.stop() == 0  # there is a log already: a machine that had no store until now
    it = begun(stack, tmp_path, **behind(proxy))
    saved(it)
    proxy.add(fault)
    assert answers(it)
    until(lambda: check(it, "store:lastError")["status"] == "warn")
    told = check(it, "store:lastError")
    assert sentence in told["output"], told
    health = it.ask("GET", "/health")
    assert (health.status, health.json["status"], ready(it)) == (200, "warn", "ok")
    assert SECRET not in health.body.decode()
    assert answers(it, "still here")
    pid = it.pid
    proxy.clear()
    saved(it)
    assert it.pid == pid
    assert check(it, "store:lastError")["status"] != "warn"
    assert it.stop() == 0


@pytest.mark.parametrize("what", REFUSED)
def test_on_an_empty_disk_it_waits_for_the_store_and_says_for_what(
    what: str, stack: ExitStack, tmp_path: Path, proxy: FaultProxy
) -> None:
    fault, sentence = REFUSED[what]
    proxy.add(fault)
    it = begun(stack, tmp_path, **behind(proxy))
    assert it.ask("GET", "/livez").status == 200
    refused = it.ask("GET", "/readyz")
    assert refused.status == 503
    assert sentence in check(it, "gateway:state")["output"]
    proxy.clear()
    until(lambda: ready(it) == "ok")
    assert answers(it)


@pytest.mark.skipif(FAKETIME is None, reason="there is no libfaketime here")
@pytest.mark.parametrize("off", ["-1d", "+1d"][: count(1, 2)])
def test_a_clock_that_is_a_day_off_loses_no_record_and_no_order(
    off: str, stack: ExitStack, tmp_path: Path, proxy: FaultProxy
) -> None:
    wrong = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    texts = ["on time", "a day off", "on time again"]
    it = begun(stack, tmp_path, **behind(proxy))
    session = it.new_session()
    it.say(session, texts[0])
    assert it.stop() == 0

    it = begun(stack, tmp_path, **behind(proxy), **wrong)
    it.say(session, texts[1])
    (clock,) = (
        each for each in it.ask("GET", "/doctor?only=runtime").json["findings"] if each["id"] == "runtime.clock"
    )
    assert clock["severity"] == ("warn" if off == "-1d" else "pass")
    assert it.stop() == 0

    it = begun(stack, tmp_path, **behind(proxy))
    it.say(session, texts[2])
    assert [each["text"] for each in it.messages(session) if each["role"] == "user"] == texts
    assert it.verify()["ok"]
    assert it.stop() == 0
    shutil.rmtree(it.data)  # and the same from the store alone
    it.start()
    until(lambda: ready(it) == "ok")
    assert [each["text"] for each in it.messages(session) if each["role"] == "user"] == texts
