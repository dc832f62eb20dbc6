import asyncio
import random
import shutil
import threading
from pathlib import Path

import pytest

from persistence import cascade
from persistence.cascade import DECISIONS, Choice, decide
from persistence.disk import SystemDisk
from persistence.errors import Fenced, Locked, SourceSilent, StorageError, StoreUnreachable
from persistence.layout import HINT
from persistence.lock import hold
from persistence.recovery import verify
from persistence.remote import look
from persistence.replay import Paths
from persistence.scan import segment_name, segments
from persistence.stores.memory import MemoryStore
from persistence.swap import settled
from tests.persistence.journals import STREAM, killed, logged, texts
from tests.persistence.logs import FaultyDisk
from tests.persistence.starts import OTHER, Agent, Silent, machine_lost
from tests.persistence.writers import Watched

# ---------------------------------------------------------------- the table


def test_every_pair_of_what_is_here_and_what_is_there_has_one_answer() -> None:
    remotes = {"off", "silent", "damaged", "headless", "empty"}
    pairs = {("absent", remote) for remote in remotes | {"here"}}
    pairs |= {("sound", remote) for remote in remotes | {"same", "ahead", "after", "behind", "beyond", "diverged"}}
    assert set(DECISIONS) == pairs


def test_nothing_is_claimed_where_a_source_did_not_answer_or_cannot_be_read() -> None:
    assert {choice.right for (_, remote), choice in DECISIONS.items() if remote in ("silent", "damaged", "off")} == {""}


def test_nothing_here_is_replaced_but_by_a_store_that_answered_with_a_log() -> None:
    taken = {remote for (here, remote), choice in DECISIONS.items() if here == "sound" and choice.act != "keep"}
    assert taken == {"behind", "beyond", "diverged"}


@pytest.mark.parametrize(
    ("longer", "choice"),
    [(True, Choice("keep", "", degraded=True)), (False, Choice("part", "claim"))],
)
def test_of_two_unrelated_histories_the_longer_one_is_served(longer: bool, choice: Choice) -> None:
    assert decide("sound", "unrelated", longer=longer) == choice


def test_a_store_that_no_state_can_be_made_of_never_replaces_anything() -> None:
    assert decide("sound", "beyond", complete=False) == Choice("keep", "anew")
    assert decide("sound", "diverged", complete=False) == Choice("keep", "anew")
    assert decide("absent", "here", complete=False) == Choice("elsewhere", "anew")


# ---------------------------------------------------------------- lives


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def agent(seed: int, store: MemoryStore) -> Agent:
    return Agent(seed, store)


async def lived(agent: Agent, root: Path) -> tuple[int, str]:
    """A life with a compaction in the middle and a tail; all of it is in the store."""
    async with agent.life(root) as life:
        await life.talk("first")
        await life.compact()
        await life.talk("second")
        await life.compact()
        await life.talk("third")
        await life.flush()
        return life.state


