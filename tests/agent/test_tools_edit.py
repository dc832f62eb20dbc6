"""edit: the matched span changes, and not a byte besides."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.confine import PathError
from agent.tool import Site, ToolResult
from agent.tools.edit import Replacement, applied, chosen, diff
from tests.site import call, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


async def edited(here: Site, before: bytes, *edits: tuple[str, str]) -> tuple[bytes, ToolResult]:
    (here.workspace / "a").write_bytes(before)
    asked = [{"oldText": old, "newText": new} for old, new in edits]
    result = await call(here, "edit", path="a", edits=asked)
    return (here.workspace / "a").read_bytes(), result


async def refused(here: Site, before: bytes, *edits: tuple[str, str]) -> str:
    after, result = await edited(here, before, *edits)
    assert result.is_error
    assert after == before
    return result.text


async def test_a_text_that_stands_once_is_replaced(here: Site) -> None:
    after, result = await edited(here, b"one two three", ("two", "2"))
    assert after == b"one 2 three"
    assert result.text == "Successfully replaced 1 block(s) in a."


async def test_several_edits_match_the_file_as_it_was(here: Site) -> None:
    after, result = await edited(here, b"a b c", ("c", "a"), ("a", "c"))
    assert after == b"c b a"
    assert result.text == "Successfully replaced 2 block(s) in a."


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        pytest.param("\ufeffa\r\nb\n", "a", "x", "\ufeffx\r\nb\n", id="the byte order mark stays"),
        pytest.param("a\r\nb\nc\r\n", "b", "x\ny", "a\r\nx\ny\nc\r\n", id="mixed line ends stay"),
        pytest.param("a\r\nb\r\n", "a\nb", "x\ny", "x\r\ny\r\n", id="line ends are matched loosely"),
        pytest.param("a\r\nb\r\n", "b", "x\ny", "a\r\nx\r\ny\r\n", id="new lines get the file's ends"),
        pytest.param("a\r\nb", "b", "x\ny", "a\r\nx\r\ny", id="also in the last line"),
        pytest.param("a\r\nb\r\n", "a\r\nb", "x\ny", "x\ny\r\n", id="unless they are spelled out"),
        pytest.param("a\nb\n", "a", "x\r\ny", "x\ny\nb\n", id="no foreign line ends come in"),
        pytest.param("a  \nb\t\nc  \n", "a\nb", "x", "x\t\nc  \n", id="space before line ends is passed"),
        pytest.param("a\nb\n", "a  \nb", "x", "x\n", id="on either side"),
        pytest.param("say “hi”  \nend  \n", 'say "hi"', "x", "x  \nend  \n", id="quotes are alike"),
        pytest.param("it’s – so\u00a0it is\n", "it's - so it is", "x", "x\n", id="dashes and spaces too"),
        pytest.param("“a”\n“b”\n", '"a"', "x", "x\n“b”\n", id="what is not matched keeps its quotes"),
        pytest.param("a\n\n\nb\n", "a\n\n\nb", "x", "x\n", id="empty lines count"),
        pytest.param("a\n  \n\t\nb\n", "a\n\n\nb", "x", "x\n", id="lines of nothing but space are empty"),
        pytest.param("“q” b", '"q" ', "x ", "x b", id="a space at the end belongs to it"),
        pytest.param("a(b)*[c]", "(b)*[", "", "ac]", id="nothing is an expression"),
        pytest.param("abc\n", "abc\n", "", "", id="everything can go"),
    ],
)
async def test_only_the_span_changes(here: Site, before: str, old: str, new: str, after: str) -> None:
    written, result = await edited(here, before.encode(), (old, new))
    assert not result.is_error, result.text
    assert written.decode() == after


async def test_bytes_that_are_no_text_stay(here: Site) -> None:
    after, _ = await edited(here, b"\xff\xfe\xe9 one \xc3\r\n\0", ("one", "two"))
    assert after == b"\xff\xfe\xe9 two \xc3\r\n\0"


async def test_a_text_that_stands_twice_is_refused_with_the_lines(here: Site) -> None:
    said = await refused(here, b"x\na\nx\n\nx", ("x", "y"))
    assert said.startswith("Found 3 occurrences of the text in a (lines 1, 3, 5): 'x'")
    assert "must be unique" in said


async def test_occurrences_that_overlap_count(here: Site) -> None:
    assert "Found 2 occurrences" in await refused(here, b"aaa", ("aa", "b"))


async def test_many_occurrences_are_not_all_counted(here: Site) -> None:
    said = await refused(here, b"a\n" * 5000, ("a", "b"))
    assert said.startswith("Found at least 100 occurrences of the text in a (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)")


async def test_loose_matches_must_be_unique_too(here: Site) -> None:
    assert "Found 2 occurrences" in await refused(here, "“a” “a„".encode(), ('"a"', "b"))


async def test_a_text_that_is_not_there_is_refused_with_what_is_nearest(here: Site) -> None:
    said = await refused(here, b"one\ndef f():\n    return 1\n", ("def f():\n    return 2", "x"))
    assert said.startswith(
        "Could not find the exact text in a: 'def f():\\n    return 2'. Its first line stands in line 2."
    )


async def test_one_edit_that_does_not_fit_stops_all(here: Site) -> None:
    await refused(here, b"one two", ("one", "1"), ("three", "3"))


async def test_edits_that_overlap_are_refused(here: Site) -> None:
    assert "Two edits overlap in a near line 2" in await refused(here, b"x\nabc\n", ("ab", "1"), ("bc", "2"))


async def test_an_edit_that_changes_nothing_is_refused(here: Site) -> None:
    assert "No changes made to a" in await refused(here, b"one", ("one", "one"))


async def test_a_file_that_is_not_there_is_not_made(here: Site) -> None:
    result = await call(here, "edit", path="none", edits=[{"oldText": "a", "newText": "b"}])
    assert result.text == "none does not exist (use write to create it)"
    assert not list(here.workspace.iterdir())


async def test_a_file_above_the_limit_is_refused(here: Site) -> None:
    with open(here.workspace / "a", "wb") as file:
        file.truncate(8 * 2**20 + 1)
    result = await call(here, "edit", path="a", edits=[{"oldText": "a", "newText": "b"}])
    assert "larger than" in result.text


@pytest.mark.parametrize(
    ("text", "old"),
    [
        (" " * 500_000 + "x", " \n\n b"),
        ("\n" * 200_000, "\n \n‘x"),
        ((" " * 1000 + "\n") * 300, "a\n\n\n\n\n\n\nb"),
        ("'" * 500_000, "’" * 1000 + "x"),
        ("a \n" * 100_000, "a\na\nb"),
    ],
)
def test_a_loose_search_goes_forward_only(text: str, old: str) -> None:
    """Each of these takes hours with an expression that goes back."""
    with pytest.raises(PathError):
        chosen(text, [Replacement(oldText=old, newText="")], "a")


@given(st.text("ab \r\n’'", max_size=30), st.text("ab \n'", min_size=1, max_size=6), st.text("xy\n", max_size=5))
def test_whatever_is_edited_what_stands_before_and_after_is_the_same(text: str, old: str, new: str) -> None:
    try:
        (span,) = chosen(text, [Replacement(oldText=old, newText=new)], "a")
    except PathError:
        return
    after = applied(text, [span])
    assert after == text[: span.start] + span.new + text[span.end :]
    assert span.new.replace("\r\n", "\n") == new
    if text.count(old) == 1 and "\r" not in old:
        assert text[span.start : span.end] == old


# ---------------------------------------------------------------- the diff


def shown(text: str, *edits: tuple[str, str]) -> str:
    asked = [Replacement(oldText=old, newText=new) for old, new in edits]
    return str(diff(text, chosen(text, asked, "a"))["diff"])


def test_a_diff_has_numbers_and_four_lines_around() -> None:
    text = "".join(f"line {number}\n" for number in range(1, 21))
    assert shown(text, ("line 10\n", "ten\nten and a half\n")).split("\n") == [
        "    ...",
        "  6 line 6",
        "  7 line 7",
        "  8 line 8",
        "  9 line 9",
        "-10 line 10",
        "+10 ten",
        "+11 ten and a half",
        " 11 line 11",
        " 12 line 12",
        " 13 line 13",
        " 14 line 14",
        "    ...",
    ]


def test_changes_that_are_near_share_what_is_between() -> None:
    text = "".join(f"{number}\n" for number in range(1, 10))
    assert shown(text, ("2\n", "two\n"), ("5\n", "")).split("\n") == [
        *(" 1 1", "-2 2", "+2 two", " 3 3", " 4 4", "-5 5", " 6 6", " 7 7", " 8 8", " 9 9")
    ]


async def test_the_result_carries_the_diff_and_where_it_begins(here: Site) -> None:
    _, result = await edited(here, b"a\r\nb\r\n", ("b", "c"))
    assert result.details == {"diff": " 1 a\n-2 b\n+2 c", "firstChangedLine": 2}
