"""The stores there are, by the scheme of their URL: s3://bucket/prefix, file:///dir, memory://.

A further one is a file beside these and a line in STORES; the conformance suite then holds it to the same promise.
"""

from collections.abc import Callable

from persistence.errors import UsageError
from persistence.store import Access, Store
from persistence.stores import file, memory, s3

Opener = Callable[[str, Access], Store]  #: from what follows `scheme://`; raises UsageError

STORES: tuple[tuple[str, Opener], ...] = (
    ("file", file.opened),
    ("memory", memory.opened),
    ("s3", s3.opened),
)


def open_store(url: str, access: Access | None = None) -> Store:
    """The store that a URL names. Nothing is read or asked yet. Raises UsageError, which never repeats the URL."""
    scheme, found, place = url.partition("://")
    for known, opener in STORES:
        if found and scheme == known:
            return opener(place, access or Access())
    known_ones = ", ".join(f"{name}://" for name, _ in STORES)
    raise UsageError("the store's URL has no scheme that is known", hint=f"it begins with one of {known_ones}")
