"""Scoped tokens: made once, kept as a hash, taken back for good, felt at once."""

import asyncio
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.tokens import view
from gateway.settings import TOKEN_BITS, token_bits
from gateway.tokens import LONGEST_S, TOKENS, Keyring, hash_of, is_token, keep, lasting
from persistence.clock import FakeClock
from persistence.errors import Fenced, FinnError, Invalid, NotFound
from persistence.events import OWNER, By, Event, Record, TokenCreated, TokenRevoked
from persistence.fold import Folded
from persistence.redact import PREFIX
from tests.gateway.ring import tokens_in, tokens_of
from tests.persistence.journals import logged, means, opened, say, texts

DAY = 86400.0
ALICE = By(actor="token:01ARZ3NDEKTSV4RRFFQ69G5FAV", trust="user")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def told(root: Path) -> list[tuple[str, By]]:
    """What the log has to say of tokens, and who caused it."""
    return [(one.type, one.by) for one in logged(root) if one.type.startswith("token_")]


# ---------------------------------------------------------------- made


async def test_a_new_token_is_found_by_its_text_and_by_nothing_else(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("read", "kitchen tablet", None, OWNER)
        text = made.text.reveal()
        assert tokens.find(text) == made.token
        assert (made.token.scope, made.token.name, made.token.expires) == ("read", "kitchen tablet", None)
        wrong = (text[:-1], text + "A", text.swapcase(), made.token.sha256, made.token.id, "", "é", "\ud800", PREFIX)
        assert [tokens.find(one) for one in wrong] == [None] * len(wrong)


async def test_its_text_says_what_it_is_and_cannot_be_guessed(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        texts = [(await tokens.create("probe", "", None, OWNER)).text.reveal() for _ in range(5)]
    assert len(set(texts)) == 5
    assert all(is_token(text) and text.startswith("finn_") for text in texts)
    assert all(token_bits(text.removeprefix(PREFIX)) >= TOKEN_BITS for text in texts)


async def test_neither_the_disk_nor_the_list_knows_the_text(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("owner", "", None, OWNER)
        (shown,) = (view(token, clock.now()) for token in tokens.all())
    secret = made.text.reveal().removeprefix(PREFIX).encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert hash_of(made.text.reveal()) not in str(shown)
    assert made.text.reveal() not in repr(made)


async def test_a_token_is_good_on_the_next_start_and_so_is_a_revocation(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        kept, gone = [await tokens.create("chat", name, None, OWNER) for name in ("kept", "gone")]
        await tokens.revoke(gone.token.id, OWNER)
    async with tokens_in(tmp_path, clock) as tokens:
        assert tokens.find(kept.text.reveal()) == kept.token
        assert tokens.find(gone.text.reveal()) is None


async def test_who_made_and_who_revoked_it_is_in_the_record(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("chat", "", None, ALICE)
        await tokens.revoke(made.token.id, OWNER)
    assert told(tmp_path) == [("token_created", ALICE), ("token_revoked", OWNER)]


@pytest.mark.parametrize(
    ("scope", "name", "expires_s"),
    [
        ("admin", "", None),
        ("", "", None),
        ("read", "x" * 65, None),
        ("read", "two\nlines", None),
        ("read", "\x1b[2J", None),
        ("read", "", 0.0),
        ("read", "", -1.0),
        ("read", "", LONGEST_S + 1),
    ],
)
async def test_what_no_token_can_be_is_refused_and_nothing_recorded(
    tmp_path: Path, clock: FakeClock, scope: str, name: str, expires_s: float | None
) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        with pytest.raises(Invalid):
            await tokens.create(scope, name, expires_s, OWNER)  # type: ignore[arg-type]
        assert tokens.all() == ()
    assert told(tmp_path) == []


def test_how_long_it_lasts_is_said_as_in_the_settings() -> None:
    assert (lasting(None), lasting("90d"), lasting("30s")) == (None, 90 * DAY, 30.0)
    for text in ("", "90", "-1d", "1w", "1e9d", "9" * 99 + "d", "٣d"):
        with pytest.raises(Invalid, match="90d"):
            lasting(text)


# ---------------------------------------------------------------- taken back


async def test_a_revoked_token_opens_nothing_whatever_the_clock_says(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("chat", "", DAY, OWNER)
        clock.advance(60)
        await tokens.revoke(made.token.id, OWNER)
        for seconds in (0.0, -3600.0, -10 * DAY, 100 * DAY):
            clock.advance(seconds)
            assert not tokens.is_good(made.token.id)
            assert tokens.find(made.text.reveal()) is None
        assert tokens.all()[0].state(clock.now()) == "revoked"


async def test_a_token_ends_at_its_second_and_not_before(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("probe", "", 90 * DAY, OWNER)
        clock.advance(90 * DAY - 1)
        assert tokens.is_good(made.token.id)
        clock.advance(1)
        assert tokens.find(made.text.reveal()) is None
        assert tokens.all()[0].state(clock.now()) == "expired"


async def test_revoking_twice_is_one_record_and_what_is_not_there_is_told(tmp_path: Path, clock: FakeClock) -> None:
    async with tokens_in(tmp_path, clock) as tokens:
        made = await tokens.create("probe", "", None, OWNER)
        await tokens.revoke(made.token.id, OWNER)
        await tokens.revoke(made.token.id, OWNER)
        with pytest.raises(NotFound, match="finn token list"):
            await tokens.revoke("01ARZ3NDEKTSV4RRFFQ69G5FAV", OWNER)
    assert [kind for kind, _ in told(tmp_path)] == ["token_created", "token_revoked"]


async def test_while_the_store_is_silent_a_revocation_is_felt_all_the_same(tmp_path: Path, clock: FakeClock) -> None:
    async with opened(tmp_path, TOKENS, with_means=means(clock=clock)) as journal:
        tokens = tokens_of(journal, clock)
        made = await tokens.create("chat", "", None, OWNER)
        journal.hold()
        before = journal.durable
        revoking = asyncio.create_task(tokens.revoke(made.token.id, OWNER))
        await asyncio.sleep(0)
        assert not tokens.is_good(made.token.id)
        assert tokens.all()[0].revoked is None, "it is not confirmed yet"
        await journal.growth(before)
        journal.confirm(journal.durable)
        await revoking
        assert tokens.all()[0].revoked is not None


async def test_another_writer_keeps_tokens_from_being_made_here(tmp_path: Path, clock: FakeClock) -> None:
    async def fenced() -> None:
        raise Fenced("another instance of this agent has taken over", hint="ask that one")

    async with opened(tmp_path, TOKENS, with_means=replace(means(clock=clock), admit=fenced)) as journal:
        tokens = tokens_of(journal, clock)
        with pytest.raises(FinnError, match="taken over"):
            await tokens.create("read", "", None, OWNER)
    assert told(tmp_path) == []


# ---------------------------------------------------------------- the fold


async def test_the_fold_comes_back_from_a_snapshot_and_from_a_release_without_tokens(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with opened(tmp_path, TOKENS, with_means=means(clock=clock)) as journal:
        await tokens_of(journal, clock).create("read", "n", DAY, OWNER)
        ring = journal.whole(TOKENS)
    assert TOKENS.load(TOKENS.dump(ring)) == ring
    older = Folded((TOKENS,))
    assert older.load_what_fits({}) == []
    assert older.whole(TOKENS) == Keyring()


@given(kinds=st.lists(st.sampled_from(["made", "revoked"]), max_size=6))
def test_whatever_records_come_a_revoked_token_is_never_good_again(kinds: list[str]) -> None:
    said = {
        "made": TokenCreated(id="1", name="", scope="read", sha256="0" * 64, expires=None),
        "revoked": TokenRevoked(id="1"),
    }
    ring, revoked = Keyring(), False
    for time, kind in enumerate(kinds):
        revoked = revoked or (kind == "revoked" and "1" in ring.tokens)
        ring = keep(ring, record(time, said[kind]))
        if "1" in ring.tokens:
            assert ring.tokens["1"].state(0.0) == ("revoked" if revoked else "good")


def record(time: int, event: Event) -> Record:
    return Record(time, "", time, 1, 0, None, OWNER, event.kind, event.v, event, "", b"")


# ---------------------------------------------------------------- redaction


async def test_a_token_that_is_said_or_written_down_is_not_recorded(tmp_path: Path, clock: FakeClock) -> None:
    async with opened(tmp_path, TOKENS, with_means=means(clock=clock)) as journal:
        made = await tokens_of(journal, clock).create("chat", "", None, OWNER)
        text = made.text.reveal()
        plain, encoded = texts(tuple(await say(journal, f"it is {text}, keep it", b64encode(text.encode()).decode())))
    assert plain == "it is [REDACTED:token], keep it"
    assert encoded == "[REDACTED:token]"
