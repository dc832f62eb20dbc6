"""What an image weighs, by layer and by part: `weigh.py ARCHIVE`, as `docker save` and its like write one.

    layer      as it is unpacked, and as a registry keeps and sends it
    part       every file belongs to the first part whose pattern its path matches; packages are told one by one

Exits 1 where the whole is heavier than MOST_MB or MOST_SENT_MB. Needs nothing but Python.
"""

import io
import json
import re
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

MB = 10**6
MOST_MB = 300  #: unpacked
MOST_SENT_MB = 110
TOLD_MB = 2.0  #: a package below it is told with the others
LEVEL = 6  #: of gzip, as registries' clients have it
PIECE = 2**20

PACKAGES = r"opt/finn/lib/python[0-9.]+/site-packages/"
PARTS = (
    ("finn", rf"{PACKAGES}(agent|gateway|grimoires|persistence|scheduler|finn-[^/]+)/|opt/finn/bin/finn$"),
    ("package", rf"{PACKAGES}(?P<name>[A-Za-z0-9_]+?)(-[^/]+|\.py)?(/|$)"),
    ("Python", r"usr/(local/)?(lib|bin)/(libpython|python3)|usr/lib/[^/]+/libpython"),
    ("git", r"usr/(lib|share)/git-core/|usr/bin/git"),
    ("Perl, as Debian's own tools need it", r"usr/(bin/perl|lib/[^/]+/perl|share/perl)"),
    ("libraries", r"usr/lib/[^/]+-linux-gnu/"),
    ("commands", r"usr/s?bin/"),
    ("Debian's books and data", r""),
)


def main(archive: Path) -> int:
    """Prints the tables; the exit code."""
    with ThreadPoolExecutor() as threads:  # zlib lets the others run
        layers = list(threads.map(lambda name: weighed(archive, name), layers_of(archive)))
    parts = sum((parts for _, _, parts in layers), Counter[str]())
    unpacked, sent = sum(size for size, _, _ in layers), sum(size for _, size, _ in layers)
    told(f"{'layer':40} {'MB':>8} {'sent as':>8}")
    for number, (size, small, _) in enumerate(layers, 1):
        told(f"{number:<40} {size / MB:8.1f} {small / MB:8.1f}")
    told(f"{'all':40} {unpacked / MB:8.1f} {sent / MB:8.1f}\n\n{'part':40} {'MB':>8}")
    for name, size in summed(parts):
        told(f"{name:40} {size / MB:8.1f}")
    fits = unpacked <= MOST_MB * MB and sent <= MOST_SENT_MB * MB
    if not fits:
        told(f"\nToo heavy: at most {MOST_MB} MB, and {MOST_SENT_MB} MB as it is sent.")
    return 0 if fits else 1


def told(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def layers_of(archive: Path) -> list[str]:
    """The names of the layers within the archive, lowest first."""
    with tarfile.open(archive) as whole:
        manifest = json.load(member(whole, "manifest.json"))
    names: list[str] = manifest[0]["Layers"]
    return names


def weighed(archive: Path, name: str) -> tuple[int, int, Counter[str]]:
    """A layer's size, its size when compressed, and the bytes of each part in it."""
    with tarfile.open(archive) as whole, Measured(member(whole, name)) as layer:
        with tarfile.open(fileobj=layer, mode="r|") as files:
            parts = Counter[str]()
            for file in files:
                parts[part_of(file.name)] += file.size
        layer.rest()
        return layer.size, layer.sent, parts


def member(whole: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file in the archive; one of them may be a link to another."""
    found = whole.extractfile(name)
    assert found is not None, f"{name} is a folder"
    return found


class Measured(io.RawIOBase):
    """A stream that tells how much went through it, and how much that is compressed."""

    def __init__(self, source: IO[bytes]) -> None:
        self.size = self.sent = 0
        self._source = source
        self._zip = zlib.compressobj(LEVEL)

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(size)
        self.size += len(piece)
        self.sent += len(self._zip.compress(piece))
        return piece

    def rest(self) -> None:
        """Reads to the end."""
        while self.read(PIECE):
            pass
        self.sent += len(self._zip.flush())


def part_of(path: str) -> str:
    """The part that a path belongs to; a package is called by its own name."""
    plain = path.removeprefix("./").removeprefix("/")
    name, match = next((name, match) for name, pattern in PARTS if (match := re.match(pattern, plain)))
    return f"  {match['name'].lower()}" if name == "package" else name


def summed(parts: Counter[str]) -> Iterator[tuple[str, int]]:
    """The parts, heaviest first; below `packages` those of them that weigh something."""
    packages = Counter({name: size for name, size in parts.items() if name.startswith("  ")})
    heavy = [(name, size) for name, size in packages.most_common() if size >= TOLD_MB * MB]
    whole = Counter({"packages": packages.total()}) + Counter({k: v for k, v in parts.items() if k not in packages})
    for name, size in whole.most_common():
        yield name, size
        if name == "packages":
            yield from heavy
            yield "  others", packages.total() - sum(size for _, size in heavy)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
