"""Where a store takes no conditions, nobody can be fenced: every writer gets a prefix of its own, and says so.

    unfenced/{writer}/   a whole replica: log/ seg/ snap/ manifest/ chunk/ blob/
    a start              looks at all of them, goes on from the best (epoch, then seq), and writes to a new one
    old ones             the newest three stay; the rest goes once the new one is complete

So nothing is ever overwritten. What two instances wrote at the same time is not brought together: the one with the
higher epoch is taken up by the next start, the other stays to be read. `finn status` and health say that it is so.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from persistence.clock import Clock
from persistence.collection import old
from persistence.errors import Damaged, Newer
from persistence.remote import Tip, look
from persistence.store import Store, Unconditional

PREFIX = "unfenced/"
KEPT = 3  #: prefixes, with the one that is written to
WRITERS_MAX = 1000  #: prefixes that are looked at

_WRITER = re.compile(r"unfenced/([0-9A-Za-z_-]{1,64})/")


class Candidate(NamedTuple):
    """A replica of a writer, with the end that a look found."""

    writer: str
    store: Store
    tip: Tip


class Survey(NamedTuple):
    """Every writer's replica that can be used, the best one first, and, as sentences, what could not be."""

    candidates: tuple[Candidate, ...]
    problems: tuple[str, ...]

    @property
    def best(self) -> Candidate | None:
        """The one to go on from."""
        return self.candidates[0] if self.candidates else None


# ---------------------------------------------------------------- decisions


def ranked(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Who reigned last comes first; of one reign who has more; of two alike the younger writer."""
    whole = (one for one in candidates if one.tip.complete)
    return tuple(sorted(whole, key=lambda one: (one.tip.epoch, one.tip.seq, one.writer), reverse=True))


def stale(best_first: Sequence[Candidate], mine: str) -> tuple[Candidate, ...]:
    """What may go: all but the best three. Nothing, until the own one is among those: until then it may be the past."""
    kept = best_first[:KEPT]
    return tuple(best_first[KEPT:]) if mine in {one.writer for one in kept} else ()


# ---------------------------------------------------------------- effects


def own(store: Store, writer: str) -> Store:
    """Where that writer writes."""
    return Unconditional(store, f"{PREFIX}{writer}")


def survey(store: Store, *, clock: Clock) -> Survey:
    """Looks at every writer's replica. Raises StoreError: then none of them is known to be the best."""
    candidates: list[Candidate] = []
    problems: list[str] = []
    for writer in writers(store):
        place = own(store, writer)
        try:
            tip = look(place, clock=clock, threads=1)
        except (Damaged, Newer) as error:
            problems.append(f"the replica of {writer} cannot be used: {error}")
            continue
        if tip is not None:
            candidates.append(Candidate(writer, place, tip))
    return Survey(ranked(candidates), tuple(problems))


def clear(store: Store, mine: str, *, clock: Clock) -> int:
    """Deletes old writers' replicas, of which nothing was written for a day. Returns how many objects.

    A replica's manifests go last, so that one that is half gone is found again and cleared to its end. Raises
    StoreError.
    """
    found = survey(store, clock=clock)
    now = max((one.modified for one in store.list(f"{PREFIX}{mine}/manifest/")), default=0.0)
    count = 0
    for candidate in stale(found.candidates, mine):
        objects = list(candidate.store.list(""))
        if all(old(one, now) for one in objects):
            for one in sorted(objects, key=lambda one: one.key.startswith("manifest/")):
                candidate.store.delete(one.key)
                count += 1
    return count


def writers(store: Store) -> Iterator[str]:
    """Everybody who ever wrote here, in order; one short listing each. Raises StoreError."""
    after = PREFIX
    for _ in range(WRITERS_MAX):
        found = next(iter(store.list(PREFIX, after)), None)
        match = _WRITER.match(found.key) if found else None
        if found is None:
            return
        if match:
            yield match[1]
        # `~` comes after every letter of a key: on to the next writer.
        after = f"{PREFIX}{match[1]}/~" if match else found.key
