"""What lies between a record that is durable here and one that everybody sees.

local    durable ───────────────────────────▶ seen        no Level at all
store    durable ─▶ waits ─ let_go(seq) ─▶ seen
fenced   durable ─▶ never seen: its caller gets Fenced, and nothing new is taken
"""

from collections import deque

from persistence.errors import Fenced, StoreUnreachable
from persistence.wal import Written

CONFIRMED_LATER = "it is safe on the local disk, and goes to the store with the next start"
STANDBY = "another instance answers for this agent; talk to that one"


class Level:
    """Holds records back until the store has them, or for ever behind a fence."""

    def __init__(self) -> None:
        self._waiting: deque[Written] = deque()
        self._fenced = ""

    @property
    def fenced(self) -> bool:
        """Whether somebody else writes this agent's log now."""
        return bool(self._fenced)

    def check(self) -> None:
        """Raises Fenced behind a fence."""
        if self._fenced:
            raise Fenced(self._fenced, hint=STANDBY)

    def take(self, batch: list[Written]) -> None:
        """Records that are durable here."""
        self._waiting.extend(batch)
        if self._fenced:
            self._fail()

    def let_go(self, confirmed: int) -> list[Written]:
        """The records up to that seq, to be seen now."""
        found = []
        while self._waiting and self._waiting[0].seq <= confirmed:
            found.append(self._waiting.popleft())
        return found

    def fence(self, reason: str) -> None:
        """From now on nobody gets to see anything new."""
        self._fenced = self._fenced or reason
        self._fail()

    def close(self) -> None:
        """Whoever still waits is told that the store did not answer in time."""
        for written in self._waiting:
            what = f"record {written.seq} was not confirmed by the store before finn stopped"
            _raise(written, StoreUnreachable(what, hint=CONFIRMED_LATER))
        self._waiting.clear()

    def _fail(self) -> None:
        for written in self._waiting:
            _raise(written, Fenced(self._fenced, hint=STANDBY))
        self._waiting.clear()


def _raise(written: Written, error: Fenced | StoreUnreachable) -> None:
    done = written.token[0]
    if not done.done():
        done.set_exception(error)
