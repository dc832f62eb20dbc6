"""Whether the archive that a remote holds is a part of this log's past, somebody else's, or of a later reign.

theirs.epoch > mine             LATER     a younger writer has this agent
our log has their record        PAST      what we have goes on from there
it has another one there        FOREIGN   a history that parted from ours, or another agent's
it no longer has that seq       PAST where their epoch reached so far in our history and a session is in both
"""

from collections.abc import Set
from enum import Enum
from typing import NamedTuple

from persistence.reigns import Reigns


class Kin(Enum):
    """What another's archive is to ours."""

    PAST = "past"
    FOREIGN = "foreign"
    LATER = "later"


class Place(NamedTuple):
    """Where a history stands: its last record, and the sessions that it knows (their ids occur in no other log)."""

    epoch: int
    seq: int
    chain: str
    sessions: Set[str]


def kin(mine: Place, reigns: Reigns, theirs: Place, chain: str | None) -> Kin:
    """What they are to us; `chain` is the digest of our own record at their seq, None where that is not known."""
    shared = bool(mine.sessions & theirs.sessions)
    if theirs.epoch > mine.epoch:
        return Kin.LATER if shared or not (mine.sessions and theirs.sessions) else Kin.FOREIGN
    if chain is not None:
        return Kin.PAST if chain == theirs.chain else Kin.FOREIGN
    return Kin.PAST if shared and reigns.holds(theirs.epoch, theirs.seq, mine.seq) else Kin.FOREIGN