async def test_a_first_start_takes_the_template_and_claims_the_empty_store(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "template"
        assert life.recovered.claimed is not None
        assert (life.journal.epoch, life.recovered.degraded) == (1, "")


async def test_a_lost_machine_comes_back_from_the_store_with_the_same_state(agent: Agent, tmp_path: Path) -> None:
    before = await lived(agent, tmp_path / "a")
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "store"
        assert life.journal.replayed.head.seq == before[0]
        told = texts(await life.journal.read(STREAM, limit=1000))
        assert told == [f"{about}, question {n}" for about in ("first", "second", "third") for n in range(3)]
        assert life.journal.epoch == 2
        assert not life.journal.loss
    async with agent.life(tmp_path / "a") as again:
        await again.flush()


async def test_a_snapshot_that_sums_up_everything_is_a_whole_past(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.compact()
        await life.journal.seal(STREAM)
        await life.journal.snapshot()
        await life.compact_as_it_is()
        before = life.state
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert (life.journal.replayed.head.seq, life.journal.loss) == (before[0], "")
        await life.talk("and on", 1)
    verdict = verify(SystemDisk(), tmp_path / "a/wal")
    assert (verdict.ok, verdict.gaps) == (True, ())


async def test_the_state_is_the_same_byte_for_byte(agent: Agent, tmp_path: Path) -> None:
    before = await lived(agent, tmp_path / "a")
    recovered = await asyncio.to_thread(agent.recover, tmp_path / "b")
    recovered.origin.lock.release()
    async with Agent(1).life(tmp_path / "b") as life:
        assert life.journal.replayed.head.seq == before[0]
        assert (life.journal.replayed.head.seq, life.state[1]) == before


async def test_a_start_after_a_clean_stop_takes_five_requests(seed: int, store: MemoryStore, tmp_path: Path) -> None:
    watched = Watched(store)
    agent = Agent(seed, watched)
    async with agent.life(tmp_path / "a") as life:
        await life.talk("once")
        await life.compact()
    watched.calls.clear()
    recovered = await asyncio.to_thread(agent.recover, tmp_path / "a")
    recovered.origin.lock.release()
    assert recovered.origin.source == "local"
    assert [call for call, _ in watched.calls] == ["get", "get", "get", "create", "create"], watched.calls


async def test_what_is_only_here_stays_and_goes_up(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.compact()
        await life.talk("not copied")
        before = life.state
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "local"
        assert life.journal.seq >= before[0]
        await life.flush()
        assert life.replica and life.replica.confirmed == life.journal.seq
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert "not copied, question 2" in texts(await life.journal.read(STREAM, limit=1000))


async def test_what_only_the_store_has_is_added_to_what_is_here(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.compact()
        older = killed(tmp_path / "a", tmp_path / "copies")
        await life.talk("second")
        await life.flush()
        before = life.state
    async with agent.life(older) as life:
        assert life.recovered.origin.source == "store"
        assert life.journal.replayed.head.seq == before[0]
        assert "second, question 2" in texts(await life.journal.read(STREAM, limit=1000))
    assert verify(SystemDisk(), older / "wal").ok
    assert not [path for path in (older / "quarantine").iterdir() if path.name.startswith("log-")]


async def test_a_disk_too_old_to_be_continued_is_replaced_and_kept_in_quarantine(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("first")
        await life.flush()
        older = killed(tmp_path / "a", tmp_path / "copies")
        for about in ("second", "third", "fourth"):
            await life.talk(about)
            await life.compact()
        before = life.state
    kept = {path.read_bytes() for path in (older / "wal").glob("*.wal")}
    async with agent.life(older) as life:
        assert life.journal.replayed.head.seq == before[0]
        assert life.recovered.origin.source == "store"
    assert kept <= {path.read_bytes() for path in (older / "quarantine").rglob("*.wal")}


async def test_a_history_that_parted_ways_comes_back_as_orphans(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("both")
        await life.compact()
        twin = killed(tmp_path / "a", tmp_path / "copies")
        parted = life.journal.seq
    alone = Agent(7)
    async with alone.life(twin) as life:
        await life.talk("said here alone")
        lost = life.journal.seq
    async with agent.life(tmp_path / "a") as life:
        await life.talk("said there")
        await life.flush()
        there = life.state
    async with agent.life(twin) as life:
        origin = life.recovered.origin
        assert (origin.source, origin.discarded) == ("store", ((parted + 1, lost),))
        assert life.recovered.orphans == 1
        assert life.journal.replayed.head.seq == there[0]
        heard = texts(await life.journal.read(STREAM, limit=1000))
        assert "said there, question 2" in heard
        assert "said here alone, question 2" not in heard
    orphans = [data for key, data in store.objects.items() if key.startswith("orphans/")]
    assert b"said here alone, question 2" in b"".join(orphans)
    assert b"said here alone" in b"".join(path.read_bytes() for path in (twin / "quarantine").rglob("*.wal"))


async def test_an_unreachable_store_degrades_a_start_and_nothing_is_claimed(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    before = await lived(agent, tmp_path / "a")
    objects = dict(store.objects)
    agent.store = Silent()
    async with agent.life(tmp_path / "a") as life:
        assert (life.recovered.origin.source, life.recovered.claimed) == ("local", None)
        assert "no answer" in life.recovered.degraded
        assert life.journal.epoch == 1
        assert life.journal.replayed.head.seq == before[0]
        await life.talk("meanwhile")
    assert store.objects == objects
    agent.store = store
    async with agent.life(tmp_path / "a") as life:
        assert (life.recovered.degraded, life.journal.epoch) == ("", 2)
        await life.flush()


async def test_an_empty_disk_waits_for_a_store_that_does_not_answer(agent: Agent, tmp_path: Path) -> None:
    agent.store = Silent()
    with pytest.raises(SourceSilent) as raised:
        await asyncio.to_thread(agent.recover, tmp_path / "a")
    assert (raised.value.code, raised.value.retryable) == ("store_unavailable", True)
    hold(tmp_path / "a/wal").release()
    assert not list((tmp_path / "a/wal").glob("*.wal"))


async def test_nobody_begins_anew_without_having_claimed_the_empty_store(
    seed: int, store: MemoryStore, tmp_path: Path
) -> None:
    def silent(call: str, key: str) -> None:
        if call == "create":
            raise StoreUnreachable("no answer")

    agent = Agent(seed, Watched(store, before=silent))
    with pytest.raises(SourceSilent):
        await asyncio.to_thread(agent.recover, tmp_path / "a")


async def test_a_store_that_is_too_slow_is_one_that_does_not_answer(
    seed: int, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "ALONE_S", 0.05)
    release = threading.Event()

    def wait(call: str, key: str) -> None:
        release.wait(60)

    agent = Agent(seed, Watched(store, before=wait))
    with pytest.raises(SourceSilent, match=r"within 0\.05 s"):
        await asyncio.to_thread(agent.recover, tmp_path / "a", patience_s=0.05)
    release.set()


async def test_where_nothing_is_here_a_slow_store_is_waited_for(agent: Agent, tmp_path: Path) -> None:
    before = await lived(agent, tmp_path / "a")
    recovered = await asyncio.to_thread(agent.recover, tmp_path / "b", patience_s=0.0)
    recovered.origin.lock.release()
    assert recovered.origin.replayed
    assert (recovered.origin.source, recovered.origin.replayed.head.seq) == ("store", before[0])


async def test_a_log_without_any_manifest_gets_everything_that_is_here(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    await lived(agent, tmp_path / "a")
    for key in [key for key in store.objects if key.startswith("manifest/")]:
        del store.objects[key]
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.degraded == ""
        await life.talk("since then")
        await life.compact()
        seq = life.journal.seq
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert (life.journal.source, life.journal.replayed.head.seq, life.journal.loss) == ("store", seq, "")


async def test_an_empty_store_gets_everything_that_is_here(seed: int, tmp_path: Path) -> None:
    alone = Agent(seed)
    async with alone.life(tmp_path / "a") as life:
        await life.talk("long ago")
        await life.journal.seal(STREAM)
        await life.journal.snapshot()
        await life.talk("since then")
        before = life.state
    agent = Agent(seed, MemoryStore())
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "local"
        await life.flush()
        await life.compact()
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert life.journal.seq >= before[0]
        told = texts(await life.journal.read(STREAM, limit=1000))
        assert {"long ago, question 0", "since then, question 2"} <= set(told)


async def test_a_hint_that_stayed_behind_hides_no_manifest_that_a_state_can_be_made_of(
    seed: int, store: MemoryStore, tmp_path: Path
) -> None:
    alone = Agent(seed)
    async with alone.life(tmp_path / "a") as life:
        await life.talk("long ago")
        await life.journal.seal(STREAM)
        await life.journal.snapshot()
    agent = Agent(seed, store)
    async with agent.life(tmp_path / "a") as life:
        hint = store.objects[HINT]  # of a manifest whose log begins behind the snapshot, which is not there yet
        await life.flush()
        await life.compact()
        seq = life.journal.seq
    store.objects[HINT] = hint  # killed before it could be moved on
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert (life.journal.source, life.journal.replayed.head.seq, life.journal.loss) == ("store", seq, "")


async def test_two_unrelated_histories_overwrite_one_another_nowhere(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("theirs", 1)
        await life.compact()
    objects = dict(store.objects)
    alone = Agent(99)
    async with alone.life(tmp_path / "b") as life:
        await life.talk("ours", 20, OTHER)
    async with agent.life(tmp_path / "b") as life:
        assert (life.recovered.origin.source, life.recovered.claimed) == ("local", None)
        assert "another history" in life.recovered.degraded
    assert store.objects == objects


async def test_a_store_of_which_nothing_can_be_used_is_left_alone(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    await lived(agent, tmp_path / "a")
    for key in [key for key in store.objects if key.startswith("manifest/0")]:
        store.objects[key] = b"{}"
    objects = dict(store.objects)
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.claimed is None
        assert life.recovered.degraded
    async with agent.life(tmp_path / "empty") as life:
        assert life.recovered.origin.source == "template"
        assert life.recovered.degraded
    assert store.objects == objects


# ---------------------------------------------------------------- damage here, mended from there


async def test_a_damaged_segment_is_mended_byte_for_byte(agent: Agent, tmp_path: Path, seed: int) -> None:
    await lived(agent, tmp_path / "a")
    rng = random.Random(seed)
    path = sorted((tmp_path / "a/wal").glob("*.wal"))[0]
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    victim = rng.randrange(3, len(lines) - 3)
    at = sum(map(len, lines[:victim]))
    length = len(lines[victim])
    path.write_bytes(
        whole[: at + 20] + bytes(b ^ 0x41 for b in whole[at + 20 : at + length - 1]) + whole[at + length - 1 :]
    )
    if verify(SystemDisk(), tmp_path / "a/wal").ok:
        pytest.fail("the damage is none")
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "local"
        assert life.journal.loss == ""
        assert path.read_bytes()[: len(whole)] == whole
    verdict = verify(SystemDisk(), tmp_path / "a/wal")
    assert (verdict.ok, verdict.gaps) == (True, ())


async def test_a_segment_that_is_gone_comes_back(agent: Agent, tmp_path: Path) -> None:
    await lived(agent, tmp_path / "a")
    before = [record.line for record in logged(tmp_path / "a")]
    for path in (tmp_path / "a/wal").glob("*.wal"):
        path.unlink()
    async with agent.life(tmp_path / "a") as life:
        assert life.journal.loss == ""
    after = [record.line for record in logged(tmp_path / "a")]
    assert set(after) <= set(before) | set(after[-2:])
    assert verify(SystemDisk(), tmp_path / "a/wal").ok


async def test_records_that_the_store_does_not_have_are_a_declared_gap(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a") as life:
        await life.talk("copied")
        await life.compact()
        copied = life.journal.seq
        await life.talk("not copied")
        last = life.journal.seq
    base = segments(SystemDisk(), tmp_path / "a/wal")[-1]
    path = tmp_path / "a/wal" / segment_name(base)
    whole = path.read_bytes()
    at = whole.index(b'{"seq":%d,' % (copied + 2))
    path.write_bytes(whole[:at] + b"#" * 40 + whole[at + 40 :])
    async with agent.life(tmp_path / "a") as life:
        assert str(copied + 2) in life.journal.loss
        await life.flush()
    assert verify(SystemDisk(), tmp_path / "a/wal").gaps == ((copied + 2, copied + 2),)
    machine_lost(tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert life.journal.seq > last
        told = texts(await life.journal.read(STREAM, limit=1000))
        assert "not copied, question 2" in told


# ---------------------------------------------------------------- interruptions


async def test_a_restoration_that_stops_at_any_call_is_done_by_the_next_start(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    before = await lived(agent, tmp_path / "a")
    counting = FaultyDisk()
    (await asyncio.to_thread(agent.recover, tmp_path / "count", disk=counting)).origin.lock.release()
    for nth in range(1, counting.calls + 1, max(1, counting.calls // 40)):
        root = tmp_path / str(nth)
        with pytest.raises((StorageError, OSError)):
            recovered = agent.recover(root, disk=FaultyDisk(nth, forever=True))
            recovered.origin.lock.release()
            raise OSError("it got through")
        recovered = agent.recover(root)
        recovered.origin.lock.release()
        async with Agent(3).life(root) as life:
            assert (life.journal.replayed.head.seq, life.state[1]) == before, nth
        shutil.rmtree(root)


async def test_a_store_that_stops_answering_at_any_request_costs_nothing(
    seed: int, store: MemoryStore, tmp_path: Path
) -> None:
    agent = Agent(seed, store)
    before = await lived(agent, tmp_path / "a")
    objects = dict(store.objects)
    for nth in range(1, 60):
        store.objects = dict(objects)
        left = [nth]

        def silent(call: str, key: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] <= 0:
                raise StoreUnreachable("no answer any more")

        agent.store = Watched(store, before=silent)
        root = tmp_path / str(nth)
        try:
            recovered = agent.recover(root)
        except SourceSilent:
            pass
        else:
            recovered.origin.lock.release()
            assert recovered.origin.source == "store"
            if not recovered.degraded:
                break
        agent.store = store
        again = agent.recover(root)
        again.origin.lock.release()
        async with Agent(3).life(root) as life:
            assert (life.journal.replayed.head.seq, life.state[1]) == before, nth
    else:
        pytest.fail("no start got through")


async def test_a_start_is_a_restoration_until_its_files_are_written(agent: Agent, tmp_path: Path) -> None:
    await lived(agent, tmp_path / "a")
    machine_lost(tmp_path / "a")
    for _ in range(2):
        async with agent.life(tmp_path / "a") as life:
            assert life.recovered.origin.source == "store"
            await life.flush()
    settled(SystemDisk(), tmp_path / "a")
    async with agent.life(tmp_path / "a") as life:
        assert life.recovered.origin.source == "local"


async def test_a_writer_that_wrote_until_the_fence_loses_nothing(
    agent: Agent, store: MemoryStore, tmp_path: Path
) -> None:
    """The old instance goes on until the new one has claimed: what it wrote after the look is taken in as well."""
    async with agent.life(tmp_path / "a") as old:
        await old.talk("first")
        await old.compact()
        await old.talk("while the other starts")
        replica = old.replica
        assert replica
        done: list[int] = []

        def meanwhile(call: str, key: str) -> None:
            if call == "create" and key.startswith("manifest/") and not done:
                done.append(replica.flush())

        agent.store = Watched(store, before=meanwhile)
        async with agent.life(tmp_path / "b") as young:
            assert young.journal.replayed.head.seq == old.journal.seq
            assert "while the other starts, question 2" in texts(await young.journal.read(STREAM, limit=1000))
            agent.store = store
            await old.talk("too late", 1)
            with pytest.raises(Fenced):
                await old.flush()


async def test_a_directory_in_use_is_left_alone(agent: Agent, tmp_path: Path) -> None:
    async with agent.life(tmp_path / "a"):
        with pytest.raises(Locked):
            await asyncio.to_thread(agent.recover, tmp_path / "a")
    found = look(agent.store or MemoryStore(), clock=agent.clock)
    assert found is not None
    assert Paths(tmp_path / "a").wal.is_dir()
