"""Scoped tokens: what the owner gives to a probe, a program or another device, and can take back.

    create ─▶ token_created, with the hash ─▶ good ─┬─ token_revoked ─▶ revoked
       └▶ finn_…, told once                         └─ the clock ─────▶ expired

The text is 256 random bits behind `finn_`, and only its SHA-256 is kept: neither the log nor a list can give it back.
Being records, tokens go with the log to the copies, and are good on the next machine.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

from gateway.caller import SCOPES, Scope
from gateway.secret import Secret
from gateway.settings import duration
from persistence.clock import Clock, Entropy, Ids
from persistence.errors import Invalid, NotFound
from persistence.events import By, Record, TokenCreated, TokenRevoked
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.redact import PREFIX, TOKEN

SECRET_BYTES = 32
NAME_CHARS = 64
LONGEST_S = 3650 * 86400.0  #: that a token may be good for, unless it never ends

TokenState = Literal["good", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the log knows it. Times are milliseconds since 1970."""

    id: str
    name: str
    scope: Scope
    sha256: str
    created: int
    expires: int | None
    revoked: int | None = None

    def state(self, now: float) -> TokenState:
        """What it is at `now`, in seconds since 1970. Revoked is for good, whatever the clock says later."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now * 1000 >= self.expires else "good"


@dataclass(frozen=True)
class Keyring:
    """Every token that was ever made, by id."""

    tokens: Mapping[str, Token] = field(default_factory=dict)

    @cached_property
    def by_hash(self) -> Mapping[str, Token]:
        """The same by hash. A look-up tells by its time nothing that would help to find a text with that hash."""
        return {token.sha256: token for token in self.tokens.values()}


def keep(ring: Keyring, record: Record) -> Keyring:
    """The tokens after a record. The first of an id counts: none is made good again by being made twice."""
    event = record.event
    if isinstance(event, TokenCreated) and event.id not in ring.tokens:
        made = Token(event.id, event.name, event.scope, event.sha256, record.time, event.expires)
        return Keyring({**ring.tokens, event.id: made})
    known = ring.tokens.get(event.id) if isinstance(event, TokenRevoked) else None
    if known is None or known.revoked is not None:
        return ring
    return Keyring({**ring.tokens, known.id: replace(known, revoked=record.time)})


#: Who comes from a release without tokens had none.
TOKENS = Fold(
    "tokens", 1, Keyring, Keyring(), keep, False, (TokenCreated, TokenRevoked), lifts={0: lambda _: {"tokens": {}}}
)


class Made(NamedTuple):
    """A new token, and its text, which nobody can tell again."""

    token: Token
    text: Secret


class Tokens:
    """The tokens of a journal. Used on its event loop."""

    def __init__(self, journal: Journal, clock: Clock, ids: Ids, entropy: Entropy) -> None:
        self._journal = journal
        self._clock = clock
        self._ids = ids
        self._entropy = entropy
        self._leaving: set[str] = set()  # revoked here, though perhaps not yet confirmed: they open nothing meanwhile

    def all(self) -> tuple[Token, ...]:
        """Every token, also those that are good no longer, the oldest first."""
        return tuple(self._ring.tokens.values())

    def find(self, text: str) -> Token | None:
        """The token with that text, if it is good now."""
        token = self._ring.by_hash.get(hash_of(text)) if is_token(text) else None
        return token if token is not None and self.is_good(token.id) else None

    def get(self, name: str) -> Token | None:
        """The token of that id, if it is good now."""
        return self._ring.tokens.get(name) if self.is_good(name) else None

    def is_good(self, name: str) -> bool:
        """Whether the token of that id opens anything now."""
        token = self._ring.tokens.get(name)
        return token is not None and name not in self._leaving and token.state(self._clock.now()) == "good"

    async def create(self, scope: Scope, name: str, expires_s: float | None, by: By) -> Made:
        """Makes a token, good for so many seconds or (None) until it is revoked; it is durable when this returns.

        Raises Invalid, StorageError, Fenced.
        """
        checked(scope, name, expires_s)
        text = f"{PREFIX}{base64.urlsafe_b64encode(self._entropy(SECRET_BYTES)).decode().rstrip('=')}"
        expires = None if expires_s is None else int((self._clock.now() + expires_s) * 1000)
        event = TokenCreated(id=self._ids.new(), name=name, scope=scope, sha256=hash_of(text), expires=expires)
        await self._journal.admit()
        await self._journal.commit(event, by=by)
        return Made(self._ring.tokens[event.id], Secret(text))

    async def revoke(self, name: str, by: By) -> None:
        """Takes a token back: it opens nothing from this moment on. One that was taken back already is left as it is.

        Raises NotFound, StorageError, Fenced: the token is refused all the same until finn ends.
        """
        token = self._ring.tokens.get(name)
        if token is None:
            raise NotFound(f"there is no token {name[:64]!r}", hint="`finn token list` shows their ids")
        if token.revoked is not None:
            return
        self._leaving.add(name)
        await self._journal.admit()
        await self._journal.commit(TokenRevoked(id=name), by=by)

    @property
    def _ring(self) -> Keyring:
        return self._journal.whole(TOKENS)


def hash_of(text: str) -> str:
    """What is kept of a token. With 256 random bits behind it, it needs no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_token(text: str) -> bool:
    """Whether a text could be that of a scoped token."""
    return text.isascii() and TOKEN.fullmatch(text.encode()) is not None


def lasting(text: str | None) -> float | None:
    """The seconds of `90d`; None stays None. Raises Invalid."""
    if text is None:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise Invalid(f"expires {error}, not {text[:32]!r}", hint="without it the token never ends") from None


def checked(scope: str, name: str, expires_s: float | None) -> None:
    """Raises Invalid for what no token can be."""
    if scope not in SCOPES:
        raise Invalid(f"there is no scope {scope[:32]!r}", hint=f"there are {', '.join(SCOPES)}")
    if len(name) > NAME_CHARS or not name.isprintable():
        raise Invalid(f"a token's name is one line of at most {NAME_CHARS} characters", hint="choose another one")
    if expires_s is not None and not 0 < expires_s <= LONGEST_S:
        raise Invalid("a token is good for at least 1s and at most 3650d", hint="without `expires` it never ends")
