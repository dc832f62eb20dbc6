"""Where a start has its state from, as found out before the journal is opened.

local ─ store ─ git ─ template        the best that could be proven; whoever looked holds the lock already
"""

from dataclasses import dataclass
from typing import Literal

from persistence.lock import Lock
from persistence.replay import Replayed

Source = Literal["local", "store", "git", "template"]


@dataclass(frozen=True)
class Origin:
    """What a recovery came to. The journal that is opened with it takes over the lock and ends with letting it go.

    `epoch` is what new records carry. `bytes` were read in `ms` from elsewhere. `discarded` are the seqs, first and
    last, that were in the local log and are no part of this history; `problems` says what else could not be used.
    `replayed` is the directory as it stands, where whoever looked has folded it already: it is not read again then.
    """

    source: Source
    epoch: int
    lock: Lock
    problems: tuple[str, ...] = ()
    ms: int = 0
    bytes: int = 0
    discarded: tuple[tuple[int, int], ...] = ()
    replayed: Replayed | None = None
