"""The agent on its way into git: a commit where something changed, then a push.

hourly, and at a clean stop:  picture ─▶ commit ─▶ push ─▶ the manifest names the commit
"""

import logging
from collections.abc import Iterable
from threading import RLock

from gateway.copies import Tier, Trouble
from gateway.settings import Settings
from gateway.sources import archive_of, remote_of
from gateway.threads import Thread
from persistence.archive import Pushed
from persistence.clock import Clock, Ids
from persistence.disk import Disk
from persistence.errors import ArchiveError, Fenced, FinnError, Newer, NotFound, StoreUnreachable
from persistence.git import REMOTE_S
from persistence.journal import Journal
from persistence.picture import Picture, take
from persistence.replay import Paths
from scheduler.health import Fact

log = logging.getLogger("finn.archiving")


class Archiving:
    """The git tier of this process, in a thread of its own: git may wait for a network, or for ever."""

    def __init__(self, settings: Settings, disk: Disk, clock: Clock, ids: Ids) -> None:
        """Raises UsageError for a branch or remote that cannot be used. git is not looked for yet."""
        remote = remote_of(settings)
        self.archive = archive_of(settings, disk, Paths(settings.data_dir), ids, remote)
        self.commit: str | None = None  #: the last one of this process
        self.seq = 0  #: the last record that the remote has, as far as this process knows
        self._place = remote.url if remote else ""
        self._every_s = settings.archive_interval
        self._clock = clock
        self._thread = Thread("finn-archive")
        self._alone = RLock()  # one thread at a time; a commit may itself need a body that only the archive has
        self._at: float | None = None
        self._trouble = Trouble()
        self._behind_since = clock.monotonic()

    async def keep(self, journal: Journal, manifest: int, push_s: float | None = REMOTE_S) -> str | None:
        """Commits what there is and pushes it, where `push_s` gives it time. The new commit, if there is one.

        Raises Fenced where the remote is of a later reign, and what stands in the way now: ArchiveError, StorageError,
        StoreError.
        """
        try:
            picture = await take(journal, manifest=manifest, time=int(self._clock.now()))
            commit = await self._thread.run(self._commit, picture, journal)
            said = self.archive.problems
            self.commit = commit or self.commit
            if push_s is not None:
                pushed = await self._thread.run(self._push, push_s)
                said += self.archive.problems
                if pushed is not None:
                    self.seq, self._at = picture.seq, self._clock.now()
        except Fenced:
            raise
        except (FinnError, OSError) as error:
            self._heard(str(error))
            raise
        self._behind_since = self._clock.monotonic()
        self._heard("; ".join(said))
        return commit

    def body(self, sha: str) -> bytes:
        """A chunk or blob that no other copy has. In any thread; raises NotFound, StoreUnreachable."""
        try:
            with self._alone:
                return self.archive.body(sha)
        except Newer as error:
            raise NotFound(error.message) from error
        except ArchiveError as error:
            if error.retryable:
                raise StoreUnreachable(error.message, hint=error.hint) from error
            raise NotFound(error.message) from error

    def _commit(self, picture: Picture, journal: Journal) -> str | None:
        with self._alone:
            return self.archive.commit(picture, journal)

    def _push(self, limit_s: float) -> Pushed | None:
        with self._alone:
            return self.archive.push(limit_s)

    def _heard(self, error: str) -> None:
        if error:
            log.warning("%s", error)
        self._trouble = self._trouble.heard(error, self._clock.now())

    def tier(self, seq: int) -> Tier:
        """Git as this process knows it, when the log ends with `seq`."""
        lag = max(0, seq - self.seq)
        waited = self._clock.monotonic() - self._behind_since if lag else 0.0
        return Tier("git", self.seq or None, lag, waited, self._at, None, self._trouble, self._place)

    def facts(self, seq: int) -> Iterable[Fact]:
        """The same for health."""
        yield Fact("git:lagSeconds", round(self.tier(seq).lag_s, 3), "s", of=self._every_s)
        if error := self._trouble.error:
            yield Fact("git:lastError", error, output=error)

    def end(self) -> None:
        """Lets go, waiting for nothing."""
        self._thread.end()
