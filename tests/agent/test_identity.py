import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.identity import IDENTITY_BYTES, NOTES_CHARS, IdentityFiles
from agent.tools import TOOLS
from gateway.template import template


@pytest.fixture
def grimoires(tmp_path: Path) -> Path:
    (tmp_path / "BEAUVOIR.md").write_text("# I am one.\n")
    (tmp_path / "NOTES.md").write_text("Buy milk.\n")
    return tmp_path


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    path.with_name("draft").write_text(text)
    path.with_name("draft").replace(path)


@pytest.mark.parametrize("write", [in_place, by_rename])
@pytest.mark.parametrize("name", ["BEAUVOIR.md", "NOTES.md"])
def test_a_changed_file_is_in_the_next_prompt(grimoires: Path, write: Callable[[Path, str], None], name: str) -> None:
    files = IdentityFiles(grimoires)
    before = files.look()
    assert "# I am one." in before.prompt
    assert "Buy milk." in before.prompt
    write(grimoires / name, "Something else.\n")
    after = files.look()
    assert "Something else." in after.prompt
    assert (after.checksum != before.checksum) is (name == "BEAUVOIR.md")
    assert after.problem == ""
    assert files.current == after


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "is gone"),
    "empty": (lambda path: path.write_text(" \n"), "is empty"),
    "not UTF-8": (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
    "too long": (lambda path: path.write_text("x" * (IDENTITY_BYTES + 1)), f"longer than {IDENTITY_BYTES} bytes"),
    "a folder": (_folder, "cannot be read"),
    "a pipe": (_pipe, "is no plain file"),
}


@pytest.mark.parametrize(("damage", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_identity_keeps_the_last_good_one_and_says_so_until_it_is_mended(
    grimoires: Path, damage: Callable[[Path], object], told: str
) -> None:
    files = IdentityFiles(grimoires)
    good = files.look()
    damage(grimoires / "BEAUVOIR.md")
    for _ in range(2):
        kept = files.look()
        assert (kept.prompt, kept.checksum) == (good.prompt, good.checksum)
        assert told in kept.problem
        assert "the last good text is in force" in kept.problem
    if (grimoires / "BEAUVOIR.md").is_dir():
        (grimoires / "BEAUVOIR.md").rmdir()
    by_rename(grimoires / "BEAUVOIR.md", "# I am two.\n")
    assert files.look().problem == ""
    assert "# I am two." in files.look().prompt


def test_a_start_with_a_broken_identity_has_the_one_that_finn_brings(tmp_path: Path) -> None:
    identity = IdentityFiles(tmp_path).look()
    assert template()["BEAUVOIR.md"].decode().strip() in identity.prompt
    assert "is gone: the text that finn comes with is in force" in identity.problem


def test_notes_in_a_pipe_hold_nobody_up(grimoires: Path) -> None:
    _pipe(grimoires / "NOTES.md")
    assert "NOTES.md is no plain file" in IdentityFiles(grimoires).look().problem


def test_notes_may_be_cut_within_a_character(grimoires: Path) -> None:
    (grimoires / "NOTES.md").write_text("x" + "\N{HONEYBEE}" * NOTES_CHARS * 2)
    look = IdentityFiles(grimoires).look()
    assert look.problem == ""
    assert look.prompt.endswith("\N{HONEYBEE}\n[…]")


def test_notes_may_be_missing_empty_and_long(grimoires: Path) -> None:
    files = IdentityFiles(grimoires)
    lines = [f"line {n}" for n in range(NOTES_CHARS)]
    in_place(grimoires / "NOTES.md", "\n".join(lines))
    prompt = files.look().prompt
    assert "line 0" in prompt
    assert prompt.endswith("[…]")
    assert prompt.splitlines()[-2] in lines, "whole lines"
    assert len(prompt) < NOTES_CHARS + 1000
    (grimoires / "NOTES.md").unlink()
    assert files.look().problem == ""
    assert "notes (head" not in files.look().prompt
    in_place(grimoires / "NOTES.md", "x" * (NOTES_CHARS * 2))
    assert len(files.look().prompt) < NOTES_CHARS + 1000


def test_the_prompt_is_the_same_to_the_byte_while_the_files_are(grimoires: Path) -> None:
    files = IdentityFiles(grimoires)
    prompts = {files.look().prompt for _ in range(3)}
    os.utime(grimoires / "BEAUVOIR.md")
    assert prompts == {files.look().prompt, IdentityFiles(grimoires).look().prompt}


def test_with_the_template_prompt_and_tools_take_a_thousand_tokens_at_most(tmp_path: Path) -> None:
    for name, data in template().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    told = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in (one.declaration for one in TOOLS)
    ]
    assert len(IdentityFiles(tmp_path).look().prompt) + len(json.dumps(told)) <= 1000 * 4
