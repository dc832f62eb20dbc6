"""What frames prove, where they come from elsewhere, and how they are cut."""

import random
from collections.abc import Callable

import pytest

from persistence.errors import Damaged
from persistence.frame import GENESIS, PREFIX_BYTES, encode
from persistence.layout import NOTHING
from persistence.segment import Span, after, digests, proven, until, vouched
from tests.persistence.writers import Records

FIRST, LAST = 7, 26
NAME = "seg/one"
Change = Callable[[list[bytes]], list[bytes]]


def frames(rng: random.Random, first: int = FIRST, last: int = LAST) -> list[bytes]:
    digest, found = GENESIS, list[bytes]()
    for seq in range(first, last + 1):
        text = rng.randbytes(rng.randint(0, 300)).hex()
        frame, digest = encode(b'{"seq":%d,"data":{"text":"%b"}}' % (seq, text.encode()), digest)
        found.append(frame)
    return found


def digest_of(frame: bytes) -> str:
    return frame[18:82].decode()


def read(body: list[bytes], last: int = LAST, known: dict[int, str] | None = None, chain: str = "") -> Span:
    chain = chain or digest_of(body[-1])
    return vouched(b"".join(body), FIRST, last, GENESIS.hex(), chain, NAME, known or {})


def test_a_sound_body_is_the_same_span_as_where_each_record_is_proven(seed: int) -> None:
    body = frames(random.Random(seed))
    known = {12: digest_of(body[5]), 900: "of another segment"}
    whole = b"".join(body)
    assert read(body, known=known) == proven(whole, FIRST, LAST, GENESIS.hex(), digest_of(body[-1]), NAME, known)


def test_records_that_were_lost_before_it_was_written_are_told(seed: int) -> None:
    body = frames(random.Random(seed))
    assert read([*body[:4], *body[6:]]).holes == ((FIRST + 4, FIRST + 5),)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: [*body[:3], body[4], body[3], *body[5:]],
        lambda body: [*body[:3], body[2], *body[4:]],
        lambda body: [*body, b"00000000"],
        lambda body: [*body[:3], body[3][:-1] + b" ", *body[4:]],
        lambda body: [*body[:3], b"\n" * len(body[3]), *body[4:]],
        lambda body: [b"x" + body[0][1:], *body[1:]],
        lambda body: [body[0][:20] + b"00" + body[0][22:], *body[1:]],
    ],
    ids=["swapped", "twice", "more", "no line feed", "empty lines", "no length", "another first"],
)
def test_a_body_that_is_not_made_of_just_these_records_is_refused(seed: int, change: Change) -> None:
    body = frames(random.Random(seed))
    with pytest.raises(Damaged, match=NAME):
        read(change(body), chain=digest_of(body[-1]))


def test_another_end_than_the_manifest_says_is_refused(seed: int) -> None:
    with pytest.raises(Damaged, match=NAME):
        read(frames(random.Random(seed)), chain="ab" * 32)
    with pytest.raises(Damaged, match=NAME):
        read(frames(random.Random(seed)), last=LAST - 1)


def test_another_record_than_the_snapshot_remembers_is_refused_though_a_text_quotes_it(seed: int) -> None:
    body = frames(random.Random(seed))
    sha = "cd" * 32
    line = b'{"seq":%d,"data":{"text":"%b {\\"seq\\":12,"}}' % (LAST + 1, sha.encode())
    quoting = [*body, encode(line, bytes.fromhex(digest_of(body[-1])))[0]]
    assert len(quoting[-1]) > PREFIX_BYTES
    with pytest.raises(Damaged, match="another record 12"):
        read(quoting, last=LAST + 1, known={12: sha})


def a_span(count: int = 6) -> Span:
    records = Records()
    records.say(*map(str, range(count)))
    return Span(1, count, NOTHING, records.chain(count), records.span(1, count))


def test_a_run_of_frames_is_proven_by_its_ends() -> None:
    span = a_span()
    assert proven(span.body, 1, 6, NOTHING, span.chain_out, "x") == span


@pytest.mark.parametrize(
    "forged",
    [
        lambda body: body[:-1],
        lambda body: body[: len(body) // 2],
        lambda body: body.replace(b'"text":"3"', b'"text":"4"'),
        lambda body: body.replace(b'{"seq":3', b'{"seq":1'),
        lambda body: body + body,
        lambda body: b"",
        lambda body: b"no frame at all, but long enough to be taken for the beginning of one" * 9,
        lambda body: b"".join(reversed(body.splitlines(keepends=True))),
    ],
)
def test_frames_that_are_not_that_run_are_damaged(forged) -> None:  # type: ignore[no-untyped-def]
    span = a_span()
    with pytest.raises(Damaged):
        proven(forged(span.body), 1, 6, NOTHING, span.chain_out, "x")


def test_lost_records_inside_are_a_hole_and_no_damage() -> None:
    span, lines = a_span(), a_span().body.splitlines(keepends=True)
    found = proven(b"".join(lines[:2] + lines[4:]), 1, 6, NOTHING, span.chain_out, "x")
    assert found.holes == ((3, 4),)


@pytest.mark.parametrize("seq", range(7))
def test_a_span_can_be_cut_at_any_record(seq: int) -> None:
    span = a_span()
    head, tail = until(span, seq, "x"), after(span, seq, "x")
    assert head.body + tail.body == span.body
    assert head.chain_out == tail.chain_in
    assert (head.last, tail.first) == (seq, seq + 1)


def test_a_digest_that_a_snapshot_remembers_otherwise_is_damage() -> None:
    span = a_span()
    with pytest.raises(Damaged, match="another record 4"):
        proven(span.body, 1, 6, NOTHING, span.chain_out, "x", {4: "a" * 64})


def test_the_digest_of_a_record_is_found_in_its_frames_and_not_in_a_text() -> None:
    records = Records()
    records.say("a", ' {"seq":1,', ' {"seq":3,')
    body = records.span(2, 3)
    assert digests(body) == {2: records.chain(2), 3: records.chain(3)}
