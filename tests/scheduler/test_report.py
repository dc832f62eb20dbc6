"""Findings as people and programs read them."""

import re

import pytest

from scheduler.doctor import Fixed
from scheduler.finding import Finding, Severity, overall
from scheduler.report import as_json, as_markdown, as_text

LONG = "others can get at: " + ", ".join(f"folder-{n} (0755)" for n in range(30))
FINDINGS = (
    Finding("dirs.data", "pass", "there is a data directory", "it is there"),
    Finding("dirs.modes", "warn", "nobody else may", LONG, "chmod go= them", "autofixable", {"plan": ["do this"] * 9}),
    Finding("wal.chain", "pass", "every record can be read", "42 records"),
    Finding("store.there", "info", "there is a store", "none is set", "set FINN_STORE_URL"),
    Finding("disk.free", "fail", "there is room", "1 MB left\n\x1b[31mred\x1b[0m", "make room", "notfixable"),
)
FIXED = Fixed((Finding("dirs.modes", "pass", "nobody else may", "well", "", "fixed"),), ("set the mode",), "01K")


def test_overall_is_the_worst_and_info_is_no_worry() -> None:
    def of(*severities: Severity) -> str:
        return overall(Finding("a.b", severity, "", "") for severity in severities)

    assert (of(), of("pass", "info"), of("info", "warn"), of("fail", "warn")) == ("pass", "pass", "warn", "fail")


def test_json_has_what_the_contract_says() -> None:
    told = as_json(FINDINGS, "1.2.3")
    assert (told["version"], told["overall"], told["fix"]) == ("1.2.3", "fail", None)
    assert told["summary"] == {"pass": 2, "info": 1, "warn": 1, "fail": 1}
    assert told["findings"][0] == {
        "id": "dirs.data",
        "category": "dirs",
        "severity": "pass",
        "title": "there is a data directory",
        "detail": "it is there",
        "remediation": "",
        "fixability": "notfixable",
        "data": {},
    }
    fix = as_json(FIXED.findings, "1.2.3", FIXED)["fix"]
    assert fix == {"id": "01K", "applied": ["set the mode"], "undo": "finn doctor --undo 01K"}


@pytest.mark.parametrize("width", [1, 40, 80, 110, 400])
def test_text_keeps_to_the_terminal(width: int) -> None:
    said = as_text(as_json(FINDINGS, "1"), width)
    assert max(map(len, said.splitlines())) <= max(40, min(width, 110))


def test_text_has_one_line_for_a_sound_subject_and_none_of_anybody_s_escapes() -> None:
    said = as_text(as_json(FINDINGS, "1"), 80)
    assert "  wal         well (1)" in said.splitlines()
    assert "\x1b" not in said
    assert "and 3 steps more" in " ".join(said.split())


def test_what_several_looks_say_in_the_same_words_is_said_once() -> None:
    unknown = [Finding(f"store.{name}", "info", name, "not known: it does not answer") for name in ("a", "b", "c")]
    other = Finding("store.d", "info", "d", "not known either")
    said = as_text(as_json([*unknown, other], "1")).splitlines()
    assert sum("not known: it does not answer" in line for line in said) == 1
    assert [line.strip() for line in said[3:8]] == [
        "info  whether a",
        "not known: it does not answer",
        "(so say 2 more)",
        "info  whether d",
        "not known either",
    ]


def test_colour_paints_words_and_nothing_else() -> None:
    plain, painted = (as_text(as_json(FINDINGS, "1"), 80, colour=colour) for colour in (False, True))
    assert painted != plain
    assert re.sub(r"\x1b\[\d*m", "", painted) == plain


def test_a_fix_is_told_with_the_way_back() -> None:
    said = as_text(as_json(FIXED.findings, "1", FIXED), 80)
    assert "fixed nobody else may" in said
    assert said.endswith("done: set the mode\nto take it back: finn doctor --undo 01K")


def test_markdown_takes_no_meaning_from_what_it_tells() -> None:
    odd = Finding("dirs.strangers", "warn", "names", "*bold* [link](http://x) <b> a|b _c_", "do `this`")
    said = as_markdown(as_json([odd], "1"))
    assert r"\*bold\* \[link\](http://x) \<b\> a\|b \_c\_" in said
