"""Nothing that a model can write as a path leads out of the two roots, whatever stands on the disk."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent import confine
from agent.confine import Missing, PathError, Place, entries, locate, replace, rewrite, whole
from tests.conftest import count
from tests.site import fingerprint

WORKSPACE, GRIMOIRES = Path("/data/workspace"), Path("/data/grimoires")
LIMIT = 10**6


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of opening; the second is for kernels and containers without openat2."""
    if request.param == "walk":
        monkeypatch.setattr(confine, "has_openat2", lambda: False)
    elif not confine.has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside" / "folder").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def outside(root: Path) -> Iterator[Path]:
    """What lies beside the workspace, which has to be the same when the test is over."""
    folder = root.parent / "outside"
    before = fingerprint(folder)
    yield folder
    assert fingerprint(folder) == before


def at(root: Path, *names: str) -> Place:
    return Place("workspace", root, names)


# ---------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("path", "zone", "names"),
    [
        ("a.txt", "workspace", ("a.txt",)),
        ("./a//b/../c/", "workspace", ("a", "c")),
        (".", "workspace", ()),
        ("", "workspace", ()),
        ("@notes.md", "workspace", ("notes.md",)),
        ("a\\..\\b", "workspace", ("a\\..\\b",)),
        ("-rf", "workspace", ("-rf",)),
        ("$(touch x); `id`\n", "workspace", ("$(touch x); `id`\n",)),
        ("grimoires", "grimoires", ()),
        ("grimoires/memory/cats.md", "grimoires", ("memory", "cats.md")),
        ("x/../grimoires/NOTES.md", "grimoires", ("NOTES.md",)),
        ("grimoires/../a", "workspace", ("a",)),
        ("sub/grimoires/a", "workspace", ("sub", "grimoires", "a")),
        ("grimoires.txt", "workspace", ("grimoires.txt",)),
        ("/data/workspace/a", "workspace", ("a",)),
        ("//data/workspace//a/", "workspace", ("a",)),
        ("/data/workspace/grimoires/a", "workspace", ("grimoires", "a")),
        ("/data/grimoires/NOTES.md", "grimoires", ("NOTES.md",)),
        ("/data/x/../workspace", "workspace", ()),
        ("é" * 127, "workspace", ("é" * 127,)),
    ],
)
def test_a_path_means_one_place(path: str, zone: str, names: tuple[str, ...]) -> None:
    found = locate(path, WORKSPACE, GRIMOIRES)
    assert (found.zone, found.names) == (zone, names)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("..", "leads out"),
        ("../auth/token", "leads out"),
        ("a/../../wal", "leads out"),
        ("grimoires/../../wal", "leads out"),
        ("@../x", "leads out"),
        ("/", "outside"),
        ("/etc/passwd", "outside"),
        ("/data", "outside"),
        ("/data/workspace-evil/x", "outside"),
        ("/data/workspace/../auth/token", "outside"),
        ("/proc/self/environ", "outside"),
        ("~", "home"),
        ("~root/.ssh/id_rsa", "home"),
        ("@~/x", "home"),
        ("a\0b", "NUL"),
        ("x" * 256, "more than 255 bytes"),
        ("é" * 128, "more than 255 bytes"),
        ("a/" * 2049, "more than 4096"),
        ("\ud800", "Unicode"),
    ],
)
def test_a_path_that_leads_out_is_refused_with_a_reason_and_a_way_on(path: str, said: str) -> None:
    with pytest.raises(PathError, match=said) as refused:
        locate(path, WORKSPACE, GRIMOIRES)
    assert refused.value.hint


# ---------------------------------------------------------------- the disk


