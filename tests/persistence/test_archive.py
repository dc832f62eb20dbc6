"""The git tier on one machine: what a commit holds, and that a data directory comes back from it."""

import asyncio
import json
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import Damaged, Newer, NotFound
from persistence.events import SYSTEM, FileChanged
from persistence.files import FILES
from persistence.recovery import verify
from persistence.streams import STREAMS
from persistence.tree import VERSION, decode
from tests.persistence.archives import (
    BRANCH,
    FOLDS,
    NOW,
    add,
    archive,
    archived,
    commits,
    git,
    picture,
    restored,
    show,
    tree,
)
from tests.persistence.journals import STREAM, answer, checkpoint, commit, opened, say, texts


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


async def test_a_commit_holds_only_what_changed(tmp_path: Path) -> None:
    folder = tmp_path / "git"
    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "one")
        await add(journal, "same", b"1")
        await add(journal, "other", b"1", executable=True)
        await add(journal, "gone", b"1")
        archive(tmp_path).commit(await picture(journal), journal)
        await add(journal, "other", b"2", executable=True)
        await add(journal, "gone", None)
        archive(tmp_path).commit(await picture(journal), journal)  # by a process that remembers nothing
    changed = git(folder, "diff-tree", "-r", "--name-status", "--no-renames", f"{BRANCH}~1", BRANCH).splitlines()
    assert changed == ["M\tSTATE.json", "M\tsnapshot.json", "D\tworkspace/gone", "M\tworkspace/other"]
    assert tree(folder)["workspace/other"] == "100755"


async def test_sealed_chunks_are_written_once_and_the_tail_ends_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "git"
    async with opened(tmp_path / "a", *FOLDS) as journal:
        one = archive(tmp_path / "a")
        await say(journal, "one", "two")
        one.commit(await picture(journal), journal)
        await journal.seal(STREAM)
        await say(journal, "three")
        one.commit(await picture(journal), journal)
        await journal.seal(STREAM)
        one.commit(await picture(journal), journal)
        sha = journal.state_sha()
    sessions = [[path for path in tree(folder, at) if path.startswith("sessions/")] for at in commits(folder)[::-1]]
    first, second = f"sessions/{STREAM}/{2:016d}.jsonl", f"sessions/{STREAM}/{5:016d}.jsonl"
    tail = f"sessions/{STREAM}/tail.jsonl"
    assert sessions == [[tail], [first, tail], [first, second]]
    assert restored(tmp_path / "a", tmp_path / "b").state.state_sha == sha
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "two", "three"]


