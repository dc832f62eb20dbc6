"""What this history needs and the local disk does not have: after a restore most of it, on an ordinary day nothing.

chunks that the state names ─▶ blobs that their lines name        blobs that the log's own lines name
"""

from collections.abc import Iterable

from persistence.blobs import Blobs, Kind
from persistence.chunks import Chunks
from persistence.codec import blobs_in
from persistence.errors import Damaged, NotFound


class Absent:
    """Looks for it. Waits for the disk; what a chunk names is read once and remembered."""

    def __init__(self, chunks: Chunks, blobs: Blobs) -> None:
        self._chunks = chunks
        self._blobs = blobs
        self._named: dict[str, tuple[str, ...]] = {}  # by a chunk's hash: the blobs of its lines

    def find(self, chunks: Iterable[str], lines: Iterable[bytes]) -> list[tuple[Kind, str]]:
        """Those of these chunks, and of the blobs named in them and in these lines, that have no file.

        A chunk that is not here names nothing yet: ask again once it is.
        """
        named = dict.fromkeys(chunks)
        blobs = dict.fromkeys(blobs_in(lines))
        for sha in named:
            blobs.update(dict.fromkeys(self._names_of(sha)))
        return [
            *(("chunk", sha) for sha in named if not self._chunks.has(sha)),
            *(("blob", sha) for sha in blobs if not self._blobs.has(sha)),
        ]

    def _names_of(self, chunk: str) -> tuple[str, ...]:
        if chunk not in self._named:
            try:
                data = self._chunks.whole(chunk)
            except (NotFound, Damaged):
                return ()
            self._named[chunk] = blobs_in(data.splitlines())
        return self._named[chunk]
