"""The restore drill of a running finn: every copy is made a log again, beside the one that is here.

    data/cache/drill/  store ─▶ restored, folded ┐
                       clone ─▶ git ─▶ restored  ┴▶ the same state as here? ─▶ gone again, whatever came of it

git is asked as an empty machine would ask it: by a clone of its own, not by the folder that is here.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persistence.archive import Archive
from persistence.drill import Drilled, drill_archive, drill_store
from persistence.errors import Damaged, FinnError, NotFound, StorageFull
from persistence.fold import Fold
from persistence.limits import amount
from persistence.replay import Means, Paths
from persistence.store import Store

FOLDER = Path("cache", "drill")
SPARE_BYTES = 256 << 20  #: what a drill leaves of the disk, whatever it needs itself
TIMES = 3  #: what it may need at once, as a multiple of what is here: a download, and what is made of it

ArchiveAt = Callable[[Path], Archive]  #: the archive as a machine would see it that has nothing but this folder


@dataclass(frozen=True)
class Drill:
    """What there is to be tried. `store` and `archive` are None where they are not configured."""

    store: Store | None
    archive: ArchiveAt | None
    live: Paths
    folds: tuple[Fold[Any], ...]
    means: Means

    def run(self) -> None:
        """Tries every copy; what has nothing to be compared with yet is passed over. Waits for all of them.

        Raises Damaged where a copy does not give back what is here, StorageFull where there is no room to try, and
        StoreError, ArchiveError, StorageError, OSError; FinnError with every reason where there are several.
        """
        with self._folder() as folder:
            self._require_room(folder)
            problems = [problem for copy in (self._store, self._git) if (problem := _problem(copy, folder))]
        if len(problems) > 1:
            raise FinnError("; ".join(map(str, problems)))
        if problems:
            raise problems[0]

    def _store(self, folder: Path) -> Drilled | None:
        if self.store is None:
            return None
        return drill_store(self.store, self.live, self.folds, self._alone, folder / "store")

    def _git(self, folder: Path) -> Drilled | None:
        if self.archive is None:
            return None
        return drill_archive(self.archive(folder / "clone"), self.live, self._alone, folder / "git")

    @property
    def _alone(self) -> Means:
        """What a copy does not have must not be had from another one, nor be counted as the log's."""
        return Means(self.means.disk, self.means.clock, self.means.ids, self.means.redactor)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = self.live.root / FOLDER
        _remove(folder)  # a drill that was killed
        (folder / "clone").mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            _remove(folder)

    def _require_room(self, folder: Path) -> None:
        here = (self.live.wal, self.live.snapshots, self.live.chunks, self.live.blobs)
        need = TIMES * sum(_size(one) for one in here) + SPARE_BYTES
        free = shutil.disk_usage(folder).free
        if free < need:
            what = f"a drill may need {amount(need)} of the disk, and {amount(free)} are free"
            raise StorageFull(what, hint="make room; finn works on without a drill")


def _problem(copy: Callable[[Path], Drilled | None], folder: Path) -> FinnError | OSError | None:
    """What is wrong with a copy: the one is tried whatever the other came to."""
    try:
        drilled = copy(folder)
    except NotFound:
        return None  # nothing to compare yet
    except (FinnError, OSError) as problem:
        return problem
    if drilled is None or drilled.ok:
        return None
    what = f"what was restored from {drilled.source} is not what is here: {drilled.why}"
    return Damaged(what, hint="run finn verify --store")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # pruned meanwhile
            total += path.lstat().st_size
    return total


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
