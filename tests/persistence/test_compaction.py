"""The tail put together: the same frames come back, whatever failed on the way."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence import compaction
from persistence.blobs import Blobs
from persistence.claim import Start
from persistence.clock import FakeClock
from persistence.compaction import (
    SEG_BYTES,
    above,
    compact,
    due,
    newest,
    packed,
    settled,
    split,
)
from persistence.disk import SystemDisk
from persistence.errors import Fenced, StoreError, StoreUnreachable
from persistence.layout import NOTHING, Seg, blob_key, chunk_key, log_key, seg_key
from persistence.replica import Replica
from persistence.restoration import restore
from persistence.segment import Span
from persistence.snapshot import path_of
from persistence.stores.memory import MemoryStore
from tests.conftest import count
from tests.persistence.faulty_store import DOUBTS, REFUSALS, FaultyStore
from tests.persistence.journals import STREAM, answer, commit, ended, opened, say
from tests.persistence.library import Library, Ship, restorable
from tests.persistence.writers import Records, Watched, Writer, seen

# ---------------------------------------------------------------- decisions


def seg(size: int, first: int = 1, last: int = 1) -> Seg:
    return Seg(seg_key(first, NOTHING), NOTHING, size, first, last, NOTHING, NOTHING)


def part(records: Records, first: int, last: int) -> Span:
    return Span(first, last, records.chain(first - 1), records.chain(last), records.span(first, last))


def test_a_tail_is_due_at_32_objects_or_10_megabytes() -> None:
    assert [due(31, 10), due(32, 10), due(1, SEG_BYTES - 1), due(1, SEG_BYTES)] == [False, True, False, True]


def test_the_last_segments_are_merged_while_they_are_no_larger() -> None:
    nine, three, one = seg(9 << 20), seg(3 << 20), seg(1 << 20)
    assert split((nine, three, one), 1 << 20) == ((nine, three), (one,))
    assert split((nine, three, one), 3 << 20) == ((nine,), (three, one))
    assert split((nine, three, one), 1000) == ((nine, three, one), ())


def test_nothing_is_merged_where_there_is_nothing_new() -> None:
    assert split((seg(0), seg(5)), 0) == ((seg(0), seg(5)), ())


@given(st.lists(st.integers(1, SEG_BYTES), max_size=300))
def test_however_long_the_log_only_a_handful_of_small_segments_stay(sizes: list[int]) -> None:
    segs: list[Seg] = []
    for size in sizes:
        stay, merged = split(segs, size)
        segs = [*stay, seg(size + sum(one.bytes for one in merged))]
    assert all(one.bytes <= SEG_BYTES for one in segs)
    assert sum(one.bytes for one in segs) == sum(sizes)
    assert sum(one.bytes < SEG_BYTES // 2 for one in segs) <= 24 + sum(size > SEG_BYTES // 2 for size in sizes)


def test_segments_wholly_below_the_floor_go() -> None:
    segs = (seg(1, 1, 10), seg(1, 11, 20), seg(1, 21, 30))
    assert above(segs, 11) == segs[1:]
    assert above(segs, 20) == segs[1:]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(100, 2000))
def test_parts_are_put_together_in_order_and_cut_at_the_limit(sizes: list[int], limit: int) -> None:
    records = Records()
    records.say(*("x" * size for size in sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SEG_BYTES", limit)
        made = packed(part(records, one, one) for one in range(1, len(sizes) + 1))
    assert b"".join(one.body for one in made) == records.span(1, len(sizes))
    assert all(len(one.body) <= limit or one.first == one.last for one in made)
    assert [(one.chain_in, one.chain_out) for one in made] == [
        (records.chain(one.first - 1), records.chain(one.last)) for one in made
    ]


# ---------------------------------------------------------------- one compaction


def written(seed: int = 1) -> tuple[MemoryStore, Library, Writer]:
    store, library = MemoryStore(), Library(random.Random(seed))
    return store, library, Writer(store, "one", library)


def test_many_small_objects_become_one_segment_and_a_manifest() -> None:
    store, library, one = written()
    replica = one.replica()
    for _ in range(40):
        library.talk()
        replica.flush()
    compact(replica, None)
    manifest = seen(store).manifest
    assert [(one.first, one.last) for one in manifest.segs] == [(1, 40)]
    assert (replica.tail_objects, manifest.log_seq, manifest.log_chain) == (0, 40, library.chain(40))
    assert store.objects[manifest.segs[0].key] == library.span(1, 40)


def test_what_was_said_while_it_was_put_together_stays_in_the_tail() -> None:
    store, library, one = written()
    replica = one.replica()
    library.talk()
    replica.flush()

    def breathe() -> None:
        library.talk()
        replica.flush()

    compact(replica, None, breathe=breathe)
    assert restorable(store, library) == library.durable > 1
    assert replica.tail_objects == library.durable - 1


def test_a_snapshot_goes_up_after_its_chunks_and_blobs_and_before_the_manifest_that_names_it() -> None:
    inner, library, one = written()
    one.store = store = Watched(inner)
    replica = one.replica()
    for _ in range(20):
        library.talk()
    library.seal()
    library.write("NOTES.md", b"mine")
    replica.flush()
    store.calls.clear()
    inner_blobs = {key for key in inner.objects if key.startswith("blob/")}
    compact(replica, library.snapshot())
    kinds = [key.partition("/")[0] for call, key in store.calls if call in ("put", "create")]
    assert [kind for kind in kinds if kind != "blob"] == ["chunk", "snap", "manifest", "manifest"]
    assert {key for key in inner.objects if key.startswith("blob/")} == inner_blobs
    assert restorable(inner, library) == library.durable


def test_only_hashes_of_the_state_are_asked_for_as_blobs() -> None:
    library = Library(random.Random(1))
    library.talk()
    library.write("NOTES.md", b"mine")
    assert library.snapshot().quoted == {library.files["NOTES.md"]}


def test_a_chunk_is_put_once_whatever_came_in_between() -> None:
    inner, library, one = written()
    one.store = store = Watched(inner)
    replica = one.replica()
    for _ in range(3):
        library.talk()
        library.seal()
        replica.flush()
        compact(replica, library.snapshot())
    successor = Writer(store, "two", library).replica()
    library.talk()
    successor.flush()
    compact(successor, library.snapshot())
    puts = [key for call, key in store.calls if call == "put" and key.startswith("chunk/")]
    assert sorted(puts) == sorted(chunk_key(sha) for sha in library.chunks)


def test_a_log_that_begins_in_the_middle_brings_the_blobs_that_its_chunks_and_files_name() -> None:
    store, library, one = written()
    for _ in range(40):
        library.talk()
    library.write("NOTES.md", b"mine")
    library.seal()
    library.talk()
    taken = library.snapshot()
    replica = one.replica(one.claim(start=Start(taken.floor - 1, library.chain(taken.floor - 1))))
    replica.flush()
    assert compact(replica, taken).manifest.complete
    assert {key for key in store.objects if key.startswith("blob/")} == {blob_key(sha) for sha in library.blobs}
    assert restorable(store, library) == library.durable


def test_a_snapshot_that_the_store_does_not_have_the_records_of_does_not_go_up() -> None:
    store, library, one = written()
    replica = one.replica()
    library.talk()
    replica.flush()
    library.talk()
    compact(replica, library.snapshot())
    assert seen(store).manifest.snap is None


def test_a_snapshot_of_another_history_does_not_go_up() -> None:
    store, library, one = written()
    replica = one.replica()
    library.talk()
    replica.flush()
    compact(replica, replace(library.snapshot(), chain=NOTHING))
    assert seen(store).manifest.snap is None


def test_where_a_chunk_is_lost_its_records_stay_in_the_store_and_it_is_told() -> None:
    store, library, one = written()
    replica = one.replica()
    for _ in range(5):
        library.talk()
    library.seal()
    replica.flush()
    taken = library.snapshot()
    library.chunks.clear()
    done = compact(replica, taken)
    assert seen(store).manifest.snap is None
    assert seen(store).manifest.segs[0].first == 1
    assert "is lost" in done.problems[0]


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_an_object_that_is_damaged_in_the_store_is_made_good_from_the_local_log(damage: str) -> None:
    store, library, one = written()
    replica = one.replica()
    for _ in range(5):
        library.talk()
        replica.flush()
    key = log_key(4)
    if damage == "gone":
        del store.objects[key]
    else:
        store.objects[key] = store.objects[key][:-9] + b"flipped!\n"
    done = compact(replica, None)
    assert key in done.problems[0]
    assert store.objects[seen(store).manifest.segs[0].key] == library.span(1, 5)


def test_a_segment_that_is_damaged_is_made_good_when_it_is_merged() -> None:
    store, library, one = written()
    replica = one.replica()
    for _ in range(2):
        library.say("short")
        replica.flush()
        compact(replica, None)
    last = seen(store).manifest.segs[-1]
    store.objects[last.key] = b"nothing of it"
    library.say("long" * 100)
    replica.flush()
    assert last.key in compact(replica, None).problems[0]
    assert restorable(_without_old(store), library) == 3


def _without_old(store: MemoryStore) -> MemoryStore:
    """The store with no manifest but the newest, for the older ones name what was damaged."""
    newest_key = max(key for key in store.objects if key.endswith(".json"))
    for key in [key for key in store.objects if key.endswith(".json") and key != newest_key]:
        del store.objects[key]
    return store


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
def test_a_manifest_whose_answer_is_lost_is_the_one_that_counts_or_never_was(done: bool) -> None:
    inner, library, one = written()
    left = [StoreUnreachable("no answer")] * 2  # the second try is not answered either

    def fail(call: str, key: str) -> None:
        if left and (call, key) == ("create", "manifest/000000000002.json"):
            raise left.pop()

    one.store = Watched(inner, after=fail) if done else Watched(inner, before=fail)
    replica = one.replica()
    library.talk()
    replica.flush()
    with suppress(StoreError):
        compact(replica, None)
    library.talk()
    replica.flush()
    compact(replica, None)
    assert restorable(inner, library) == 2
    assert seen(inner).manifest == replica.manifest


def test_a_fenced_writer_commits_no_manifest() -> None:
    store, library, one = written()
    first = one.replica()
    library.talk()
    first.flush()
    Writer(store, "two", library).replica()
    with pytest.raises(Fenced):
        compact(first, None)
    assert seen(store).manifest.writer == "two"


def test_what_is_in_chunks_is_not_written_into_segments_and_need_not_stay_in_the_local_log() -> None:
    store, library, one = written()
    replica = one.replica()
    for _ in range(5):
        library.talk()
    replica.flush()
    library.seal()
    library.talk()
    replica.flush()
    assert settled(compact(replica, None).manifest) == 0
    manifest = compact(replica, library.snapshot()).manifest
    assert (settled(manifest), restorable(store, library)) == (1, 7)
    library.seal()
    library.talk()
    replica.flush()
    manifest = compact(replica, library.snapshot()).manifest
    assert ([one.first for one in manifest.segs], settled(manifest)) == ([8], 8)
    library.seal()
    replica.flush()
    manifest = compact(replica, library.snapshot()).manifest
    assert (manifest.segs, settled(manifest)) == ((), library.durable + 1)
    assert restorable(store, library) == library.durable


def test_the_newest_snapshot_on_disk_that_holds_what_it_says_is_taken(tmp_path: Path) -> None:
    library = Library(random.Random(1))
    library.talk()
    old = library.snapshot()
    path_of(tmp_path, old.seq).write_bytes(old.data)
    path_of(tmp_path, 9).write_bytes(b"torn")
    assert newest(SystemDisk(), tmp_path) == old
    assert newest(SystemDisk(), tmp_path, after=old.seq) is None
    assert newest(SystemDisk(), tmp_path / "none") is None


# ---------------------------------------------------------------- with a journal


async def test_a_journal_is_restored_to_the_same_state_from_what_compaction_left(tmp_path: Path) -> None:
    store, writer = MemoryStore(), Writer(MemoryStore(), "one")
    writer.store = store
    async with opened(tmp_path / "lived") as journal:
        replica = Replica(
            store, writer.claim(), journal, release="r", clock=FakeClock(), entropy=random.Random(1).randbytes
        )
        for number in range(6):
            await say(journal, f"question {number}", "x" * 300_000)
            await commit(journal, answer(f"answer {number}"), ended())
            await asyncio.to_thread(replica.flush)
            if number % 2:
                await journal.seal(STREAM)
                await journal.snapshot()
                await asyncio.to_thread(replica.flush)
            taken = newest(SystemDisk(), journal.paths.snapshots)
            assert (await asyncio.to_thread(compact, replica, taken)).problems == ()
        await say(journal, "the last word")
        await asyncio.to_thread(replica.flush)
        tip = seen(store)
        built = restore(store, tip, tmp_path / "again", SystemDisk(), ms=0)
        assert (built.seq, built.problems, built.holes) == (journal.seq, (), ())
        state, records = journal.state_sha(), await journal.read(STREAM)
    for key in [key for key in store.objects if key.startswith(("chunk/", "blob/"))]:
        Blobs(SystemDisk(), tmp_path / "again" / f"{key.partition('/')[0]}s").put(store.objects[key])
    async with opened(tmp_path / "again") as again:
        assert again.state_sha() == state
        assert [one.line for one in await again.read(STREAM)] == [one.line for one in records]


# ---------------------------------------------------------------- with all that can go wrong


@pytest.mark.parametrize("case", range(count(40, 2000)))
def test_after_any_sequence_with_faults_the_same_frames_come_back(case: int, seed: int) -> None:
    """Flushes, seals, snapshots, compactions and takeovers, of which each call to the store may fail either way."""
    rng = random.Random(f"{seed} {case}")
    clock, library = FakeClock(), Library(rng)
    inner = MemoryStore(clock)
    store = FaultyStore(inner, rng, rate=0.15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SEG_BYTES", 4000)
        ship = Ship(store, library, clock)
        for _ in range(60):
            ship.sail(rng)
            restorable(inner, library)
        store.calm()
        ship.arrive()
        assert restorable(inner, library) == library.durable


def test_the_simulation_meets_every_fault(seed: int) -> None:
    rng = random.Random(seed)
    clock, library = FakeClock(), Library(rng)
    store = FaultyStore(MemoryStore(clock), rng, rate=0.3)
    ship = Ship(store, library, clock)
    for _ in range(300):
        ship.sail(rng)
    assert {*REFUSALS, *DOUBTS} <= store.seen.keys()
