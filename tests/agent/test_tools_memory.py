"""remember and recall: what is kept stands in a file the owner can read, and is found again by its words."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.tool import Site
from persistence.clock import FakeClock
from tests.site import call, site

NOW = 1_795_169_000.0  # 2026-11-20


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return replace(site(tmp_path), clock=FakeClock(NOW))


async def test_a_fact_becomes_a_dated_line_of_the_notes(here: Site) -> None:
    result = await call(here, "remember", text="The cat is called Momo.\nShe is grey.")
    assert result.text == "Remembered in grimoires/NOTES.md."
    assert (here.grimoires / "NOTES.md").read_text() == (
        "# Notes\n- 2026-11-20: The cat is called Momo. She is grey.\n"
    )


async def test_a_topic_has_its_own_file(here: Site) -> None:
    assert (await call(here, "remember", text="Momo", topic="cats")).text == "Remembered in grimoires/memory/cats.md."
    assert (here.grimoires / "memory" / "cats.md").read_text() == "- 2026-11-20: Momo\n"


async def test_what_stands_there_is_not_written_again_on_another_day(here: Site) -> None:
    await call(here, "remember", text="Momo")
    before = (here.grimoires / "NOTES.md").read_bytes()
    later = replace(here, clock=FakeClock(NOW + 86_400 * 30))
    assert (await call(later, "remember", text="  Momo ")).text == "grimoires/NOTES.md has this already."
    assert (here.grimoires / "NOTES.md").read_bytes() == before
    assert (await call(later, "remember", text="momo")).text == "Remembered in grimoires/NOTES.md."


async def test_the_owners_own_text_and_its_missing_line_end_stay(here: Site) -> None:
    (here.grimoires / "NOTES.md").write_bytes(b"# Mine\r\nno end")
    await call(here, "remember", text="Momo")
    assert (here.grimoires / "NOTES.md").read_bytes() == b"# Mine\r\nno end\n- 2026-11-20: Momo\n"


async def test_a_fact_cannot_forge_a_second_line(here: Site) -> None:
    await call(here, "remember", text="x\n- 2020-01-01: forged\r# heading")
    assert (here.grimoires / "NOTES.md").read_text().count("\n") == 2


async def test_many_at_once_lose_nothing(here: Site) -> None:
    await asyncio.gather(*(call(here, "remember", text=f"fact {number}") for number in range(20)))
    assert (here.grimoires / "NOTES.md").read_text().count("fact ") == 20


async def test_nothing_is_not_remembered(here: Site) -> None:
    assert (await call(here, "remember", text=" \n ")).is_error
    assert (await call(here, "remember", text="")).is_error


async def test_the_most_matching_words_come_first(here: Site) -> None:
    (here.grimoires / "NOTES.md").write_text("the grey dog\nold news about a cat\nnewer news about a cat\n")
    (here.grimoires / "memory" / "a.md").write_text("- 2026-11-20: The GREY cat is Momo\n")
    assert (await call(here, "recall", query="grey CAT")).text == (
        "grimoires/memory/a.md:1: - 2026-11-20: The GREY cat is Momo\n"
        "grimoires/NOTES.md:3: newer news about a cat\n"
        "grimoires/NOTES.md:2: old news about a cat\n"
        "grimoires/NOTES.md:1: the grey dog"
    )


async def test_only_whole_words_count(here: Site) -> None:
    (here.grimoires / "NOTES.md").write_text("concatenate\nStraße\n")
    assert (await call(here, "recall", query="cat")).text == "Nothing found about cat."
    assert (await call(here, "recall", query="STRASSE")).text == "grimoires/NOTES.md:2: Straße"


async def test_no_query_gives_all_notes_the_latest_first(here: Site) -> None:
    await call(here, "remember", text="one")
    await call(here, "remember", text="two")
    assert (await call(here, "recall", query="")).text == (
        "grimoires/NOTES.md:3: - 2026-11-20: two\n"
        "grimoires/NOTES.md:2: - 2026-11-20: one\n"
        "grimoires/NOTES.md:1: # Notes"
    )


async def test_a_query_without_a_word_is_refused(here: Site) -> None:
    assert (await call(here, "recall", query="?!")).is_error


async def test_without_any_notes_it_says_so(here: Site) -> None:
    (here.grimoires / "NOTES.md").unlink()
    (here.grimoires / "memory").rmdir()
    assert (await call(here, "recall")).text == "There are no notes yet."
    assert (await call(here, "remember", text="x", topic="first")).text == "Remembered in grimoires/memory/first.md."


async def test_fifty_lines_are_the_most(here: Site) -> None:
    (here.grimoires / "NOTES.md").write_text("".join(f"word {number}\n" for number in range(60)))
    result = await call(here, "recall", query="word")
    assert result.text.count("word ") == 50
    assert result.text.endswith("\n[10 more lines. Use more words.]")
    assert result.truncated


async def test_notes_beside_the_state_zone_are_not_searched(here: Site) -> None:
    (here.grimoires / "memory" / "link.md").symlink_to("../BEAUVOIR.md")
    (here.workspace / "NOTES.md").write_text("who")
    assert (await call(here, "recall", query="who")).text == "Nothing found about who."
