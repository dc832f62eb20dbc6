"""find: by name and by text, in time that grows with what is searched and with nothing else."""

import os
import subprocess
from pathlib import Path

import pytest

from agent.tool import Site
from agent.tools import find
from agent.tools.find import SEARCHED_BYTES, fits
from tests.site import call, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    here = site(tmp_path)
    for path in (
        "a.py",
        "src/b.py",
        "src/deep/c.py",
        "src/deep/c.txt",
        "node_modules/x/d.py",
        ".git/e.py",
        ".venv/f.py",
    ):
        (here.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (here.workspace / path).write_text(f"this is {path}\nand more\n")
    return here


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", "a.py\nsrc/b.py\nsrc/deep/c.py"),
        ("src/*.py", "src/b.py"),
        ("src/**/*.py", "src/b.py\nsrc/deep/c.py"),
        ("**/*.py", "a.py\nsrc/b.py\nsrc/deep/c.py"),
        ("**/c.*", "src/deep/c.py\nsrc/deep/c.txt"),
        ("src/**", "src/\nsrc/b.py\nsrc/deep/\nsrc/deep/c.py\nsrc/deep/c.txt"),
        ("[a-b].p?", "a.py\nsrc/b.py"),
        ("deep", "src/deep/"),
        ("/a.py", "a.py"),
        ("./src/*.py", "src/b.py"),
        (".", "a.py\nsrc/\nsrc/b.py\nsrc/deep/\nsrc/deep/c.py\nsrc/deep/c.txt"),
        ("*.rs", "Nothing found: no *.rs in the workspace."),
        ("(a+)+$", "Nothing found: no (a+)+$ in the workspace."),
    ],
)
async def test_a_glob_finds_files_and_folders(here: Site, pattern: str, found: str) -> None:
    result = await call(here, "find", pattern=pattern)
    assert (result.text, result.truncated) == (found, False)


async def test_a_path_narrows_it(here: Site) -> None:
    assert (await call(here, "find", pattern="*.py", path="src/deep")).text == "src/deep/c.py"
    assert (await call(here, "find", pattern="*.md", path="grimoires")).text == (
        "grimoires/BEAUVOIR.md\ngrimoires/NOTES.md"
    )
    assert (await call(here, "find", pattern="*", path="a.py")).is_error


async def test_a_skipped_folder_can_be_searched_by_name(here: Site) -> None:
    assert (await call(here, "find", pattern="*.py", path="node_modules")).text == "node_modules/x/d.py"


async def test_a_text_gives_lines_with_their_numbers(here: Site) -> None:
    assert (await call(here, "find", pattern="*", text="more", path="src")).text == (
        "src/b.py:2: and more\nsrc/deep/c.py:2: and more\nsrc/deep/c.txt:2: and more"
    )
    assert (await call(here, "find", pattern="*.py", text="this is a")).text == "a.py:1: this is a.py"
    assert (await call(here, "find", pattern="*", text="(a+)+$")).text == (
        "Nothing found: no * holding '(a+)+$' in the workspace."
    )


async def test_a_text_is_literal_and_its_case_counts(here: Site) -> None:
    (here.workspace / "x").write_text("a.b\naxb\nA.B\n")
    assert (await call(here, "find", pattern="x", text="a.b")).text == "x:1: a.b"


async def test_a_long_line_is_shortened_and_a_binary_file_passed_over(here: Site) -> None:
    (here.workspace / "x").write_text("needle" + "y" * 10_000)
    (here.workspace / "z").write_bytes(b"needle\0")
    assert (await call(here, "find", pattern="*", text="needle")).text == "x:1: needle" + "y" * 494


async def test_no_link_is_followed_and_no_pipe_opened(here: Site) -> None:
    (here.workspace / "src" / "up").symlink_to("..")
    (here.workspace / "out.py").symlink_to("/etc/passwd")
    os.mkfifo(here.workspace / "pipe.py")
    assert (await call(here, "find", pattern="*.py", text="root")).text.startswith("Nothing found")
    assert "up/" not in (await call(here, "find", pattern="**")).text


async def test_a_file_too_large_to_search_is_told(here: Site) -> None:
    with open(here.workspace / "big.py", "wb") as file:
        file.truncate(SEARCHED_BYTES + 1)
    result = await call(here, "find", pattern="*.py", text="this is a")
    assert result.text == (
        "a.py:1: this is a.py\n\n"
        "[1 files not searched: larger than 8.0MB, not readable, or beyond 512.0MB in all."
        " Use a narrower pattern or path.]"
    )


async def test_what_is_searched_in_one_call_is_limited(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "SEARCHED_IN_ALL", 30)
    result = await call(here, "find", pattern="*.py", text="this")
    assert result.text.startswith("a.py:1: this is a.py\n\n[2 files not searched")


async def test_a_thousand_results_are_the_most(here: Site) -> None:
    for number in range(1001):
        (here.workspace / "src" / f"{number}.md").touch()
    result = await call(here, "find", pattern="*.md")
    assert result.text.count(".md\n") == 1000
    assert result.text.endswith("[1000 results limit reached. Use a narrower pattern or path.]")
    assert result.truncated


async def test_a_walk_that_is_too_long_stops_and_says_so(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "VISITS", 3)
    assert "stopped after 3 entries" in (await call(here, "find", pattern="*.py")).text


async def test_a_folder_deeper_than_the_stack_is_walked(here: Site) -> None:
    folder = os.open(here.workspace, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    result = await call(here, "find", pattern="*.py")
    subprocess.run(["rm", "-r", here.workspace / "d"], check=True)  # Python's own would run out of stack
    assert result.text.startswith("a.py\nsrc/b.py\nsrc/deep/c.py")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 50 + "b", "a" * 250),
        ("/".join(["**"] * 100 + ["b"]), "/".join("a" * 100)),
        ("/".join(["**", "a"] * 50 + ["b"]), "/".join("a" * 100)),
        ("[" * 500, "[" * 250),
        ("(a+)+$", "a" * 50 + "!"),
        ("*" * 1000 + "b", "a" * 250),
    ],
)
def test_no_pattern_takes_more_than_a_pass(pattern: str, name: str) -> None:
    """Each of these takes years with an expression that goes back; the limit on tests would end it."""
    assert not fits(tuple(pattern.split("/")), tuple(name.split("/")))


async def test_a_text_that_almost_matches_everywhere_takes_no_more_than_a_pass(here: Site) -> None:
    (here.workspace / "x").write_bytes(b"a" * (SEARCHED_BYTES - 1))
    result = await call(here, "find", pattern="x", text="a" * 999 + "b")
    assert result.text.startswith("Nothing found")


async def test_a_name_cannot_forge_a_second_result(here: Site) -> None:
    (here.workspace / "x\nforged.py").touch()
    assert (await call(here, "find", pattern="x*")).text == "x\ufffdforged.py"