async def test_an_answer_that_was_being_written_comes_back_as_far_as_it_was(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await commit(journal, checkpoint("done so"), answer("done"), checkpoint("half an ans"))
        archive(tmp_path / "a").commit(await picture(journal), journal)
        before = [record.type for record in await journal.read(STREAM)]
    restored(tmp_path / "a", tmp_path / "b")
    async with opened(tmp_path / "b", *FOLDS) as journal:
        records = await journal.read(STREAM)
        assert before == ["message_checkpointed", "assistant_message", "message_checkpointed"]
        assert [record.type for record in records] == before[1:]
        assert [record.event.text for record in records if hasattr(record.event, "text")] == ["done", "half an ans"]
        await commit(journal, answer("half an answer"))
        assert [record.type for record in await journal.read(STREAM)][-1] == "assistant_message"
        assert journal.loss == ""


async def test_a_long_text_comes_back(tmp_path: Path) -> None:
    long, longer = "a" * 300_000, "b" * 400_000
    async with opened(tmp_path / "a", *FOLDS) as journal:
        one = archive(tmp_path / "a")
        await say(journal, long)
        await journal.seal(STREAM)
        await say(journal, longer, 'it says "blobs":{"/text":"x"}')
        one.commit(await picture(journal), journal)
    assert sum(path.startswith("blobs/") for path in tree(tmp_path / "a" / "git")) == 2
    assert restored(tmp_path / "a", tmp_path / "b").missing == ()
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert texts(await journal.read(STREAM))[:2] == [long, longer]


async def test_a_link_is_shown_as_one_and_comes_back_with_the_state(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        await journal.commit(
            FileChanged(root="workspace", path="link", sha256=None, bytes=0, link="notes/today.md"), by=SYSTEM
        )
        archive(tmp_path / "a").commit(await picture(journal), journal)
        sha = journal.state_sha()
    assert tree(tmp_path / "a" / "git")["workspace/link"] == "120000"
    came = restored(tmp_path / "a", tmp_path / "b")
    assert (came.state.state_sha, came.missing, came.problems) == (sha, (), ())
    assert not any(path.is_symlink() for path in (tmp_path / "b").rglob("*"))


async def test_many_sessions_come_back_whole(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"01ARZ3NDEKTSV4RRFFQ69G{index:04d}" for index in range(30)]
    async with opened(tmp_path / "a", *FOLDS) as journal:
        for index in range(300):
            name = chance.choice(names)
            await say(journal, f"{index}", stream=name)
            if chance.random() < 0.1:
                await journal.seal(name)
        archive(tmp_path / "a").commit(await picture(journal), journal)
        before = {name: texts(await journal.read(name)) for name in names}
        sha = journal.state_sha()
    came = restored(tmp_path / "a", tmp_path / "b", epoch=9)
    assert (came.state.state_sha, came.problems) == (sha, ())
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert {name: texts(await journal.read(name)) for name in names} == before
        assert all(stream.tail_first is None for stream in journal.streams(STREAMS).values())
        assert [(reign.epoch, reign.first_seq) for reign in journal.reigns.reigns] == [(1, 1), (9, came.state.seq + 1)]


async def test_a_restored_log_proves_itself_and_can_be_archived_and_restored_again(tmp_path: Path) -> None:
    await archived(tmp_path / "0", "one", files={"x": b"1"})
    for index in range(3):
        restored(tmp_path / f"{index}", tmp_path / f"{index + 1}", epoch=index + 2)
        assert verify(SystemDisk(), tmp_path / f"{index + 1}" / "wal").ok
        async with opened(tmp_path / f"{index + 1}", *FOLDS) as journal:
            await say(journal, f"life {index}")
            archive(tmp_path / f"{index + 1}").commit(await picture(journal), journal)
    async with opened(tmp_path / "3", *FOLDS) as journal:
        assert texts(await journal.read(STREAM)) == ["one", "life 0", "life 1", "life 2"]


async def test_a_log_without_sessions_comes_back_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", *FOLDS) as journal:
        archive(tmp_path / "a").commit(await picture(journal), journal)
        seq = journal.seq
    came = restored(tmp_path / "a", tmp_path / "b")
    assert came.seq == came.state.seq == seq
    async with opened(tmp_path / "b", *FOLDS) as journal:
        assert (journal.seq, journal.loss) == (seq, "")


async def test_a_single_body_is_given_by_its_hash_and_nothing_else_is(tmp_path: Path) -> None:
    await archived(tmp_path / "a", "hello", files={"workspace/plan.txt": b"one, two"})
    one = archive(tmp_path / "a")
    assert one.body(sha256(b"one, two").hexdigest()) == b"one, two"
    with pytest.raises(NotFound):
        one.body(sha256(b"three").hexdigest())
    with pytest.raises(NotFound):
        archive(tmp_path / "b").body(sha256(b"one, two").hexdigest())


async def test_a_picture_is_of_one_moment_however_much_is_said_meanwhile(tmp_path: Path) -> None:
    async with opened(tmp_path, *FOLDS) as journal:
        await say(journal, "before")
        over = asyncio.Event()

        async def talk() -> None:
            while not over.is_set():
                await say(journal, "meanwhile")
                await journal.seal(STREAM)

        async with asyncio.TaskGroup() as group:
            group.create_task(talk())
            for _ in range(10):
                taken = await picture(journal)
                sealed = [line for _, ref in taken.chunks for line in journal.chunk(ref.sha256).splitlines()]
                said = [json.loads(line) for line in (*sealed, *taken.tails.get(STREAM, ()))]
                seqs = [record["seq"] for record in said if record["stream"] == STREAM]
                assert seqs == sorted(set(seqs)) and max(seqs) <= taken.seq
                assert taken.streams[STREAM].tail_count == len(taken.tails.get(STREAM, ()))
            over.set()


async def test_an_archive_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    await archived(tmp_path, "one")
    state = archive(tmp_path).latest()
    assert state is not None
    newer = replace(state, v=VERSION + 1).encode()
    with pytest.raises(Newer):
        decode(newer, "x")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"v":1}', b'{"v":"1"}', b"[" * 100_000, b'{"seq":-1}'],
)
def test_what_is_no_state_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode(data, "x")
