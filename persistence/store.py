"""Where objects are kept: names to bytes, and one promise that everything else leans on, create-if-absent.

    create   the object, or Exists: the only conditional write, and the only one that fencing needs
    put      an object whose bytes follow from its name, or advice (HINT, knock) where the last one wins
    get      its bytes, or a range     list   the names below a prefix     delete

Calls wait for the network: make them in threads of their own, never on the event loop. Every call ends within seconds.
No call is repeated here: after StoreUnreachable the outcome of a write is unknown, and only the caller knows what the
same bytes under the same name mean. The stores there are, and the door to them, are in stores/.

A key is words between slashes, `log/0000000000000042.wal`: letters, digits, `.`, `_` and `-`, none begins with a dot.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from persistence.errors import Exists, NotFound, StoreRefused

OBJECT_MAX = 256 << 20  #: bytes; no object of ours comes near, so one that is larger is not read into memory
KEY_MAX = 512  #: characters, with every prefix above it; S3 takes 1,024 bytes

_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_PREFIX = re.compile(rf"(?:{_WORD}/)*(?:{_WORD})?")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a store that wants to know who asks. Without a key, boto3 looks where it always looks.

    The gateway fills it from the settings; what opens the store never shows.
    """

    endpoint: str = ""
    region: str = ""
    key_id: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


class Found(NamedTuple):
    """An object in a listing. `modified` is seconds since 1970 by the store's own clock."""

    key: str
    bytes: int
    modified: float


class Store(Protocol):
    """Objects below one prefix; keys are relative to it. Safe to call from several threads at once.

    Every method raises StoreUnreachable or StoreRefused where the store cannot be used.
    """

    @property
    def url(self) -> str:
        """What is shown to people: scheme, place and prefix, never a credential."""

    def create(self, key: str, data: bytes) -> None:
        """Writes the object if there is none of that name. Raises Exists."""

    def put(self, key: str, data: bytes) -> None:
        """Writes the object, whatever was there."""

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        """The object's bytes from `first` on, at most `count`. Raises NotFound."""

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        """What lies below a prefix, in order of the keys, those after `after` only. Fetched page by page.

        What has a name that is no key, and is there all the same, is somebody else's and left out.
        """

    def delete(self, key: str) -> None:
        """The object is gone afterwards, also where there was none."""

    def close(self) -> None:
        """Lets go of connections."""


class Below:
    """A store within a store: everything under a further prefix. The connections are shared: closing closes both."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = checked_key(prefix) + "/"

    @property
    def url(self) -> str:
        slash = "" if self._store.url.endswith("/") else "/"
        return f"{self._store.url}{slash}{self._prefix[:-1]}"

    def create(self, key: str, data: bytes) -> None:
        self._store.create(self._prefix + checked_key(key), data)

    def put(self, key: str, data: bytes) -> None:
        self._store.put(self._prefix + checked_key(key), data)

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        return self._store.get(self._prefix + checked_key(key), first, count)

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        after = after and self._prefix + after
        for found in self._store.list(self._prefix + checked_prefix(prefix), after):
            yield found._replace(key=found.key.removeprefix(self._prefix))

    def delete(self, key: str) -> None:
        self._store.delete(self._prefix + checked_key(key))

    def close(self) -> None:
        self._store.close()


class Unconditional(Below):
    """A prefix that one writer has for itself, in a store that ignores or refuses conditions: create looks, then puts.

    Between the look and the put anybody could come in; only a prefix that nobody else writes makes that harmless.
    """

    def create(self, key: str, data: bytes) -> None:
        try:
            self.get(key, 0, 1)
        except NotFound:
            self.put(key, data)
        else:
            raise taken(key, self.url)


def checked_key(key: str) -> str:
    """The key, if it can name an object: no `..`, no empty word, no control character. Raises StoreRefused."""
    if not is_key(key):
        raise StoreRefused(f"{key[:80]!r} is no name of an object", hint="run finn verify --store")
    return key


def is_key(key: str) -> bool:
    """Whether finn could have given this name."""
    return len(key) <= KEY_MAX and bool(_KEY.fullmatch(key))


def checked_prefix(prefix: str) -> str:
    """The beginning of keys, which may end within a word, or be empty. Raises StoreRefused."""
    if len(prefix) > KEY_MAX or not _PREFIX.fullmatch(prefix):
        raise StoreRefused(f"{prefix[:80]!r} is no beginning of a name", hint="run finn verify --store")
    return prefix


def taken(key: str, url: str) -> Exists:
    """The error of every store for a name that is in use."""
    return Exists(f"there is an object {key} in {url} already", hint="read it to see whose it is")


def absent(key: str, url: str) -> NotFound:
    """The error of every store for a name without an object."""
    return NotFound(f"there is no object {key} in {url}", hint="run finn verify --store")


def too_large(key: str, url: str) -> StoreRefused:
    """The error of every store for an object that nobody here can have written."""
    return StoreRefused(
        f"{key} in {url} is larger than {OBJECT_MAX >> 20} MB and is not read",
        hint="see who else writes there",
    )