def link_to_file(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to(outside / "secret")
    return at(root, "link")


def relative_link(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to("../outside/secret")
    return at(root, "link")


def link_to_folder(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to(outside)
    return at(root, "link", "secret")


def link_behind_a_link(root: Path, outside: Path) -> Place:
    (root / "first").symlink_to("second")
    (root / "second").symlink_to(outside)
    return at(root, "first", "secret")


def link_to_its_own_memory(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to("/proc/self/environ")
    return at(root, "link")


def link_to_an_open_folder(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to("/proc/self/root")
    return at(root, "link", "etc", "passwd")


def loop_of_links(root: Path, outside: Path) -> Place:
    (root / "link").symlink_to("link")
    return at(root, "link")


def pipe(root: Path, outside: Path) -> Place:
    os.mkfifo(root / "pipe")
    return at(root, "pipe")


def listening_socket(root: Path, outside: Path) -> Place:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        os.chdir(root)  # the path of a socket is short
        server.bind("socket")
        os.fchdir(here)
        os.close(here)
    return at(root, "socket")


def device(root: Path, outside: Path) -> Place:
    try:
        os.mknod(root / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    return at(root, "zero")


ESCAPES = (
    *(link_to_file, relative_link, link_to_folder, link_behind_a_link, link_to_its_own_memory, link_to_an_open_folder),
    *(loop_of_links, pipe, listening_socket, device),
)


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: str(escape.__name__))
def test_no_way_out_can_be_read(escape: Callable[[Path, Path], Place], opener: str, root: Path, outside: Path) -> None:
    with pytest.raises(PathError):
        whole(escape(root, outside), LIMIT)


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: str(escape.__name__))
def test_no_way_out_can_be_written(
    escape: Callable[[Path, Path], Place], opener: str, root: Path, outside: Path
) -> None:
    place = escape(root, outside)
    before = fingerprint(root)
    with pytest.raises(PathError):
        replace(place, b"owned")
    with pytest.raises(PathError):
        rewrite(place, lambda data: b"owned", LIMIT)
    assert fingerprint(root) == before


def test_two_dots_lead_nowhere_even_below_the_root(opener: str, root: Path) -> None:
    (root / "folder").mkdir()
    (root / "file").write_text("x")
    with pytest.raises(PathError, match="leads out"):
        whole(at(root, "folder", "..", "file"), LIMIT)


def test_a_hard_link_is_not_written(root: Path, outside: Path) -> None:
    os.link(outside / "folder" / ".." / "secret", root / "link")
    try:
        with pytest.raises(PathError, match="2 names"):
            replace(at(root, "link"), b"owned")
        with pytest.raises(PathError, match="2 names"):
            rewrite(at(root, "link"), lambda data: b"owned", LIMIT)
    finally:
        (root / "link").unlink()


def test_a_link_that_stays_inside_is_read_and_not_written(root: Path) -> None:
    (root / "real").write_text("inside")
    (root / "link").symlink_to("real")
    if confine.has_openat2():
        assert whole(at(root, "link"), LIMIT) == b"inside"
    with pytest.raises(PathError, match="symbolic link"):
        replace(at(root, "link"), b"new")


def test_a_folder_behind_a_link_is_not_written(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    with pytest.raises(PathError):
        replace(at(root, "link", "new"), b"")
    assert fingerprint(root / "real") == {}


def test_a_link_swapped_in_during_a_race_leads_nowhere(opener: str, root: Path, outside: Path) -> None:
    """One thread flips `way` between a folder and a link out, and `file` between a file and a link out."""
    over = threading.Event()
    (root / "folder").mkdir()
    (root / "folder" / "secret").write_text("inside")

    def flip() -> None:
        while not over.is_set():
            for name, target in (("way", "../outside"), ("way", "folder"), ("file", "../outside/secret")):
                with suppress(OSError):
                    (root / "next").symlink_to(target)
                    os.rename(root / "next", root / name)
            with suppress(OSError):
                (root / "way").unlink()
                (root / "way").mkdir()
                (root / "way" / "secret").write_text("inside")
            with suppress(OSError):
                (root / "file").unlink()
                (root / "file").write_text("inside")
            with suppress(OSError):
                (root / "way" / "secret").unlink()
                (root / "way").rmdir()

    flipping = threading.Thread(target=flip)
    flipping.start()
    seen = set()
    try:
        for _ in range(count(500, 10_000)):
            for place in (at(root, "way", "secret"), at(root, "file")):
                with suppress(PathError):
                    seen.add(whole(place, LIMIT))
                with suppress(PathError):
                    replace(place, b"inside")
    finally:
        over.set()
        flipping.join()
    assert seen <= {b"inside", b""}
    assert b"inside" in seen, "the race never let anything through, so it proves nothing"


# ---------------------------------------------------------------- what it is for


def test_a_file_is_written_with_the_folders_on_its_way(root: Path) -> None:
    assert replace(at(root, "a", "b", "c.txt"), b"one") is False
    assert replace(at(root, "a", "b", "c.txt"), b"two") is True
    assert whole(at(root, "a", "b", "c.txt"), LIMIT) == b"two"
    assert stat.S_IMODE((root / "a" / "b" / "c.txt").stat().st_mode) == 0o600


def test_a_replaced_file_keeps_its_mode(root: Path) -> None:
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o750)
    replace(at(root, "run"), b"#!/bin/bash")
    assert stat.S_IMODE((root / "run").stat().st_mode) == 0o750


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    replace(at(root, "a"), b"old")
    for step in ("write", "fsync", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(PathError, match="disk is full"):
                replace(at(root, "a"), b"new")
        assert whole(at(root, "a"), LIMIT) == b"old"
        assert [entry.name for entry in entries(at(root))] == ["a"]


def test_what_a_crash_left_behind_is_in_nobodys_way(root: Path) -> None:
    (root / confine.UNFINISHED).write_text("half")
    replace(at(root, "a"), b"whole")
    assert [entry.name for entry in entries(at(root))] == ["a"]


def test_a_reader_sees_the_old_file_or_the_new_one(root: Path) -> None:
    texts = [bytes([65 + number]) * 100_000 for number in range(2)]
    replace(at(root, "a"), texts[0])
    over = threading.Event()
    seen = set()

    def look() -> None:
        while not over.is_set():
            seen.add(whole(at(root, "a"), LIMIT))

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(count(100, 2000)):
        replace(at(root, "a"), texts[number % 2])
    over.set()
    looking.join()
    assert seen <= set(texts)


def test_two_threads_that_rewrite_one_file_lose_nothing(root: Path) -> None:
    def add(letter: bytes) -> None:
        for _ in range(50):
            rewrite(at(root, "a"), lambda data: (data or b"") + letter, LIMIT)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in (b"x", b"y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(whole(at(root, "a"), LIMIT)) == sorted(b"x" * 50 + b"y" * 50)


def test_a_file_that_a_command_changes_meanwhile_is_left_to_it(root: Path) -> None:
    replace(at(root, "a"), b"old")

    def change(data: bytes | None) -> bytes:
        (root / "a").write_bytes(b"by a command")
        return b"new"

    with pytest.raises(PathError, match="changed by somebody else"):
        rewrite(at(root, "a"), change, LIMIT)
    assert whole(at(root, "a"), LIMIT) == b"by a command"


def test_nothing_there_is_its_own_error(opener: str, root: Path) -> None:
    for look in (lambda: whole(at(root, "a", "b"), LIMIT), lambda: entries(at(root, "a"))):
        with pytest.raises(Missing, match="does not exist"):
            look()


def test_more_than_the_limit_is_refused_and_not_cut(root: Path) -> None:
    replace(at(root, "a"), b"12345")
    assert whole(at(root, "a"), 5) == b"12345"
    with pytest.raises(PathError, match="larger than 4 bytes"):
        whole(at(root, "a"), 4)


def test_a_folder_is_listed_by_name_and_kind(opener: str, root: Path) -> None:
    (root / "b").mkdir()
    (root / "a").write_text("")
    (root / "c").symlink_to("a")
    os.mkfifo(root / "d")
    assert [(entry.name, entry.kind) for entry in entries(at(root))] == [
        ("a", "file"),
        ("b", "folder"),
        ("c", "link"),
        ("d", "other"),
    ]


def test_no_descriptor_is_left_open(opener: str, root: Path, outside: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        replace(at(root, "a", "b"), b"x")
        rewrite(at(root, "a", "b"), lambda data: b"y", LIMIT)
        entries(at(root, "a"))
        for place in (at(root, "a", "b"), at(root, "a"), at(root, "nothing")):
            with suppress(PathError):
                whole(place, LIMIT)
    assert len(os.listdir("/proc/self/fd")) == open_before
