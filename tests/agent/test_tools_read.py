"""read: any part of a text, a list of a folder, and the name of what is neither."""

import os
import tracemalloc
from pathlib import Path

import pytest

from agent.tool import Site
from agent.tools.excerpt import BYTES, LINES
from tests.site import call, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


async def test_a_small_file_is_given_as_it_is(here: Site) -> None:
    text = "\ufeffüber\r\nzwei  \n\n\tdrei\u2028vier\x0cfünf"
    (here.workspace / "a").write_bytes(text.encode())
    result = await call(here, "read", path="a")
    assert (result.text, result.is_error, result.truncated) == (text, False, False)


async def test_an_empty_file_is_called_empty(here: Site) -> None:
    (here.workspace / "a").touch()
    assert (await call(here, "read", path="a")).text == "a is empty."


async def test_a_long_file_ends_after_two_thousand_lines_and_says_how_to_go_on(here: Site) -> None:
    (here.workspace / "a").write_text("".join(f"{number}\n" for number in range(1, 5001)))
    first = await call(here, "read", path="a")
    assert first.text.startswith("1\n2\n")
    assert first.text.endswith("\n2000\n\n[Showing lines 1-2000 of 5000. Use offset=2001 to continue.]")
    assert first.truncated
    last = await call(here, "read", path="a", offset=4001)
    assert last.text == "".join(f"{number}\n" for number in range(4001, 5001))


async def test_the_parts_joined_are_the_whole(here: Site) -> None:
    whole = "".join(f"{number} {'x' * (number % 300)}\n" for number in range(1, 3001)) + "the end"
    (here.workspace / "a").write_text(whole)
    parts, offset = "", 1
    while True:
        result = await call(here, "read", path="a", offset=offset)
        text, _, footer = result.text.partition("\n[Showing lines")
        parts += text
        if not footer:
            break
        offset = int(footer.split("offset=")[1].split()[0])
    assert parts == whole


async def test_bytes_end_a_part_on_a_whole_line(here: Site) -> None:
    (here.workspace / "a").write_text(("x" * 999 + "\n") * 100)
    result = await call(here, "read", path="a")
    assert result.text.endswith("x\n\n[Showing lines 1-51 of 100 (50.0KB limit). Use offset=52 to continue.]")


async def test_a_limit_of_the_model_is_kept(here: Site) -> None:
    (here.workspace / "a").write_text("1\n2\n3\n4\n5")
    assert (await call(here, "read", path="a", offset=2, limit=2)).text == (
        "2\n3\n\n[Showing lines 2-3 of 5. Use offset=4 to continue.]"
    )
    assert (await call(here, "read", path="a", offset=4, limit=2)).text == "4\n5"
    assert (await call(here, "read", path="a", limit=9999)).text == "1\n2\n3\n4\n5"


@pytest.mark.parametrize(("text", "lines"), [("1\n2\n", 2), ("1\n2", 2), ("\n\n\n", 3)])
async def test_past_the_end_is_an_error_that_tells_the_length(here: Site, text: str, lines: int) -> None:
    (here.workspace / "a").write_text(text)
    result = await call(here, "read", path="a", offset=lines + 1)
    assert result.is_error
    assert result.text.startswith(f"offset {lines + 1} is beyond the end of a, which has {lines} lines")


async def test_a_line_beyond_the_limit_is_named_with_a_way_to_see_it(here: Site) -> None:
    (here.workspace / "it's").write_text("short\n" + "x" * (BYTES + 1) + "\nshort\n")
    assert (await call(here, "read", path="it's")).text.startswith("short\n\n[Showing lines 1-1 of 3 (50.0KB limit)")
    result = await call(here, "read", path="it's", offset=2)
    assert result.text == (f"[Line 2 exceeds the 50.0KB limit. Use bash: sed -n '2p' 'it'\"'\"'s' | head -c {BYTES}]")


async def test_bytes_that_are_no_text_become_signs_and_stay_within_the_limit(here: Site) -> None:
    (here.workspace / "a").write_bytes(b"caf\xe9\n" * 20_000)
    result = await call(here, "read", path="a")
    assert result.text.startswith("caf\ufffd\n")
    assert len(result.text.encode()) <= BYTES + 200


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image, 2.0KB"),
        (b"\xff\xd8\xff\xe0", "a JPEG image, 2.0KB"),
        (b"GIF89a", "a GIF image, 2.0KB"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image, 2.0KB"),
        (b"%PDF-1.7", "a PDF document, 2.0KB"),
        (b"\x7fELF\2\1", "a program (ELF), 2.0KB"),
        (b"what is this\0", "a binary file, 2.0KB"),
    ],
)
async def test_what_is_no_text_is_named_with_its_size(here: Site, start: bytes, kind: str) -> None:
    (here.workspace / "a").write_bytes(start.ljust(2048, b"x"))
    assert (await call(here, "read", path="a")).text == f"a is {kind}; read shows text only."


async def test_a_huge_file_is_never_in_memory(here: Site) -> None:
    with open(here.workspace / "a", "wb") as file:
        file.write(b"first\n" + b"x" * 10_000 + b"\n")
        file.truncate(2**40)
    tracemalloc.start()
    try:
        result = await call(here, "read", path="a", limit=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.text.startswith("first\n\n[Showing lines 1-1 of more than 2.")
    assert peak < 2**21


async def test_a_folder_gives_its_list(here: Site) -> None:
    (here.workspace / "b").mkdir()
    (here.workspace / "a.txt").touch()
    (here.workspace / "c").symlink_to("a.txt")
    assert (await call(here, "read", path=".")).text == "a.txt\nb/\nc@"
    assert (await call(here, "read", path="b")).text == "b is an empty folder."
    assert (await call(here, "read", path="grimoires")).text == "BEAUVOIR.md\nNOTES.md\nmemory/"


async def test_a_long_list_is_read_in_parts(here: Site) -> None:
    for number in range(LINES + 5):
        (here.workspace / f"{number:04}").touch()
    first = await call(here, "read", path=".")
    assert first.text.endswith("\n1999\n\n[Showing entries 1-2000 of 2005. Use offset=2001 to continue.]")
    assert (await call(here, "read", path=".", offset=2001)).text == "2000\n2001\n2002\n2003\n2004"
    assert (await call(here, "read", path=".", offset=2006)).is_error


async def test_a_name_that_is_no_text_is_listed_as_one_line(here: Site) -> None:
    os.close(os.open(os.fsencode(here.workspace) + b"/\xff\n", os.O_CREAT))
    assert (await call(here, "read", path=".")).text == "\ufffd\ufffd"
