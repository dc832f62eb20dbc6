from hashlib import sha256
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.frame import GENESIS, PREFIX_BYTES, Bad, Frame, encode, parse

LINE = b'{"seq":1,"id":"01","ts":1,"epoch":1,"d":0,"type":"note"}'
NEXT = b'{"seq":2,"id":"02","ts":1,"epoch":1,"d":0,"type":"note"}'
texts = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=60)


def test_the_frame_is_length_crc_digest_and_json_on_one_line() -> None:
    frame, digest = encode(LINE, GENESIS)
    assert digest == sha256(bytes(32) + LINE).digest()
    assert frame == f"{len(LINE):08x} {crc32(LINE):08x} {digest.hex()} ".encode() + LINE + b"\n"
    assert frame.index(b"{") == PREFIX_BYTES


@given(text=texts, before=texts, previous=st.binary(min_size=32, max_size=32))
def test_what_was_encoded_is_parsed_again_wherever_it_stands(text: str, before: str, previous: bytes) -> None:
    line = b'{"seq":1,"text":"' + text.encode() + b'"}'
    frame, digest = encode(line, previous)
    start = len(before.encode())
    found = parse(before.encode() + frame + b"and more", start, (GENESIS, previous))
    assert found == Frame(start + len(frame), line, (), previous, digest, digest)


@pytest.mark.parametrize(
    ("at", "flaw"), [(0, "length"), (7, "length"), (8, "space"), (12, "crc"), (17, "space"), (40, "sha"), (82, "space")]
)
@pytest.mark.parametrize("value", [b"x", b"\n", b"\0", b"F"])
def test_a_damaged_part_around_the_json_is_named_and_the_json_is_used(at: int, flaw: str, value: bytes) -> None:
    frame, digest = encode(LINE, GENESIS)
    following, _ = encode(NEXT, digest)
    damaged = frame[:at] + value + frame[at + 1 :] + following
    found = parse(damaged, 0, (GENESIS,))
    assert isinstance(found, Frame)
    assert (found.line, found.flaws, found.digest, found.end) == (LINE, (flaw,), digest, len(frame))


def test_a_hex_digit_in_the_other_case_is_damage_too() -> None:
    frame, _ = encode(LINE, GENESIS)
    at = next(at for at in range(18, 82) if frame[at : at + 1].isalpha())
    found = parse(frame[:at] + frame[at : at + 1].upper() + frame[at + 1 :], 0, (GENESIS,))
    assert isinstance(found, Frame)
    assert found.flaws == ("sha",)


def test_a_damaged_line_feed_is_named_and_the_next_line_is_not_swallowed() -> None:
    frame, digest = encode(LINE, GENESIS)
    following, _ = encode(NEXT, digest)
    found = parse(frame[:-1] + b"#" + following, 0, (GENESIS,))
    assert isinstance(found, Frame)
    assert (found.line, found.flaws, found.end) == (LINE, ("newline",), len(frame))


@pytest.mark.parametrize("value", [b"x", b"\n", b"\0"])
def test_a_damaged_json_is_bad_up_to_its_end_and_still_says_its_digest(value: bytes) -> None:
    frame, digest = encode(LINE, GENESIS)
    following, _ = encode(NEXT, digest)
    assert parse(frame[:100] + value + frame[101:] + following, 0, (GENESIS,)) == Bad(len(frame), True, digest)


def test_garbage_ends_where_the_next_line_begins_whose_crc_is_right() -> None:
    frame, _ = encode(NEXT, GENESIS)
    garbage = b"garbage\n00000010 00000000 and more of it\n"
    assert parse(garbage + frame, 0, (GENESIS,)) == Bad(len(garbage), False, None)
    assert parse(garbage, 0, (GENESIS,)) == Bad(len(garbage), False, None)


def test_every_cut_of_a_line_is_bad_to_the_end_of_the_file() -> None:
    frame, _ = encode(LINE, GENESIS)
    for size in range(1, len(frame)):
        found = parse(frame[:size], 0, (GENESIS,))
        assert isinstance(found, Bad)
        assert (found.end, found.whole) == (size, False)


def test_a_good_line_that_builds_on_another_chain_is_told_apart() -> None:
    frame, digest = encode(LINE, b"\1" * 32)
    found = parse(frame, 0, (GENESIS,))
    assert isinstance(found, Frame)
    assert (found.flaws, found.anchor, found.stated) == (("sha",), None, digest)


def test_a_log_line_quoted_in_a_message_is_not_taken_for_one() -> None:
    quoted = encode(LINE, GENESIS)[0].decode().strip().replace('"', '\\"')
    line = b'{"seq":1,"text":"' + quoted.encode() + b'"}'
    frame, digest = encode(line, GENESIS)
    following, _ = encode(NEXT, digest)
    damaged = b"zz" + frame[2:90] + b"?" + frame[91:]
    assert parse(damaged + following, 0, (GENESIS,)) == Bad(len(frame), False, None)
