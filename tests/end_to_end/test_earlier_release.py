"""Forward and back: a wheel of an earlier commit works on today's directory, today's finn on that one's.

    earlier ─▶ today (store, git) ─▶ earlier ─▶ today ─▶ an empty disk      what each was told, the last one knows

Skipped, visibly, where the commit is not there, as in a shallow clone.
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import count
from tests.end_to_end.finn import ECHO, Finn, made, until
from tests.end_to_end.machines import TOKEN, Directory, Remote, gone, saved, source, texts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EARLIER = "10879046f9f0e0f504facc77da04aa416127077c"  #: the first part of finn, which knows of no copies
WRITE = {"tool": "write", "args": {"path": "{prompt}.txt", "content": "{prompt}"}}
REPLIES = ({"when": "keep", "calls": [[WRITE], [{"text": "Kept: {prompt}"}]]}, ECHO)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a wheel that was built from that commit."""
    there = subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{EARLIER}^{{commit}}"], check=False)
    if there.returncode:
        pytest.skip(f"the clone does not reach back to {EARLIER[:9]}")
    sources, wheel, packages = (tmp_path_factory.mktemp(name) for name in ("sources", "wheel", "packages"))
    archive = subprocess.run(["git", "-C", ROOT, "archive", EARLIER], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", sources], input=archive, check=True)
    build = [sys.executable, "-P", "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheel)]
    subprocess.run(build, cwd=sources, capture_output=True, check=True)
    zipfile.ZipFile(next(wheel.glob("*.whl"))).extractall(packages)
    return packages


class Two:
    """One data directory, of which now this release and now that one takes care."""

    def __init__(self, folder: Path, earlier: Path) -> None:
        self.place, self.remote = Directory(folder), Remote(folder)
        copies = {**self.place.settings, **self.remote.settings}
        here = folder / "one"
        self.today = made(here, REPLIES, {"FINN_TOKEN": TOKEN, **copies})
        self.earlier = made(here, REPLIES, {"FINN_TOKEN": TOKEN, "PYTHONPATH": str(earlier)})

    def kill(self) -> None:
        self.today.kill()
        self.earlier.kill()


@pytest.fixture
def two(tmp_path: Path, earlier: Path) -> Iterator[Two]:
    them = Two(tmp_path, earlier)
    yield them
    them.kill()


def talk(it: Finn, session: str, word: str) -> list[str]:
    """Says something, has a file written, and returns all that the session holds now."""
    assert it.say(session, word)["reply"] == f"You said: {word}"
    assert it.say(session, f"keep-{word}")["reply"] == f"Kept: keep-{word}"
    (it.data / "workspace" / "by-hand.txt").write_text(word)
    return texts(it, session)


def files(it: Finn) -> dict[str, str]:
    return {path.name: path.read_text() for path in (it.data / "workspace").iterdir() if path.is_file()}


def works(it: Finn, session: str, said: list[str]) -> None:
    """It serves, and knows all that was said, whoever it was said to."""
    assert it.ask("GET", "/readyz").status == 200
    assert texts(it, session) == said
    assert it.ask("GET", f"/api/sessions/{session}").json["title"] == "over the years"


@pytest.mark.parametrize("by", ["kill", "stop"][: count(1, 2)])
def test_nothing_is_lost_when_finn_is_rolled_forward_back_and_forward(two: Two, by: str) -> None:
    today, earlier, said = two.today, two.earlier, list[str]()
    session = ""
    for word, it in enumerate((earlier, today, earlier, today, earlier, today)):
        it.start()
        if session:
            works(it, session, said)
        else:
            session = it.new_session("over the years")
        said = talk(it, session, f"word{word}")
        if it is today:
            saved(it)
        else:
            assert it.ask("GET", "/api/storage").status == 404, "the earlier one knows of no copies"
        getattr(it, by)()
    everything = {f"keep-word{n}.txt": f"keep-word{n}" for n in range(6)}

    today.start()
    works(today, session, said)
    assert files(today) == {**everything, "by-hand.txt": "word5"}
    until(lambda: digests({**everything, "by-hand.txt": "word5"}) <= kept(today), "the store never had every file")
    saved(today)
    today.kill()
    gone(today.data)
    today.start()
    assert source(today)["observedValue"] == "store"
    works(today, session, said)
    assert files(today) == {**everything, "by-hand.txt": "word5"}
    today.kill()
    verdict = today.verify()
    assert (verdict["ok"], verdict["damage"], verdict["gaps"]) == (True, [], [])


def kept(it: Finn) -> set[tuple[str, str]]:
    """The files that the store has, each with the hash of what is in it."""
    inventory = it.ask("GET", "/api/storage").json["inventory"]
    return {(one["path"], one["sha256"]) for one in inventory if "store" in one["tiers"]}


def digests(texts: dict[str, str]) -> set[tuple[str, str]]:
    """The same of files of the workspace."""
    return {(f"workspace/{name}", hashlib.sha256(text.encode()).hexdigest()) for name, text in texts.items()}


def test_the_earlier_release_takes_over_a_restored_directory_and_gives_it_back(two: Two) -> None:
    today, earlier = two.today, two.earlier
    today.start()
    session = today.new_session("over the years")
    said = talk(today, session, "today")
    saved(today)
    assert today.stop() == 0
    for copy in ("store", "git"):
        gone(today.data)
        if copy == "git":
            two.place.empty()
        today.start()
        assert source(today)["observedValue"] == copy
        works(today, session, said)
        assert today.stop() == 0
        earlier.start()
        works(earlier, session, said)
        said = talk(earlier, session, f"after-{copy}")
        assert earlier.stop() == 0
        today.start()
        works(today, session, said)
        saved(today)
        assert today.stop() == 0
    assert today.verify()["ok"]
