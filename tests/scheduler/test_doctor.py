"""The doctor itself: looks, mends, takes back; and is killed at every step of it."""

import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from persistence.clock import FakeClock, Ids
from persistence.disk import Disk, SystemDisk
from persistence.errors import Conflict, FinnError, NotFound, StorageError, UsageError
from persistence.redact import Redactor
from persistence.replay import Paths
from persistence.values import Json
from scheduler.check import Ask, Check, MakeFolder, Move, Remove, SetMode, Step, Write
from scheduler.doctor import STOP_FIRST, Fixed, chosen, examine, fix
from scheduler.finding import Seen
from scheduler.notes import FOLDER
from scheduler.site import Running, Site
from scheduler.undo import cut_off, fixes, undo
from tests.scheduler.ward import tree

T = TypeVar("T")
WELL = Seen("pass", "as it should be")
ILL = Seen("warn", "not as it should be", "mend it")


class Quick(SystemDisk):
    """A disk that is not waited for: nobody cuts the power here."""

    def fdatasync(self, handle: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass

    def chmod(self, path: Path, mode: int) -> None:
        path.chmod(mode)


def site(root: Path, disk: Disk | None = None, **more: Any) -> Site:
    return Site(Paths(root), disk or Quick(), FakeClock(), **more)


def names() -> Callable[[], str]:
    return Ids(FakeClock(), os.urandom).new


def check(name: str, look: Callable[[Site], Seen], *steps: Callable[[Path], Step], **more: Any) -> Check:
    """A check whose cure is those steps."""
    mend = (lambda site: [step(site.root) for step in steps]) if steps else None
    return Check(name, f"whether {name} is well", look, mend, **more)


def mended(place: Site, *checks: Check) -> Fixed:
    return fix(checks, place, names())


# ---------------------------------------------------------------- a house with everything that a step can touch

STEPS: tuple[Callable[[Path], Step], ...] = (
    lambda root: MakeFolder(root / "made"),
    lambda root: SetMode(root / "open", 0o600),
    lambda root: Write(root / "old", b"new words"),
    lambda root: Write(root / "made" / "deeper" / "note", b"hello"),
    lambda root: Move(root / "lost", root / "quarantine" / "lost"),
    lambda root: Move(root / "rooms", root / "quarantine" / "rooms"),
    lambda root: Remove(root / "junk"),
    lambda root: Remove(root / "attic"),
    lambda root: Remove(root / "link"),
    lambda root: MakeFolder(root / "link"),
    lambda root: SetMode(root / "old", 0o400),
    lambda root: Write(root / "junk", b"not junk"),
)


def build(root: Path) -> Path:
    """A directory in which every one of STEPS has something to do."""
    for folder in ("rooms/inner", "attic"):
        (root / folder).mkdir(parents=True)
    for name in ("open", "old", "lost", "junk", "rooms/inner/one", "attic/two"):
        (root / name).write_text(f"this is {name}")
    (root / "open").chmod(0o644)
    (root / "old").chmod(0o640)
    (root / "link").symlink_to("open")
    return root


def all_done(site: Site) -> Seen:
    """Whether each of STEPS was taken."""
    root = site.root
    taken = (
        (root / "made" / "deeper" / "note").is_file(),
        (root / "open").stat().st_mode & 0o777 == 0o600,
        (root / "old").read_bytes() == b"new words",
        (root / "quarantine" / "rooms" / "inner" / "one").is_file(),
        not (root / "attic").exists(),
        (root / "link").is_dir() and not (root / "link").is_symlink(),
        (root / "junk").read_bytes() == b"not junk",
    )
    return WELL if all(taken) else ILL


ALL = check("dirs.all", all_done, *STEPS)


class Killed(BaseException):
    """The process is gone. No part of the program may take this for an error."""


class Fused(Quick):
    """A disk whose process is killed at its n-th effect, before or after it."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self._left = nth
        self._after = after
        self.effects = 0

    def _around(self, effect: Callable[[], T]) -> T:
        self.effects += 1
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise Killed
        result = effect()
        if self._left == 0:
            raise Killed
        return result

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return self._around(lambda: super(Fused, self).write(handle, data))

    def rename(self, old: Path, new: Path) -> None:
        self._around(lambda: super(Fused, self).rename(old, new))

    def unlink(self, path: Path) -> None:
        self._around(lambda: super(Fused, self).unlink(path))

    def mkdir(self, path: Path) -> None:
        self._around(lambda: super(Fused, self).mkdir(path))

    def rmdir(self, path: Path) -> None:
        self._around(lambda: super(Fused, self).rmdir(path))

    def chmod(self, path: Path, mode: int) -> None:
        self._around(lambda: super(Fused, self).chmod(path, mode))


def killed(act: Callable[[Disk], object], nth: int, *, after: bool) -> bool:
    """Whether the process that did this was killed at that effect; if not, it had fewer."""
    try:
        act(Fused(nth, after=after))
    except Killed:
        return True
    return False


def undone(root: Path) -> None:
    """Takes back all that can be taken back. The folder for it may be there, and is empty then."""
    for name in fixes(site(root)):
        undo(site(root), name)
    if (root / FOLDER).exists():
        (root / FOLDER).rmdir()


# ---------------------------------------------------------------- looking


def test_a_check_that_raises_is_a_finding_of_itself_and_the_others_go_on(tmp_path: Path) -> None:
    def look(_: Site) -> Seen:
        raise RuntimeError("the lamp is broken")

    broken, fine = examine((check("wal.dark", look), check("wal.light", lambda _: WELL)), site(tmp_path))
    assert (broken.severity, broken.fixability) == ("fail", "notfixable")
    assert "the lamp is broken" in broken.detail
    assert fine.severity == "pass"


def test_a_check_that_hears_nothing_from_a_network_is_not_waited_for(tmp_path: Path) -> None:
    answer = threading.Event()

    def ask(_: Site) -> Seen:
        answer.wait()
        return WELL

    findings = examine(
        (check("store.far", ask, far=True), check("wal.near", lambda _: WELL)), site(tmp_path), far_s=0.01
    )
    answer.set()
    assert [(one.id, one.severity) for one in findings] == [("store.far", "warn"), ("wal.near", "pass")]
    assert "no answer" in findings[0].detail


def test_findings_keep_the_order_of_the_checks(tmp_path: Path) -> None:
    checks = [check(f"wal.n{n}", lambda _: WELL, far=n % 2 == 0) for n in range(6)]
    assert [one.id for one in examine(checks, site(tmp_path))] == [one.id for one in checks]


def test_no_secret_gets_into_a_finding(tmp_path: Path) -> None:
    place = site(tmp_path, redactor=Redactor({"THE_KEY": "correct-horse-battery"}))
    key = "correct-horse-battery"
    figures = {"found": [f"wal/{key}"], "by": {"name": key}}
    checks = (
        check("wal.told", lambda _: Seen("warn", f"it says {key}", f"take {key} out", figures)),
        check(
            "wal.plan", lambda site: WELL if (site.root / key).exists() else ILL, lambda root: MakeFolder(root / key)
        ),
        check("wal.tried", lambda _: Seen("warn", key), lambda root: MakeFolder(root / key / "deeper")),
    )
    assert key not in repr(examine(checks, place))
    done = mended(place, *checks)
    assert done.applied
    assert key not in repr(done)
    assert key not in repr(undo(place, done.id))


def test_what_is_told_of_names_can_be_sent_however_long_they_are_and_whatever_they_hold(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"bad\xff"), "\ud800", "a" * 1_000_000]
    finding = examine(
        (check("wal.odd", lambda _: Seen("warn", f"{odd}{odd[0]}", odd[1], {"found": odd})),), site(tmp_path)
    )[0]
    told = json.dumps([finding.detail, finding.remediation, finding.data], ensure_ascii=False).encode()
    assert b"bad\\\\udcff" in told
    assert len(told) < 20_000


def test_what_keeps_several_checks_from_looking_is_told_once(tmp_path: Path) -> None:
    def look(site: Site) -> Seen:
        raise OSError("the disk is gone")

    found = examine([check(f"wal.{name}", look) for name in ("one", "two", "three")], site(tmp_path))
    assert [one.severity for one in found] == ["fail", "info", "info"]
    assert found[2].detail == "this could not be looked at either, see wal.one"


def test_a_look_says_what_a_fix_would_do_and_does_nothing(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    before = tree(root)
    (finding,) = examine([ALL], site(root))
    assert finding.fixability == "autofixable"
    assert finding.data["plan"][:3] == [
        "make the folder made with mode 0700",
        "set the mode of open to 0600",
        "write 9 bytes to old",
    ]
    assert tree(root) == before


def test_a_category_or_a_check_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"'weather'.*\(dirs\)"):
        chosen([ALL], only=["weather"])
    with pytest.raises(UsageError, match=r"'dirs\.none'"):
        chosen([ALL], ids=["dirs.none"])


# ---------------------------------------------------------------- mending


def test_a_fix_brings_the_finding_to_pass_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), ALL)
    assert [(one.severity, one.fixability) for one in done.findings] == [("pass", "fixed")]
    assert len(done.applied) > len(STEPS)  # the folders around a file are steps too
    after = tree(root)
    assert mended(site(root), ALL) == Fixed(examine([ALL], site(root)))
    assert tree(root) == after


def test_an_undo_puts_everything_back_byte_for_byte(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    before = tree(root)
    done = mended(site(root), ALL)
    assert fixes(site(root)) == (done.id,)
    assert undo(site(root), done.id)
    assert tree(root) == before
    with pytest.raises(NotFound, match="those that can be undone: none"):
        undo(site(root), done.id)


def test_a_fix_that_does_not_help_is_taken_back_and_says_so(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    before = tree(root)
    done = mended(site(root), check("dirs.hopeless", lambda _: ILL, *STEPS))
    (finding,) = done.findings
    assert (finding.severity, finding.fixability, done.applied, done.id) == ("warn", "notfixable", (), "")
    assert "taken back" in finding.data["tried"]
    assert tree(root) == before


def test_a_step_that_cannot_be_taken_takes_those_before_it_back(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    before = tree(root)
    impossible = check("dirs.no", lambda _: ILL, *STEPS, lambda root: Move(root / "nowhere", root / "somewhere"))
    (finding,) = mended(site(root), impossible).findings
    assert "nowhere is not there any more" in finding.data["tried"]
    assert tree(root) == before


def test_one_fix_that_fails_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    hopeless = check("dirs.hopeless", lambda _: ILL, lambda root: Write(root / "more", b"1"))
    first = mended(site(root), hopeless, ALL, replace(hopeless, id="dirs.last"))
    assert [one.severity for one in first.findings] == ["warn", "pass", "warn"]
    assert not (root / "more").exists()
    before = tree(root)
    undo(site(root), first.id)
    assert mended(site(root), ALL).applied == first.applied
    assert {path for path in tree(root) if not path.startswith(FOLDER)} == {
        path for path in before if not path.startswith(FOLDER)
    }


def test_what_a_fix_brings_to_light_is_mended_in_the_same_one(tmp_path: Path) -> None:
    def second(site: Site) -> Seen:
        return WELL if (site.root / "two").exists() or not (site.root / "one").exists() else ILL

    def first(site: Site) -> Seen:
        return WELL if (site.root / "one").exists() else ILL

    checks = (
        check("dirs.two", second, lambda root: Write(root / "two", b"")),
        check("dirs.one", first, lambda root: Write(root / "one", b"")),
    )
    assert [one.fixability for one in mended(site(tmp_path), *checks).findings] == ["fixed", "fixed"]
    assert mended(site(tmp_path), *checks).applied == ()


def test_a_cure_that_failed_for_want_of_another_is_tried_again_in_the_same_fix(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "place").write_text("in the way")
    checks = (
        check("dirs.file", there("place/file"), lambda root: Write(root / "place" / "file", b"")),
        check("dirs.way", clear("place"), lambda root: Remove(root / "place")),
    )
    assert [one.fixability for one in mended(site(root), *checks).findings] == ["fixed", "fixed"]
    assert mended(site(root), *checks).applied == ()


def there(name: str) -> Callable[[Site], Seen]:
    return lambda site: WELL if (site.root / name).exists() else ILL


def clear(name: str) -> Callable[[Site], Seen]:
    return lambda site: ILL if (site.root / name).is_file() else WELL


def test_what_is_fewer_by_a_fix_stays_so_and_the_finding_tells_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("one", "two", "three"):
        (root / name).write_text("wrong")

    def look(site: Site) -> Seen:
        left = [path.name for path in sorted(site.root.iterdir()) if path.is_file()]
        return Seen("warn", f"{len(left)} left", "see", {"count": len(left)}) if left else WELL

    def mend(site: Site) -> list[Step]:
        return [Remove(site.root / "two")] if (site.root / "two").exists() else []

    partly = Check("dirs.partly", "in part", look, mend)
    before = tree(root)
    done = mended(site(root), partly)
    (finding,) = done.findings
    assert (finding.severity, finding.fixability) == ("warn", "notfixable")
    assert finding.data["tried"] == "1 of 3 were mended: 2 left"
    assert not (root / "two").exists()
    assert mended(site(root), partly).applied == ()
    undo(site(root), done.id)
    assert tree(root) == before


@pytest.mark.parametrize("path", ["../elsewhere", "door/file", f"{FOLDER}/note"])
def test_no_step_leads_out_of_the_data_directory(tmp_path: Path, path: str) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "door").symlink_to(outside)
    for step in (lambda root: Write(root / path, b"x"), lambda root: MakeFolder(root / path)):
        (finding,) = mended(site(root), check("dirs.out", lambda _: ILL, step)).findings
        assert "could not be done" in finding.data["tried"]
    assert list(outside.iterdir()) == [] and not (tmp_path / "elsewhere").exists()
    assert not (root / FOLDER).exists()


@pytest.mark.parametrize("name", ["grimoires", "workspace"])
def test_no_step_makes_a_part_of_a_folder_that_finn_writes_back_as_a_whole(tmp_path: Path, name: str) -> None:
    """An empty one, or one file in it, would mean to the next start that the rest was deleted."""
    (tmp_path / "wal").mkdir()
    before = tree(tmp_path)
    part = check("identity.part", lambda _: ILL, lambda root: Write(root / name / "deep" / "note", b""))
    (finding,) = mended(site(tmp_path), part).findings
    assert (finding.fixability, "start `finn serve`" in finding.data["blocked"]) == ("notfixable", True)
    late = check("identity.late", lambda _: ILL, lambda root: Remove(root / name), lambda root: MakeFolder(root / name))
    (tmp_path / name).mkdir()
    (finding,) = mended(site(tmp_path), late).findings
    assert "gone as a whole" in finding.data["tried"]
    (tmp_path / name).rmdir()
    assert tree(tmp_path) == before


def test_what_needs_the_log_for_itself_waits_until_finn_is_stopped(tmp_path: Path) -> None:
    alone = check("wal.alone", lambda _: ILL, lambda root: Write(root / "x", b""), alone=True)
    place = site(tmp_path, running=Running(1, "http://127.0.0.1:1", 1, answers=True))
    (finding,) = mended(place, alone).findings
    assert (finding.fixability, finding.data["blocked"]) == ("notfixable", STOP_FIRST)
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_running_finn_can_do_is_done_by_it(tmp_path: Path) -> None:
    asked: list[str] = []
    ask = check("snapshots.none", lambda _: WELL if asked else ILL, lambda _: Ask("snapshot"))
    (finding,) = mended(site(tmp_path), ask).findings
    assert "start `finn serve`" in finding.data["blocked"]
    done = mended(site(tmp_path, acts={"snapshot": lambda: asked.append("snapshot")}), ask)
    assert (done.findings[0].fixability, done.applied, done.id) == (
        "fixed",
        ("ask the running finn for: snapshot",),
        "",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Full(Quick):
        def write(self, handle: int, data: bytes | memoryview) -> int:
            raise OSError(28, "No space left on device")

    root = build(tmp_path / "data")
    before = {path: node for path, node in tree(root).items() if not path.startswith(FOLDER)}
    (finding,) = mended(site(root, Full()), ALL).findings
    assert "no space left" in finding.data["tried"]
    assert {path: node for path, node in tree(root).items() if not path.startswith(FOLDER)} == before


# ---------------------------------------------------------------- taking back


def changed_since(root: Path) -> Sequence[Callable[[], object]]:
    return (
        lambda: (root / "old").write_text("by hand"),
        lambda: (root / "made" / "deeper" / "note").write_text("by hand"),
        lambda: (root / "open").chmod(0o666),
        lambda: (root / "lost").write_text("again"),
        lambda: (root / "attic").mkdir(),
        lambda: shutil.rmtree(root / "quarantine" / "rooms"),
    )


@pytest.mark.parametrize("which", range(6))
def test_an_undo_under_which_something_would_be_lost_touches_nothing(tmp_path: Path, which: int) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), ALL)
    changed_since(root)[which]()
    before = tree(root)
    with pytest.raises(Conflict, match="nothing was touched"):
        undo(site(root), done.id)
    assert tree(root) == before


def test_a_folder_that_was_used_since_stays(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), ALL)
    (root / "made" / "mine").write_text("kept")
    assert "made stays: it holds something by now" in undo(site(root), done.id)
    assert (root / "made" / "mine").read_text() == "kept"
    assert (root / "old").read_text() == "this is old"


def test_what_a_running_finn_uses_is_not_put_back_under_it(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), replace(ALL, alone=True))
    with pytest.raises(Conflict, match="stop finn"):
        undo(site(root, running=Running(1, "http://127.0.0.1:1", 1, answers=True)), done.id)


@pytest.mark.parametrize("name", ["..", "../data", "", "nothing", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_only_a_fix_can_be_undone(tmp_path: Path, name: str) -> None:
    root = build(tmp_path / "data")
    before = tree(root)
    with pytest.raises(NotFound):
        undo(site(root), name)
    assert tree(root) == before


def test_notes_that_lead_outside_are_not_followed(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), ALL)
    path = root / FOLDER / done.id / "steps.jsonl"
    path.write_text(path.read_text().replace('"quarantine/lost"', '"../outside"'))
    with pytest.raises(FinnError, match="cannot be read"):
        undo(site(root), done.id)


OTHER = sha256(b"other").hexdigest()
MINE = sha256(b"mine").hexdigest()
FORGED: tuple[Json, ...] = (
    {"do": "write", "n": 1, "path": "x", "was": None, "now": OTHER, "kept": "../../../outside/precious"},
    {"do": "write", "n": 1, "path": "x", "was": None, "now": OTHER, "kept": 5},
    {"do": "write", "n": 1, "path": "link/precious", "was": MINE, "now": OTHER, "kept": None},
    {"do": "set_mode", "n": 1, "path": "link/precious", "was": 0o777, "now": 0o644},
    {"do": "set_mode", "n": 1, "path": "straight", "was": 0o777, "now": 0o644},
    {"do": "set_mode", "n": 1, "path": "old", "was": 1 << 64, "now": 0o644},
    {"do": "move", "n": 1, "path": "x", "to": "link/precious"},
    {"do": "move", "n": 1, "path": "link/x", "to": "old"},
    {"do": "move", "n": 1, "path": "x"},
    {"do": "move", "n": 1, "path": "a\0", "to": "old"},
    {"do": "move", "n": math.inf, "path": "x", "to": "old"},
    {"do": "change", "n": 1, "edits": [["a", "b"]]},
    {"do": "anything", "n": 1},
    ["do"],
)


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_notes_that_somebody_forged_are_refused_and_nothing_is_touched(tmp_path: Path, forged: Json) -> None:
    root, outside = build(tmp_path / "data"), tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (root / "link").unlink()
    (root / "link").symlink_to(outside)
    (root / "straight").symlink_to(outside / "precious")
    done = mended(
        site(root), check("dirs.one", lambda place: ILL if (place.root / "junk").exists() else WELL, STEPS[6])
    )
    (root / FOLDER / done.id / "steps.jsonl").write_text(f"{json.dumps(forged)}\n")
    before = tree(tmp_path)
    with pytest.raises(FinnError):
        undo(site(root), done.id)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("which", ["", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV/kept"])
def test_an_undo_sweeps_nothing_behind_a_link(tmp_path: Path, which: str) -> None:
    root, outside = build(tmp_path / "data"), tmp_path / "outside"
    home = outside / "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    (home / "kept").mkdir(parents=True)
    for place in (outside, home, home / "kept"):
        (place / "precious").write_text("mine")
    link = root / FOLDER / which
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / which)
    before = tree(outside)
    with pytest.raises(FinnError):
        undo(site(root), "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert tree(outside) == before


def test_a_fix_keeps_nothing_behind_a_link(tmp_path: Path) -> None:
    root, outside = build(tmp_path / "data"), tmp_path / "outside"
    outside.mkdir()
    (root / FOLDER).symlink_to(outside)
    before = tree(tmp_path)
    (finding,) = mended(site(root), ALL).findings
    assert "is no folder" in str(finding.data["tried"])
    assert tree(tmp_path) == before


def test_of_very_many_names_that_there_are_not_a_few_are_told() -> None:
    with pytest.raises(UsageError) as told:
        chosen([ALL], ids=[f"wal.{'x' * 1000}{number}" for number in range(100_000)])
    assert "and 99995 more" in str(told.value)
    assert len(str(told.value)) < 1000


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_fix_that_is_killed_at_any_effect_can_be_undone_and_done_again(tmp_path: Path, after: bool) -> None:
    for nth in count(1):
        root = build(tmp_path / str(nth))
        before = tree(root)
        if not killed(lambda disk, root=root: mended(site(root, disk), ALL), nth, after=after):  # type: ignore[misc]
            break
        undone(root)
        assert tree(root) == before, f"killed at {nth}"
        assert mended(site(root), ALL).findings[0].fixability == "fixed"
    assert nth > 30


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_undo_that_is_killed_at_any_effect_goes_on(tmp_path: Path, after: bool) -> None:
    for nth in count(1):
        root = build(tmp_path / str(nth))
        before = tree(root)
        done = mended(site(root), ALL)
        ended = not killed(lambda disk, root=root, name=done.id: undo(site(root, disk), name), nth, after=after)  # type: ignore[misc]
        undone(root)
        assert tree(root) == before, f"killed at {nth}"
        if ended:
            break
    assert nth > 15


def test_a_fix_that_was_cut_off_is_told_from_one_that_ended(tmp_path: Path) -> None:
    whole, half = build(tmp_path / "whole"), build(tmp_path / "half")
    mended(site(whole), ALL)
    assert killed(lambda disk: mended(site(half, disk), ALL), 20, after=True)
    assert cut_off(site(whole)) == ()
    assert len(cut_off(site(half))) == 1


def test_notes_that_cannot_be_written_are_no_crash(tmp_path: Path) -> None:
    class ReadOnly(Quick):
        def mkdir(self, path: Path) -> None:
            raise OSError(30, "Read-only file system")

    root = build(tmp_path / "data")
    (finding,) = mended(site(root, ReadOnly()), ALL).findings
    assert "Read-only file system" in finding.data["tried"]


def test_a_storage_error_is_told_as_one(tmp_path: Path) -> None:
    root = build(tmp_path / "data")
    done = mended(site(root), ALL)

    class Stuck(Quick):
        def rename(self, old: Path, new: Path) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error"):
        undo(site(root, Stuck()), done.id)
    undo(site(root), done.id)
