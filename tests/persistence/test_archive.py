"""The git tier on one machine: what a commit holds, and that a data directory comes back from it."""

import json
from pathlib import Path

from persistence.files import FILES
from persistence.streams import STREAMS
from tests.persistence.archives import (
    BRANCH,
    FOLDS,
    NOW,
    archive,
    archived,
    commits,
    git,
    picture,
    restored,
    show,
    tree,
)
from tests.persistence.journals import STREAM, opened, say, texts


async def test_a_commit_shows_sessions_files_and_what_it_is(tmp_path: Path) -> None:
    sha = await archived(tmp_path / "a", "one", "two", files={"notes/today.md": b"milk"})
    folder = tmp_path / "a" / "git"
    assert tree(folder) == {
        "STATE.json": "100644",
        "snapshot.json": "100644",
        f"sessions/{STREAM}/tail.jsonl": "100644",
        "workspace/notes/today.md": "100644",
    }
    assert show(folder, "workspace/notes/today.md") == "milk"
    said = [json.loads(line)["data"]["text"] for line in show(folder, f"sessions/{STREAM}/tail.jsonl").splitlines()]
    state = json.loads(show(folder, "STATE.json"))
    assert said == ["one", "two"]
    assert (state["seq"], state["epoch"], state["state_sha"], state["time"]) == (4, 1, sha, NOW)


async def test_the_message_names_seq_chain_epoch_and_manifest(tmp_path: Path) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        last = (await say(journal, "one"))[-1]
        archive(tmp_path).commit(await picture(journal, manifest=7), journal)
    message = git(tmp_path / "git", "log", "-1", "--format=%B", BRANCH)
    assert message.splitlines()[0] == f"finn at record {last.seq}"
    assert {f"Seq: {last.seq}", f"Chain: {last.checksum}", "Epoch: 1", "Manifest: 7"} <= set(message.splitlines())


async def test_what_was_archived_comes_back_with_the_same_state(tmp_path: Path) -> None:
    sha = await archived(tmp_path / "a", "one", "two", files={"x": b"\0\xff"})
    came = restored(tmp_path / "a", tmp_path / "b")
    assert (came.missing, came.problems, came.state.state_sha) == ((), (), sha)
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "two"]
        kept = journal.whole(FILES).files["workspace/x"]
        assert kept.sha256 is not None and journal.blobs.get(kept.sha256) == b"\0\xff"
        assert (journal.loss, journal.seq, journal.epoch) == ("", came.seq, 2)
        assert journal.streams(STREAMS)[STREAM].tail_count == 0
        [record] = await say(journal, "three")
        assert record.epoch == 2


async def test_nothing_new_is_no_commit(tmp_path: Path) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "one")
        one = archive(tmp_path)
        assert one.commit(await picture(journal), journal)
        assert one.commit(await picture(journal, manifest=9, time=NOW + 3600), journal) is None
        assert archive(tmp_path).commit(await picture(journal), journal) is None
    assert len(commits(tmp_path / "git")) == 1
