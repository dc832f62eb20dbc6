"""What is kept and what is not: pure decisions."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.limits import IGNORED, MARKS, Limits, amount, beyond, inside, plain

NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from(["a", "b", "c", ".", "..", ""]), min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    ("name", "target", "stays"),
    [
        ("a", "b", True),
        ("a", "b/c", True),
        ("a", ".", True),
        ("a", "./b//c/", True),
        ("d/a", "../b", True),
        ("d/e/a", "../..", True),
        ("a", "..", False),
        ("d/a", "../../b", False),
        ("a", "b/..", False),
        ("d/a", "../b/../c", False),
        ("a", "/b", False),
        ("a", "", False),
    ],
)
def test_a_link_stays_inside_only_where_nothing_on_its_way_can_lead_out(name: str, target: str, stays: bool) -> None:
    assert inside(name, target) is stays


@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), TARGETS, max_size=8))
def test_no_set_of_links_that_stay_inside_leads_out_together(links: dict[str, str]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "root"
        root.mkdir()
        made = [name for name, target in links.items() if inside(name, target) and _made(root, name, target)]
        for name in made:
            for further in ("", "/a", "/b", "/c"):
                with suppress(OSError):  # it leads nowhere, or in a circle
                    led = os.path.realpath(f"{root}/{name}{further}", strict=True)
                    assert Path(led).is_relative_to(root)


def _made(root: Path, name: str, target: str) -> bool:
    """Makes the link as a write-back does: its folders are folders, never links."""
    folder = root
    for part in name.split("/")[:-1]:
        folder = folder / part
        if folder.is_symlink():
            return False
        folder.mkdir(exist_ok=True)
    path = root / name
    if os.path.lexists(path):
        return False
    path.symlink_to(target)
    return True


@pytest.mark.parametrize("name", ["a", "a/b.md", ".hidden", "é/👩‍💻", "a b", "x" * 255])
def test_the_name_of_a_file_below_a_root_is_plain(name: str) -> None:
    assert plain(name)


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0", "x" * 256, "a/" * 600]
)
def test_any_other_name_is_not(name: str) -> None:
    assert not plain(name)


def test_what_the_log_knows_goes_first_and_then_the_order_of_names() -> None:
    sizes = [("a", 6), ("b", 6), ("c", 3), ("z", 1)]
    limits = Limits(file_bytes=6, total_bytes=10)
    assert beyond(sizes, (), limits) == {"b": "more than 10 bytes in all"}
    assert beyond(sizes, ("b",), limits) == {"a": "more than 10 bytes in all"}


def test_a_file_that_fits_exactly_is_kept() -> None:
    assert beyond([("a", 10)], (), Limits(file_bytes=10, total_bytes=10, files=1)) == {}
    assert beyond([("a", 11)], (), Limits(file_bytes=10)) == {"a": "larger than 10 bytes"}


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KB"),
        (1023 << 10, "1020 KB"),
        (8 << 20, "8 MB"),
        (1 << 30, "1 GB"),
    ],
)
def test_an_amount_reads_as_people_say_it(count: int, said: str) -> None:
    assert amount(count) == said


def test_every_folder_that_is_left_out_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in sorted(IGNORED | MARKS) if f"`{name}`" not in documented] == []
