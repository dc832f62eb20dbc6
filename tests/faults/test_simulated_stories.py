"""What the simulation has found, told as short stories: each once lost, doubled or changed something."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.persistence.simulation import World, folder_in_memory
from tests.persistence.stepped import Loop, stepped

LONG = 28  # a number with which `say` says something longer than a record holds
LOCAL = 0  # a number with which `start` chooses the level
PROVE = 0


def calm(seed: int, folder: Path, loop: Loop) -> World:
    """A world without a fault of its own."""
    made = World(seed, folder, loop)
    for machine in made.machines.values():
        machine.net.set(0.0)
    return made


@pytest.fixture
def world(seed: int) -> Iterator[World]:
    with folder_in_memory() as folder, stepped() as loop:
        made = calm(seed, folder, loop)
        yield made
        made.leave()


def test_a_log_that_parted_below_what_the_store_still_has_comes_back_as_orphans(world: World) -> None:
    """It was served degraded for ever, or set aside: no record of it stood in a segment of the store any more."""
    world.do("start", "A", LOCAL)
    world.do("flush", "A")
    world.do("start", "B", LOCAL)
    world.do("say", "A", 3)  # acknowledged by the one that was overtaken
    world.do("say", "B", 2)
    for act in ("flush", "seal", "seal", "seal", "compact"):
        world.do(act, "B", 0)
    world.do("say", "B", 1)
    world.do("stop", "B")
    world.do("kill", "A")
    assert world.do("start", "A", LOCAL).startswith("store")
    world.do("bring", "A")
    world.do("flush", "A")
    assert not world.owed
    world.end()


def test_a_log_that_begins_where_it_parted_comes_back_as_orphans(world: World) -> None:
    """Nothing in it was common, and it had no first record: nothing of it was found to be kept."""
    net = world.machines["A"].net
    world.do("start", "B", LOCAL)
    world.do("say", "B", 3)
    for act in ("flush", "tend", "flush", "compact"):
        world.do(act, "B")
    net.refuse("create")
    assert world.do("start", "A", LOCAL).startswith("store degraded")
    world.do("say", "A", 3)
    for _ in range(4):
        world.do("say", "B", 3)
        for act in ("flush", "tend", "flush", "compact"):
            world.do(act, "B")
    world.do("kill", "A")
    net.refuse("")
    assert world.do("start", "A", LOCAL).startswith("store")
    world.end()


def test_who_claimed_a_log_goes_on_from_it_whatever_was_compacted_meanwhile(world: World) -> None:
    """After the claim nothing common was left there: the own log was kept beside it, and could never go up."""
    net = world.machines["B"].net
    world.do("start", "A", LOCAL)
    world.do("flush", "A")
    world.do("kill", "A")
    world.do("start", "B", LOCAL)
    world.do("outage", "A")
    assert world.do("start", "A", LOCAL).startswith("local degraded")
    for _ in range(4):
        world.do("say", "A", 3)
    net.refuse("put manifest/HINT")
    world.do("say", "B", 0)
    for act in ("flush", "tend", "flush", "compact"):
        world.do(act, "B")
    world.do("kill", "A")
    world.do("reach", "A")
    assert world.do("start", "A", LOCAL).startswith("store")
    world.end()


def test_two_that_wrote_under_one_epoch_are_told_apart(world: World) -> None:
    """One of them had claimed it: what the other had said in it was taken for the same."""
    net = world.machines["A"].net
    world.do("start", "A", LOCAL)
    world.do("say", "A", 3)
    world.do("stop", "A")
    world.do("burn", "A")
    net.refuse("create")
    assert world.do("start", "A", LOCAL).startswith("store degraded")
    world.do("say", "A", 2)
    world.do("start", "B", LOCAL)
    world.do("say", "B", 3)
    for act in ("flush", "tend", "flush", "compact"):
        world.do(act, "B")
    world.do("kill", "A")
    net.refuse("")
    assert world.do("start", "A", LOCAL).startswith("store")
    world.end()


def test_a_writer_that_slept_while_its_numbers_were_collected_acknowledges_nothing(world: World) -> None:
    """A create succeeds at a number that was used, collected and is free again; that proves nothing."""
    world.do("start", "A", LOCAL)
    world.do("say", "A", 3)
    world.do("flush", "A")
    world.do("say", "A", 3)
    world.do("start", "B", LOCAL)
    for _ in range(10):
        world.do("say", "B", 3)
        for act in ("flush", "tend", "flush", "compact"):
            world.do(act, "B")
    taken = set(world.annals.objects)
    for _ in range(2):
        assert world.do("collect", "B", 1).startswith("deleted")
        world.do("say", "B", 3)
        for act in ("flush", "compact"):
            world.do(act, "B")
    gone = taken - set(world.annals.objects)
    assert any(key.startswith("log/") for key in gone), gone
    assert world.do("flush", "A") == "fenced"
    world.end()


def test_a_log_goes_on_by_the_chain_behind_a_segment_that_never_got_its_header(world: World) -> None:
    """All before it was finished and in the snapshot, so nobody had read what the next record builds on."""
    world.do("start", "A", LOCAL)
    for effects in range(1, 12):
        for _ in range(4):
            world.do("say", "A", 3)
        world.do("tend", "A")
        world.crash("say", "A", 3, effects, "power")
        world.do("start", "A", LOCAL)
        world.do("flush", "A")
    world.end()


def test_a_machine_lost_right_after_its_first_compaction_is_restored_without_a_gap(world: World) -> None:
    world.do("start", "A", LOCAL)
    world.do("stop", "A")
    world.do("burn", "A")
    assert world.do("start", "A", LOCAL).startswith("store")
    world.end()


def test_nothing_begins_anew_that_could_not_be_claimed(world: World) -> None:
    """Two that did had two pasts for ever."""
    net = world.machines["A"].net
    net.refuse("create")
    assert world.do("start", "A", LOCAL) == "silent"
    net.refuse("")
    assert world.do("start", "A", LOCAL).startswith("template")
    world.end()


def test_what_goes_up_after_all_does_not_come_back_as_an_orphan_as_well(world: World) -> None:
    world.do("start", "A", LOCAL)
    world.do("say", "A", 2)
    world.do("start", "B", LOCAL)
    world.do("kill", "B")
    assert world.do("look", "A", PROVE) == "fenced"  # its records are in orphans/ now
    assert world.do("start", "A", LOCAL).startswith("local")  # and in its log, which nobody went on from
    world.do("flush", "A")
    world.do("bring", "A")
    world.do("tell", "A")
    world.end()


def test_ids_rise_behind_a_snapshot_that_sums_up_everything(world: World) -> None:
    world.machines["A"].clock.advance(5_000)
    world.do("start", "A", LOCAL)
    world.do("stop", "A")
    assert world.do("start", "B", LOCAL).startswith("store")  # whose clock is behind
    world.do("say", "B", 1)
    world.do("flush", "B")
    world.end()


def test_a_start_folds_long_texts_though_the_store_does_not_answer(world: World) -> None:
    """A sentence about the missing text became part of the state, and the next snapshot kept it."""
    world.do("start", "A", LOCAL)
    world.do("say", "A", LONG)
    world.do("flush", "A")
    assert world.do("start", "B", LOCAL).startswith("store")
    world.do("kill", "B")
    world.do("outage", "B")
    assert world.do("start", "B", LOCAL).startswith("local degraded")
    world.do("tell", "B")
    world.end()


def test_a_swap_that_is_killed_anywhere_and_finished_later_is_there_after_a_power_cut(seed: int) -> None:
    """What was moved before the kill was not made durable after it: an old snapshot could come back beside the log."""
    effects = 1
    while swapped(seed, effects):
        effects += 1
    assert effects > 20


def swapped(seed: int, effects: int) -> bool:
    """A log is swapped for another, killed at so many effects, finished, and the power cut. Whether it was killed."""
    with folder_in_memory() as folder, stepped() as loop:
        world = calm(seed, folder, loop)
        world.do("start", "A", LOCAL)
        for act in ("say", "snapshot", "flush"):
            world.do(act, "A", LONG)
        world.do("start", "B", LOCAL)
        for act in ("say", "snapshot", "kill"):
            world.do(act, "A", LONG)
        for act in ("say", "flush"):
            world.do(act, "B", LONG)
        outcome = world.crash("start", "A", LOCAL, effects, "kill")
        for _ in range(2):
            world.do("start", "A", LOCAL)
            world.do("tell", "A")
            world.do("power", "A", 1)
        world.end()
        world.leave()
    return outcome == "cut"
