"""Which files are kept as records, and which stay on this disk only: tables and pure decisions.

a folder of caches or dependencies   made again by the tool that made it: not looked into
a link                               kept as its text, where it points inside the root whatever else is there
too large, too many, too much        left out until there is room; what the log knows already goes first
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

IGNORED = frozenset(
    {
        *(".git", ".hg", ".svn", ".jj"),
        *("node_modules", "bower_components", ".venv", "venv", "site-packages", "__pycache__"),
        *(".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".hypothesis"),
        *(".gradle", ".terraform", ".next", ".nuxt", ".parcel-cache", ".turbo"),
    }
)  #: folders, wherever they are
MARKS = frozenset({"CACHEDIR.TAG", "pyvenv.cfg"})  #: a folder that holds one of these says itself what it is
CLUTTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  #: files that a desktop leaves behind

PATH_BYTES = 1024  #: of a file's name below the root
PART_BYTES = 255

CLOSED = "a folder that cannot be read"
CACHE = "a folder of caches or dependencies"
SECRET = "holds a known secret"  # noqa: S105 - a reason, not a secret
NAMES_SECRET = "its name holds a known secret"  # noqa: S105
SPECIAL = "no plain file"
OUTSIDE = "a link that leads outside"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one root is kept: of each file, in all, and how many files."""

    file_bytes: int = 8 << 20
    total_bytes: int = 1 << 30
    files: int = 20_000


def beyond(sizes: Iterable[tuple[str, int]], known: Collection[str], limits: Limits) -> dict[str, str]:
    """Which of the files, by name and size, do not fit, and why. What is `known` already goes first, then by name."""
    return dict(_beyond(sorted(sizes, key=lambda one: (one[0] not in known, one[0])), limits))


def _beyond(sizes: Iterable[tuple[str, int]], limits: Limits) -> Iterator[tuple[str, str]]:
    count = total = 0
    for name, size in sizes:
        if size > limits.file_bytes:
            yield name, f"larger than {amount(limits.file_bytes)}"
        elif count >= limits.files:
            yield name, f"more than {limits.files:,} files"
        elif total + size > limits.total_bytes:
            yield name, f"more than {amount(limits.total_bytes)} in all"
        else:
            count, total = count + 1, total + size


def inside(name: str, target: str) -> bool:
    """Whether a link of that name stays below the root, whatever the folders on its way are.

    Going up is allowed at its beginning only: after a name that may be a link itself, `..` leads who knows where.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and not target.startswith("/") and ".." not in parts[ups:] and ups <= name.count("/")


def plain(name: str) -> bool:
    """Whether it is the name of a file below a root, and of nothing else. Names may come from a poisoned copy."""
    parts = name.split("/")
    return (
        "\0" not in name
        and len(name.encode(errors="replace")) <= PATH_BYTES
        and all(part not in ("", ".", "..") and len(part.encode(errors="replace")) <= PART_BYTES for part in parts)
        and PurePosixPath(name).as_posix() == name
    )


def amount(count: int) -> str:
    """Bytes as people say them."""
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{float(f'{count / size:.3g}'):g} {unit}"
    return f"{count} bytes"
