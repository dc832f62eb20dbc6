"""The reigns of the log's writers: who had which epoch, from which seq on.

    epoch 1 from seq 1, epoch 3 from seq 871, …

A reader's place is an epoch and a seq: after a restoration another record may have the seq that was seen.
"""

from dataclasses import dataclass
from itertools import pairwise

from persistence.events import EVENTS, Record, Unknown
from persistence.fold import Fold


@dataclass(frozen=True, slots=True)
class Reign:
    """A writer's time: its epoch and the first seq it wrote."""

    epoch: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Reigns:
    """Every reign of this log's history, in order."""

    reigns: tuple[Reign, ...] = ()

    def holds(self, epoch: int, seq: int, head: int) -> bool:
        """Whether a reader who saw `seq` under `epoch` saw a part of this history."""
        for index, reign in enumerate(self.reigns):
            if reign.epoch == epoch:
                later = self.reigns[index + 1 :]
                return seq <= (later[0].first_seq - 1 if later else head)
        return seq == 0

    def last_of(self, epoch: int) -> int:
        """Where a reader of `epoch` goes on whose cursor is not part of this history: at the end of that reign.

        At 0 where this history never had it, or has no later one: nobody can tell what such a reader saw.
        """
        for reign, later in pairwise(self.reigns):
            if reign.epoch == epoch:
                return later.first_seq - 1
        return 0

    def until(self, epoch: int, head: int) -> "Reigns":
        """With the reign of a writer whose first record comes after `head`, if it is not among them."""
        if self.reigns and self.reigns[-1].epoch == epoch:
            return self
        return Reigns((*self.reigns, Reign(epoch, head + 1)))


def reign(reigns: Reigns, record: Record) -> Reigns:
    """The reigns after a record."""
    if reigns.reigns and reigns.reigns[-1].epoch == record.epoch:
        return reigns
    return Reigns((*reigns.reigns, Reign(record.epoch, record.seq)))


REIGNS = Fold("reigns", 1, Reigns, Reigns(), reign, False, (*EVENTS, Unknown))
