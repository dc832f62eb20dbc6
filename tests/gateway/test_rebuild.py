"""`finn restore` and `finn verify --store`, as a person calls them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.folds import FOLDS
from persistence.archive import Archive
from persistence.clock import FakeClock, Ids
from persistence.disk import SystemDisk
from persistence.events import SYSTEM
from persistence.files import Files, Root
from persistence.layout import COLLECTED
from persistence.picture import take
from persistence.redact import Redactor
from persistence.replay import Paths
from persistence.store import Below
from persistence.stores.file import FileStore
from tests.persistence.journals import STREAM, opened, say, texts
from tests.persistence.replicas import LONG
from tests.persistence.starts import Agent

Call = Callable[..., tuple[int, str, str]]
ROOTS: tuple[Root, ...] = ("grimoires", "workspace")


class Copied:
    """A data directory with copies of it, and what its state is."""

    def __init__(self, root: Path, store: Path, seq: int, state_sha: str) -> None:
        self.root = root
        self.store = store
        self.seq = seq
        self.state_sha = state_sha


@pytest.fixture
def copied(tmp_path: Path, seed: int) -> Copied:
    return asyncio.run(_live(tmp_path, seed))


async def _live(tmp_path: Path, seed: int) -> Copied:
    root, objects = tmp_path / "life", tmp_path / "objects"
    objects.mkdir()
    agent = Agent(seed, Below(FileStore(objects), "main"), folds=FOLDS)
    async with agent.life(root) as life:
        for name in ROOTS:
            (root / name).mkdir()
            (root / name / "file.md").write_text(f"in {name}")
            await Files(life.journal, SystemDisk(), Redactor({}), name, root / name).look(SYSTEM)
        for about in ("first", "second"):
            await life.talk(about)
            await say(life.journal, f"{about} {LONG}")
            await life.compact()
        await life.talk("tail")
        await life.flush()
        archive = Archive(SystemDisk(), Paths(root), Ids(FakeClock(), agent.rng.randbytes))
        picture = await take(life.journal, manifest=1, time=1)
        await asyncio.to_thread(archive.commit, picture, life.journal)
        return Copied(root, objects, *life.state)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], copied: Copied) -> Iterator[Call]:
    monkeypatch.setenv("FINN_STORE_URL", f"file://{copied.store}")
    monkeypatch.setenv("FINN_DATA_DIR", str(copied.root))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run


def answer(out: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(out)
    return body


async def _heard(root: Path) -> list[str]:
    async with opened(root, *FOLDS) as journal:
        assert journal.loss == ""
        return texts(await journal.read(STREAM, limit=1000))


@pytest.mark.parametrize("source", ["store", "auto"])
def test_a_directory_is_rebuilt_whole_from_the_store(call: Call, copied: Copied, tmp_path: Path, source: str) -> None:
    code, out, err = call("restore", "--to", tmp_path / "new", "--from", source, "--json")
    assert (code, err) == (0, "")
    told = answer(out)
    assert (told["source"], told["seq"], told["state_sha"]) == ("store", copied.seq, copied.state_sha)
    assert [(tmp_path / "new" / root / "file.md").read_text() for root in ROOTS] == [f"in {root}" for root in ROOTS]
    copied.store.rename(tmp_path / "gone")
    heard = asyncio.run(_heard(tmp_path / "new"))
    assert heard[-1] == "tail, question 2"
    assert f"first {LONG}" in heard


def test_a_directory_is_rebuilt_whole_from_git(call: Call, copied: Copied, tmp_path: Path) -> None:
    code, out, err = call("restore", "--to", tmp_path / "new", "--from", "git", "--json")
    assert (code, err) == (0, ""), out
    assert answer(out)["source"] == "git"
    assert (tmp_path / "new/grimoires/file.md").read_text() == "in grimoires"
    assert asyncio.run(_heard(tmp_path / "new"))[-1] == "tail, question 2"


def test_git_is_taken_and_said_where_the_store_is_gone(call: Call, copied: Copied, tmp_path: Path) -> None:
    copied.store.rename(tmp_path / "gone")
    code, out, _ = call("restore", "--to", tmp_path / "new")
    assert code == 1
    assert "restored from git" in out
    assert "git was taken" in out


def test_an_earlier_state_can_be_had_from_the_store(call: Call, copied: Copied, tmp_path: Path) -> None:
    code, out, _ = call("restore", "--to", tmp_path / "new", "--at", copied.seq - 1, "--json")
    assert (code, answer(out)["seq"]) == (0, copied.seq - 1)


def test_a_record_before_all_that_is_kept_is_refused(call: Call, copied: Copied, tmp_path: Path) -> None:
    _collect(copied.store / "main")
    code, _, err = call("restore", "--to", tmp_path / "new", "--from", "store", "--at", 1)
    assert code == 1
    assert "oldest state" in err


def _collect(store: Path) -> None:
    """What a collection leaves of the beginning: nothing that only older manifests name."""
    for manifest in sorted((store / "manifest").glob("*.json"))[:-1]:
        manifest.write_bytes(COLLECTED) if manifest.name == "000000000001.json" else manifest.unlink()
    for one in (*(store / "seg").glob(f"{1:016d}-*"), store / "log" / f"{1:016d}.wal", store / "log" / f"{2:016d}.wal"):
        one.unlink(missing_ok=True)


@pytest.mark.parametrize("arguments", [("--from", "git", "--at", "3"), ("--at", "0")])
def test_what_makes_no_sense_is_a_fault_of_usage(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _, err = call("restore", "--to", tmp_path / "new", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(call: Call, copied: Copied, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("mine")
    code, _, err = call("restore", "--to", tmp_path / "mine")
    assert code == 1
    assert "not empty" in err
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["diary"]
    assert call("restore", "--to", copied.root)[0] == 1


def test_what_was_interrupted_is_begun_anew_by_the_same_command(call: Call, copied: Copied, tmp_path: Path) -> None:
    half = tmp_path / "new/.restoring/wal/0000000000000001.wal"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half a segment")
    code, out, _ = call("restore", "--to", tmp_path / "new", "--json")
    assert (code, answer(out)["state_sha"]) == (0, copied.state_sha)


def test_what_the_store_lost_is_said_and_the_rest_is_restored(call: Call, copied: Copied, tmp_path: Path) -> None:
    blob = next((copied.store / "main/blob").iterdir())
    blob.unlink()
    code, out, _ = call("restore", "--to", tmp_path / "new", "--from", "store", "--json")
    assert code == 1
    assert blob.name in " ".join(answer(out)["problems"])
    assert answer(out)["seq"] == copied.seq


def test_the_store_proves_itself_beside_the_log(call: Call, copied: Copied) -> None:
    code, out, _ = call("verify", "--store", "--json")
    told = answer(out)
    assert (code, told["ok"], told["store"]["ok"], told["store"]["last_seq"]) == (0, True, True, copied.seq)


def test_the_store_is_proven_where_the_machine_is_gone(call: Call, copied: Copied, tmp_path: Path) -> None:
    code, out, _ = call("verify", "--store", "--data-dir", tmp_path / "nothing")
    assert code == 0
    assert f"{copied.seq} records in" in out
    assert not (tmp_path / "nothing").exists()


def test_a_flipped_bit_in_the_store_is_named(call: Call, copied: Copied) -> None:
    chunk = next((copied.store / "main/chunk").iterdir())
    data = bytearray(chunk.read_bytes())
    data[7] ^= 4
    chunk.write_bytes(data)
    code, out, _ = call("verify", "--store", "--json")
    assert (code, answer(out)["ok"]) == (1, False)
    assert chunk.name in " ".join(answer(out)["store"]["problems"])


def test_a_store_that_is_not_set_or_not_there_is_told(
    call: Call, copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied.store.rename(tmp_path / "gone")
    assert call("verify", "--store")[0] == 1
    monkeypatch.delenv("FINN_STORE_URL")
    assert call("verify", "--store")[0] == 2
