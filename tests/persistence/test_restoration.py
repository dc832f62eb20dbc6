import dataclasses
import random
import zlib
from hashlib import sha256
from pathlib import Path

import pytest

from persistence.clock import FakeClock
from persistence.disk import SystemDisk
from persistence.errors import Damaged, NotFound
from persistence.layout import Seg, Snap, encode_manifest, manifest_key, seg_key
from persistence.recovery import verify
from persistence.remote import Tip, look
from persistence.restoration import Built, restore
from persistence.shelf import Piece, covering, opened_snapshot
from persistence.snapshot import Snapshot, listed
from persistence.stores.memory import MemoryStore
from tests.persistence.journals import STREAM, opened
from tests.persistence.replicas import Hand, Life, lived

EIGHT = 1 << 3


class Flaky(MemoryStore):
    """Gives one damaged answer for each key before the right one."""

    def __init__(self, objects: dict[str, bytes], mask: int) -> None:
        super().__init__()
        self.objects = objects
        self._mask = mask
        self._seen: set[str] = set()

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        data = super().get(key, first, count)
        if not key.startswith(("seg/", "snap/")) or key in self._seen:
            return data
        self._seen.add(key)
        return flipped(data, len(data) // 2, self._mask)


def flipped(data: bytes, at: int, mask: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


def tip(store: MemoryStore) -> Tip:
    found = look(store, clock=FakeClock())
    assert found is not None
    return found


def restored(store: MemoryStore, into: Path, at: int | None = None) -> Built:
    return restore(store, tip(store), into, SystemDisk(), ms=1, at=at)


async def state(root: Path, store: MemoryStore) -> tuple[int, str, list[str]]:
    """What a journal makes of a restored directory, with the bodies that it can read."""
    for kind in ("chunk", "blob"):
        for key, data in store.objects.items():
            if key.startswith(f"{kind}/"):
                sha = key.partition("/")[2]
                path = root / f"{kind}s" / sha[:2] / sha[2:]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    async with opened(root) as journal:
        seq, sha = journal.seq, journal.state_sha()
        read = await journal.read(STREAM, limit=1000)
        assert not journal.loss
        return seq, sha, [record.line.decode() for record in read]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def a_life(tmp_path: Path, store: MemoryStore, seed: int) -> Life:
    return await lived(tmp_path / "life", store, random.Random(seed))


async def test_what_is_restored_has_the_same_state_the_same_bodies_and_proves_itself(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    before = await state(life.root, MemoryStore())
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.chain, built.problems, built.holes) == (life.seq, life.chain, (), ())
    verdict = verify(SystemDisk(), tmp_path / "new/wal")
    assert (verdict.ok, verdict.last_seq, verdict.gaps) == (True, life.seq, ())
    assert await state(tmp_path / "new", store) == before == (life.seq, life.state_sha, before[2])


async def test_a_log_that_was_never_compacted_is_restored_from_its_objects(tmp_path: Path, store: MemoryStore) -> None:
    hand = Hand(store)
    hand.manifest()
    async with opened(tmp_path / "life") as journal:
        hand.log(journal, upto=journal.seq)
        sha = journal.state_sha()
    assert restored(store, tmp_path / "new").snapshot is None
    assert (await state(tmp_path / "new", store))[1] == sha


async def test_an_answer_damaged_on_the_way_is_asked_for_again(tmp_path: Path, store: MemoryStore, seed: int) -> None:
    life = await a_life(tmp_path, store, seed)
    built = restored(Flaky(store.objects, EIGHT), tmp_path / "new")
    assert (built.seq, built.problems) == (life.seq, ())


@pytest.mark.parametrize("kind", ["snap/", "seg/", "manifest/"])
async def test_one_flipped_bit_in_any_object_is_made_up_for_by_an_older_manifest_and_said(
    tmp_path: Path, store: MemoryStore, seed: int, kind: str
) -> None:
    life, rng = await a_life(tmp_path, store, seed), random.Random(seed)
    keys = sorted(key for key in store.objects if key.startswith(kind) and key != "manifest/HINT")
    for turn, key in enumerate(keys):
        whole = dict(store.objects)
        store.objects[key] = flipped(whole[key], rng.randrange(len(whole[key])), 1 << rng.randrange(8))
        found = tip(store)
        needed = key in {found.manifest.snap and found.manifest.snap.key, *(seg.key for seg in found.manifest.segs)}
        built = restored(store, tmp_path / str(turn))
        told = " ".join((*found.problems, *built.problems))
        assert (built.seq, built.chain, built.holes) == (life.seq, life.chain, ()), key
        if needed or key == keys[-1]:
            assert key in told, f"{key} was damaged and nothing was said"
        assert (await state(tmp_path / str(turn), store))[:2] == (life.seq, life.state_sha), key
        store.objects.clear()
        store.objects.update(whole)


async def test_where_every_snapshot_is_damaged_the_whole_log_is_enough(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    snaps = [key for key in store.objects if key.startswith("snap/")]
    for key in snaps:
        store.objects[key] = flipped(store.objects[key], 9, EIGHT)
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.snapshot, built.holes) == (life.seq, None, ())
    assert all(key in " ".join(built.problems) for key in snaps)
    assert (await state(tmp_path / "new", store))[:2] == (life.seq, life.state_sha)


async def test_a_damaged_log_object_costs_its_records_alone_and_they_are_named(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    key = sorted(key for key in store.objects if key.startswith("log/"))[-2]
    lost = tip(store).tail[-2].header
    store.objects[key] = flipped(store.objects[key], len(store.objects[key]) - 9, EIGHT)
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.holes) == (life.seq, ((lost.first, lost.last),))
    assert key in " ".join(tip(store).problems)
    async with opened(tmp_path / "new") as journal:
        assert f"{lost.first}-{lost.last}" in journal.loss
    assert verify(SystemDisk(), tmp_path / "new/wal").gaps == ((lost.first, lost.last),)


@pytest.mark.parametrize("harm", ["truncated", "swapped", "gone", "empty"])
async def test_whatever_stands_in_an_objects_place_is_not_believed(
    tmp_path: Path, store: MemoryStore, seed: int, harm: str
) -> None:
    life = await a_life(tmp_path, store, seed)
    manifest = tip(store).manifest
    assert manifest.snap
    other = next(key for key in store.objects if key.startswith("snap/") and key != manifest.snap.key)
    for key in (manifest.snap.key, manifest.segs[-1].key):
        data = store.objects.pop(key)
        instead = {"truncated": data[: len(data) // 2], "swapped": store.objects[other], "empty": b""}
        if harm in instead:
            store.objects[key] = instead[harm]
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.chain) == (life.seq, life.chain)
    assert len(built.problems) == 2
    assert (await state(tmp_path / "new", store))[1] == life.state_sha


async def test_an_old_manifest_under_a_new_number_is_not_believed(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    newest = max(key for key in store.objects if key.startswith("manifest/0"))
    newer = f"manifest/{int(newest[9:21]) + 1:012d}.json"
    store.objects[newer] = store.objects["manifest/000000000002.json"]
    assert newer in " ".join(tip(store).problems)
    assert restored(store, tmp_path / "new").seq == life.seq


async def test_a_snapshot_that_swells_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(300 << 20), 9)
    with pytest.raises(Damaged, match="far larger"):
        opened_snapshot(bomb, Snap("snap/x", "", len(bomb), 1, ""))


async def test_a_snapshot_nested_without_end_is_damaged_and_no_crash(tmp_path: Path) -> None:
    deep = zlib.compress(b"[" * 200_000)
    with pytest.raises(Damaged):
        opened_snapshot(deep, Snap("snap/x", "", len(deep), 1, ""))


async def test_a_snapshot_of_another_record_is_not_taken(tmp_path: Path) -> None:
    data = Snapshot(7, "a" * 64, 1, {}).encode()
    with pytest.raises(Damaged, match="another record"):
        opened_snapshot(data, Snap("snap/x", "", len(data), 8, "a" * 64))


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/cron.d/x", "seg/../../x", "seg/a\0b", "seg/" + "x" * 4000]
)
async def test_a_name_that_leads_elsewhere_is_not_followed_though_every_hash_is_right(
    tmp_path: Path, store: MemoryStore, seed: int, name: str
) -> None:
    life = await a_life(tmp_path, store, seed)
    manifest = tip(store).manifest
    segs = tuple(dataclasses.replace(seg, key=name) for seg in manifest.segs)
    store.objects[manifest_key(manifest.m)] = encode_manifest(dataclasses.replace(manifest, segs=segs))[1]
    before = set(tmp_path.rglob("*"))
    built = restored(store, tmp_path / "new")
    assert built.seq == life.seq
    assert manifest_key(manifest.m) in " ".join(tip(store).problems)
    assert {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before} == {"new"}


async def test_a_segment_that_claims_to_be_huge_is_not_fetched(tmp_path: Path, store: MemoryStore, seed: int) -> None:
    life = await a_life(tmp_path, store, seed)
    manifest = tip(store).manifest
    segs = tuple(dataclasses.replace(seg, bytes=1 << 40) for seg in manifest.segs)
    store.objects[manifest_key(manifest.m)] = encode_manifest(dataclasses.replace(manifest, segs=segs))[1]
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.holes) == (life.seq, ())
    assert "more than a segment" in " ".join(built.problems)


async def test_records_that_hash_right_but_do_not_follow_one_another_are_refused(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    manifest = tip(store).manifest
    seg = manifest.segs[-1]
    lines = store.objects[seg.key].splitlines(keepends=True)
    forged = b"".join([*lines[:1], lines[0].replace(b'"seq":', b'"seq":9'), *lines[2:]])
    sha = sha256(forged).hexdigest()
    instead = dataclasses.replace(seg, key=seg_key(seg.first, sha), sha256=sha, bytes=len(forged))
    store.objects[instead.key] = forged
    changed = dataclasses.replace(manifest, segs=(*manifest.segs[:-1], instead))
    store.objects[manifest_key(manifest.m)] = encode_manifest(changed)[1]
    built = restored(store, tmp_path / "new")
    assert (built.seq, built.chain) == (life.seq, life.chain)
    assert instead.key in " ".join(built.problems)


async def test_an_earlier_record_can_be_asked_for_down_to_the_oldest_that_is_kept(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    snapshots = sorted({int(key[5:21]) for key in store.objects if key.startswith("snap/")})
    for turn, at in enumerate([snapshots[0], snapshots[1] - 1, snapshots[-1] + 1, life.seq - 1]):
        built = restored(store, tmp_path / str(turn), at)
        assert (built.seq, built.holes) == (at, ())
        async with opened(tmp_path / str(turn)) as journal:
            assert journal.seq == at, journal.loss


async def test_what_lies_before_everything_that_is_kept_is_refused_by_name(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    await a_life(tmp_path, store, seed)
    snapshots = sorted({int(key[5:21]) for key in store.objects if key.startswith("snap/")})
    for key in sorted(key for key in store.objects if key.startswith("manifest/0"))[:3]:
        del store.objects[key]
    with pytest.raises(NotFound, match=str(snapshots[2])):
        restored(store, tmp_path / "new", at=snapshots[2] - 1)


async def test_what_an_attempt_before_wrote_is_not_part_of_what_is_restored(
    tmp_path: Path, store: MemoryStore, seed: int
) -> None:
    life = await a_life(tmp_path, store, seed)
    stray = tmp_path / "new/wal/0000000000000777.wal"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of another attempt")
    restored(store, tmp_path / "new")
    assert not stray.exists()
    assert (await state(tmp_path / "new", store))[1] == life.state_sha
    assert len(listed(tmp_path / "new/snapshots")) >= 1


def piece(first: int, last: int) -> Piece:
    return Piece(first, last, "0" * 64, Seg(f"{first}-{last}", "", 0, first, last, "", ""))


@pytest.mark.parametrize(
    ("have", "first", "last", "chosen", "holes"),
    [
        ([(1, 5), (6, 9)], 1, 9, [(1, 5), (6, 9)], []),
        ([(1, 5), (1, 9), (6, 9)], 1, 9, [(1, 9)], []),
        ([(1, 5), (4, 7), (6, 9)], 3, 8, [(1, 5), (6, 9)], []),
        ([(1, 5), (8, 9)], 1, 9, [(1, 5), (8, 9)], [(6, 7)]),
        ([(1, 5)], 1, 9, [(1, 5)], [(6, 9)]),
        ([], 1, 9, [], [(1, 9)]),
        ([], 1, 0, [], []),
        ([(4, 9)], 2, 9, [(4, 9)], [(2, 3)]),
    ],
)
def test_records_are_covered_by_as_few_objects_as_there_are(
    have: list[tuple[int, int]],
    first: int,
    last: int,
    chosen: list[tuple[int, int]],
    holes: list[tuple[int, int]],
) -> None:
    pieces, missing = covering([piece(*one) for one in have], first, last)
    assert ([(one.first, one.last) for one in pieces], list(missing)) == (chosen, holes)
