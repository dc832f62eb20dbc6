"""Where objects are kept: names to bytes, and one promise that everything else leans on, create-if-absent.

    create   the object, or Exists: the only conditional write, and the only one that fencing needs
    put      an object whose bytes follow from its name, or advice (HINT, knock) where the last one wins
    get      its bytes, or a range     list   the names below a prefix     delete

Calls wait for the network: make them in threads of their own, never on the event loop. Every call ends within seconds.
No call is repeated here: after StoreUnreachable the outcome of a write is unknown, and only the caller knows what the
same bytes under the same name mean.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


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
        """What lies below a prefix, in order of the keys, those after `after` only. Fetched page by page."""

    def delete(self, key: str) -> None:
        """The object is gone afterwards, also where there was none."""

    def close(self) -> None:
        """Lets go of connections."""
