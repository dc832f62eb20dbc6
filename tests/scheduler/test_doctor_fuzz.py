"""The doctor on directories that were damaged at random: it always ends with its findings, and touches nothing."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from persistence.recovery import verify
from scheduler.checks import CHECKS
from scheduler.finding import SOUND
from tests.conftest import count
from tests.scheduler import wounds
from tests.scheduler.ward import Ward, new_ward, tree
from tests.scheduler.wounds import DISK

Dice = random.Random


def flip(path: Path, dice: Dice) -> None:
    if path.stat().st_size:
        wounds.flipped(path, dice.randrange(path.stat().st_size), dice.randrange(1, 256))


def cut(path: Path, dice: Dice) -> None:
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size + 1)])


def hole(path: Path, dice: Dice) -> None:
    data = path.read_bytes()
    begin, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    path.write_bytes(data[:begin] + data[end:])


def zeros(path: Path, dice: Dice) -> None:
    data = path.read_bytes()
    begin, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def noise(path: Path, dice: Dice) -> None:
    path.write_bytes(dice.randbytes(dice.randrange(2000)))


def more(path: Path, dice: Dice) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes()[-dice.randrange(1, 500) :])


def gone(path: Path, dice: Dice) -> None:
    path.unlink()


def folder(path: Path, dice: Dice) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def link(path: Path, dice: Dice) -> None:
    path.unlink()
    path.symlink_to(dice.choice(["nowhere", "..", "/dev/null"]))


def twin(path: Path, dice: Dice) -> None:
    shutil.copy(path, path.with_name(f"{dice.randrange(60):016d}{path.suffix}"))


DEEDS: tuple[Callable[[Path, Dice], None], ...] = (flip, cut, hole, zeros, noise, more, gone, folder, link, twin)


def damaged(ward: Ward, dice: Dice) -> list[str]:
    """Hurts files of a directory; what was done to which."""
    done = []
    for _ in range(dice.randrange(1, 6)):
        files = [path for path in sorted(ward.root.rglob("*")) if path.is_file() and not path.is_symlink()]
        logs = [path for path in files if path.suffix == ".wal"]
        path, deed = dice.choice(logs if logs and dice.random() < 0.4 else files), dice.choice(DEEDS)
        deed(path, dice)
        done.append(f"{deed.__name__} {path.relative_to(ward.root)}")
    return done


def is_whole(ward: Ward) -> bool:
    try:
        return verify(DISK, ward.root / "wal").ok
    except OSError:
        return False


def test_whatever_is_damaged_the_doctor_ends_changes_nothing_and_sees_what_verify_sees(seed: int) -> None:
    for number in range(count(20, 500)):
        dice, ward = Dice(f"{seed}-{number}"), new_ward()
        done = damaged(ward, dice)
        before = tree(ward.root)
        found = ward.examine()
        assert tree(ward.root) == before
        assert list(found) == [check.id for check in CHECKS]
        if not is_whole(ward):
            assert [one.id for one in found.values() if one.category == "wal" and one.severity not in SOUND], done
