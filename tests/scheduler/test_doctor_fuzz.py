"""The doctor on directories that were damaged at random.

A look always ends with its findings, and touches nothing. A fix loses nothing: finn starts afterwards and shows all
that it would have shown without, no byte is gone, a second one finds nothing to do, and the undo puts all of it back.
"""

import asyncio
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from agent.mirror import export
from agent.session import SESSIONS
from gateway.serve import FOLDERS
from persistence.beads import BEADS
from persistence.errors import FinnError
from persistence.quarantine import make_way
from persistence.recovery import verify
from scheduler.checks import CHECKS
from scheduler.finding import SOUND
from tests.conftest import count
from tests.scheduler import wounds
from tests.scheduler.ward import Ward, environ_of, living, new_ward, tree
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
    path.symlink_to(dice.choice(["nowhere", "..", "."]))  # to nothing outside: some of these are written to


def twin(path: Path, dice: Dice) -> None:
    other = path.with_name(f"{dice.randrange(60):016d}{path.suffix}")
    if other != path and not other.is_symlink():  # which may lead out of the folder, or back
        shutil.copy(path, other)


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


# ---------------------------------------------------------------- mending


def opened(root: Path, dice: Dice) -> None:
    for name in dice.sample(["blobs", ".", "state", "wal", "grimoires", "workspace", "snapshots"], 3):
        if (root / name).is_dir():
            (root / name).chmod(0o755)


def without_folder(root: Path, dice: Dice) -> None:
    name = dice.choice(["snapshots", "quarantine", "chunks", "blobs", "state", "cache", "workspace", "grimoires"])
    if (root / name).is_dir():
        shutil.rmtree(root / name)


def file_for_folder(root: Path, dice: Dice) -> None:
    name = dice.choice(["snapshots", "quarantine", "chunks", "blobs", "state", "state/sessions", "cache"])
    if (root / name).is_dir():
        shutil.rmtree(root / name)
        (root / name).write_text("in the way")


def stranger(root: Path, dice: Dice) -> None:
    folder = root / dice.choice(["wal", "snapshots", "state/sessions"])
    if folder.is_dir():
        (folder / f"notes-{dice.randrange(100)}.jsonl").write_text("mine")


def folder_for_mirror(root: Path, dice: Dice) -> None:
    for path in (root / "state" / "sessions").glob("0*.jsonl"):
        if path.is_file():
            path.unlink()
            path.mkdir(mode=0o700)


def other_words(root: Path, dice: Dice) -> None:
    for path in (root / "state" / "sessions").glob("0*.jsonl"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"tea", b"sea"))


def other_identity(root: Path, dice: Dice) -> None:
    path = root / "grimoires" / dice.choice(["BEAUVOIR.md", "NOTES.md"])
    if path.is_file():
        path.write_bytes(dice.choice([b"\xff\xfe", b"", b"x" * 70_000]))


def torn_tail(root: Path, dice: Dice) -> None:
    paths = sorted(path for path in (root / "wal").glob("*.wal") if path.is_file())
    if paths:
        with paths[-1].open("ab") as file:
            file.write(b"0000007f 1c3a5e80 and so")


def no_lock(root: Path, dice: Dice) -> None:
    path = root / "wal" / "LOCK"
    if path.is_file():
        path.unlink()
        path.mkdir(mode=0o700)


def left_behind(root: Path, dice: Dice) -> None:
    (root / "run.json").write_text('{"pid": 4194303, "url": "http://127.0.0.1:1", "epoch": 1}')
    (root / ".env").write_text("FINN_SOMETHING_NEW=1\n")
    (root / ".finn-half").write_text("half")
    os.utime(root / ".finn-half", (1, 1))


WRONGS: tuple[Callable[[Path, Dice], None], ...] = (
    opened,
    without_folder,
    file_for_folder,
    stranger,
    folder_for_mirror,
    other_words,
    other_identity,
    torn_tail,
    no_lock,
    left_behind,
)


def ill(dice: Dice) -> tuple[Ward, list[str]]:
    """A directory with several things wrong, and which. Nothing is done to the token: only a person can mend that."""
    ward = new_ward()
    if dice.random() < 0.4:
        wounds.sealed(ward)
    token = (ward.root / "auth" / "token").read_bytes()
    done = damaged(ward, dice)
    for wrong in dice.sample(WRONGS, dice.randrange(1, 5)):
        wrong(ward.root, dice)
        done.append(wrong.__name__)
    shutil.rmtree(ward.root / "auth")
    (ward.root / "auth").mkdir(mode=0o700)
    (ward.root / "auth" / "token").write_bytes(token)
    (ward.root / "auth" / "token").chmod(0o600)
    return ward, done


async def _shown(root: Path) -> dict[str, object]:
    make_way(DISK, root, FOLDERS)
    found: dict[str, object] = {}
    async with living(environ_of(root)) as rooms:
        for session, state in rooms.journal.streams(SESSIONS).items():
            with suppress(FinnError):  # what cannot be read is not shown
                lines = await export(rooms.journal, session, state, root) if state.created_seq else b""
                for one in map(
                    json.loads, lines.splitlines()[1:]
                ):  # what still waited is taken up anew, at another seq
                    found |= {f"{session} {one['id']}": one["message"]["content"]} if "message" in one else {}
        found |= {one.id: one.text("title") for one in rooms.journal.whole(BEADS).beads.values()}
    for top in ("grimoires", "workspace"):
        files = [path for path in (root / top).rglob("*") if path.is_file() and not path.is_symlink()]
        found |= {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in files}
    return found


def shown(root: Path) -> dict[str, object] | None:
    """What a finn shows that starts on a copy; None where it does not start."""
    kept = root.with_name("meanwhile")
    shutil.copytree(root, kept, symlinks=True)
    try:
        return asyncio.run(_shown(root))
    except (AssertionError, OSError, FinnError):
        return None
    finally:
        shutil.rmtree(root)
        kept.rename(root)


def contents(root: Path) -> set[str]:
    """What every file holds, wherever it is, but for the lock."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "LOCK"]
    return {sha256(path.read_bytes()).hexdigest() for path in files}


def test_whatever_is_damaged_a_fix_loses_nothing_is_done_once_and_can_be_undone(seed: int) -> None:
    said = {*(shown(new_ward().root) or {})}  # what the first finn said and kept, not what a later one takes up again
    for number in range(count(6, 200)):
        ward, done = ill(Dice(f"{seed}-{number}"))
        without, held, before = shown(ward.root), contents(ward.root), tree(ward.root)
        fixed = ward.fix()
        after = tree(ward.root)
        now = contents(ward.root)
        assert held <= now, done
        assert ward.fix().applied == (), done
        assert tree(ward.root) == after, done
        healed = shown(ward.root)
        assert healed is not None, done
        readable = {name: what for name, what in (without or {}).items() if name in said}
        gone = {name for name, what in readable.items() if healed.get(name) != what and str(what) not in now}
        assert gone == set(), done
        if fixed.id:
            ward.undo(fixed.id)
        assert tree(ward.root) == before, done
