"""What an unlucky operator does: the store is emptied, set back or unmounted under a finn that runs; keys are wrong; a
network is slow; a folder is gone. Nothing that was acknowledged is lost for it, and what is said helps a person on.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.finn import ECHO, Finn, made, until
from tests.end_to_end.machines import TOKEN, Directory, Remote, lose, ready, saved, source, texts
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_server import KEY_ID, SECRET, S3Server

Start = Callable[..., Finn]
QUIET_S = 3.0  #: longer than a writer trusts that what it wrote is there still


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a finn on a directory of its own."""
    with ExitStack() as stack:

        def started(**settings: str) -> Finn:
            it = made(tmp_path / "one", [ECHO], {"FINN_TOKEN": TOKEN, **settings})
            stack.callback(it.kill)
            it.start()
            return it

        yield started


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with S3Server() as server, FaultProxy(server.port) as one:
        one.bucket = server.bucket()  # type: ignore[attr-defined]  # for `behind`
        yield one


def behind(proxy: FaultProxy) -> dict[str, str]:
    """The settings of a finn whose bucket is behind the proxy."""
    return {
        "FINN_STORE_URL": f"s3://{proxy.bucket}/finn",  # type: ignore[attr-defined]
        "AWS_ENDPOINT_URL_S3": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


def empty(store: Directory, past: Path) -> None:
    """Everything in it is gone."""
    store.empty()


def set_back(store: Directory, past: Path) -> None:
    """It is as it was some time ago."""
    shutil.rmtree(store.folder)
    shutil.copytree(past, store.folder)


def behead(store: Directory, past: Path) -> None:
    """Only what says where the log begins is gone."""
    shutil.rmtree(store.folder / "main" / "manifest")


@pytest.mark.parametrize(("what", "level"), [(empty, "local"), (set_back, "store"), (behead, "local")])
def test_what_a_store_lost_under_a_running_finn_is_sent_there_again(
    start: Start, store: Directory, tmp_path: Path, what: Callable[[Directory, Path], None], level: str
) -> None:
    it = start(**store.settings, FINN_DURABILITY=level)
    session = it.new_session()
    it.say(session, "long ago")
    saved(it)
    shutil.copytree(store.folder, tmp_path / "past")
    it.say(session, "before")
    (it.data / "workspace" / "file").write_text("kept")
    it.restart()
    until(lambda: "workspace/file" in [one["path"] for one in it.ask("GET", "/api/storage").json["inventory"]])
    saved(it)
    until(lambda: float(it.ask("GET", "/health").json["uptime"]) > QUIET_S)
    what(store, tmp_path / "past")
    it.say(session, "after")
    saved(it)
    until(lambda: "lost what it had confirmed" in it.log)
    saved(it)
    lose(it)
    it.start()
    said = [one for one in texts(it, session) if not one.startswith("You said")]
    assert said == ["long ago", "before", "after"]
    assert (it.data / "workspace" / "file").read_text() == "kept"


@pytest.mark.parametrize("what", [empty, set_back])
def test_what_was_put_on_top_of_a_hole_is_made_good_by_the_next_start(
    start: Start, store: Directory, tmp_path: Path, what: Callable[[Directory, Path], None]
) -> None:
    it = start(**store.settings)
    session = it.new_session()
    it.say(session, "long ago")
    saved(it)
    shutil.copytree(store.folder, tmp_path / "past")
    it.say(session, "before")
    saved(it)
    what(store, tmp_path / "past")
    it.say(session, "after")  # so soon that nobody looks what is below
    saved(it)
    it.restart()
    saved(it)
    lose(it)
    it.start()
    assert [one for one in texts(it, session) if not one.startswith("You said")] == ["long ago", "before", "after"]
    assert (it.data / "grimoires" / "BEAUVOIR.md").exists()


def test_what_git_got_while_the_store_was_behind_is_there_when_the_machine_is_lost(
    start: Start, store: Directory, tmp_path: Path
) -> None:
    remote = Remote(tmp_path)
    it = start(**store.settings, **remote.settings, FINN_ARCHIVE_INTERVAL="1s")
    session = it.new_session()
    it.say(session, "long ago")
    saved(it)
    store.take_away()
    it.say(session, "while the store was away")
    (it.data / "workspace" / "file").write_text("kept")
    it.restart()
    until(lambda: "workspace/file" in [one["path"] for one in it.ask("GET", "/api/storage").json["inventory"]])
    seq = it.ask("GET", "/api/storage").json["seq"]
    until(lambda: remote.seq >= seq, "never archived")
    lose(it)
    store.bring_back()
    it.start()
    assert (source(it)["observedValue"], "git was taken" in source(it)["output"]) == ("git", True)
    assert texts(it, session)[::2] == ["long ago", "while the store was away"]
    it.say(session, "and on")
    saved(it)
    lose(it)
    shutil.rmtree(remote.folder)
    it.start()
    assert source(it)["observedValue"] == "store", "which has all of it again"
    assert texts(it, session)[::2] == ["long ago", "while the store was away", "and on"]
    assert (it.data / "workspace" / "file").read_text() == "kept"


def test_a_store_that_takes_a_second_for_each_call_ends_in_a_finn_that_serves(start: Start, proxy: FaultProxy) -> None:
    proxy.add(Fault("delay", seconds=0.6, times=None))  # some twenty calls until it is known what the store can do
    it = start(**behind(proxy))
    until(lambda: ready(it) == "ok")
    session = it.new_session()
    it.say(session, "said slowly")
    saved(it)
    lose(it)
    it.start()
    until(lambda: ready(it) == "ok")
    assert texts(it, session) == ["said slowly", "You said: said slowly"]


def test_a_wrong_key_on_an_empty_disk_is_said_as_such(start: Start, proxy: FaultProxy) -> None:
    proxy.add(Fault("status", status=403, code="InvalidAccessKeyId", times=None))
    it = start(**behind(proxy))
    (state,) = it.ask("GET", "/health").json["checks"]["gateway:state"]
    assert state["observedValue"] == "silent"
    assert "403 InvalidAccessKeyId" in state["output"]
    assert "correct AWS_ACCESS_KEY_ID" in state["output"]
    proxy.clear()
    until(lambda: ready(it) == "ok")


def test_a_folder_that_is_gone_at_a_start_is_written_back_and_not_taken_for_deleted(
    start: Start, store: Directory
) -> None:
    it = start(**store.settings)
    (it.data / "workspace" / "file").write_text("kept")
    it.restart()
    until(lambda: "workspace/file" in [one["path"] for one in it.ask("GET", "/api/storage").json["inventory"]])
    it.kill()
    shutil.rmtree(it.data / "workspace")
    shutil.rmtree(it.data / "grimoires")
    it.start()
    assert (it.data / "workspace" / "file").read_text() == "kept"
    assert (it.data / "grimoires" / "BEAUVOIR.md").exists()
    assert it.ask("GET", "/health").json["status"] == "pass"
