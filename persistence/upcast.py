"""Old versions of an event, lifted step by step to today's.

    data at v ── UPCASTS[kind, v] ──▶ data at v + 1 ── … ──▶ data at the version that EVENTS knows

A step is a pure function of the data. What is newer than this program, or of a kind it does not know, is not touched:
it becomes Unknown and stays in the log as it is.
"""

from collections.abc import Callable, Mapping

from pydantic import ValidationError

from persistence.events import EVENTS, EntryRecovered, Event, Json, Record, Unknown

Step = Callable[[dict[str, Json]], dict[str, Json]]

#: (kind, from version): the step to the next version
UPCASTS: Mapping[tuple[str, int], Step] = {
    ("log_recovered", 1): lambda data: {**data, "epoch": None},
    ("file_changed", 1): lambda data: {**data, "link": None},
}

KINDS: Mapping[str, type[Event]] = {event.kind: event for event in EVENTS}


def lift(
    kind: str,
    v: int,
    data: dict[str, Json],
    kinds: Mapping[str, type[Event]] = KINDS,
    upcasts: Mapping[tuple[str, int], Step] = UPCASTS,
) -> Event:
    """The event that `data` says, as today's program knows it, or Unknown."""
    known = kinds.get(kind)
    if known is None or v > known.v:
        return Unknown(data=data)
    lifted = data
    for version in range(v, known.v):
        step = upcasts.get((kind, version))
        if step is None:
            return Unknown(data=data)
        lifted = step(lifted)
    try:
        return known.model_validate(lifted)
    except ValidationError:
        # Verified bytes that do not fit the class were written by a program we are not: kept, not guessed.
        return Unknown(data=data)


def as_said(record: Record) -> Record:
    """A recovered record as what it was: who said it and when, under its new id and in its new place.

    Any other record is itself.
    """
    found = record.event
    if not isinstance(found, EntryRecovered):
        return record
    event = lift(found.type, found.version, found.data)
    if "parent" in type(event).model_fields:
        event = event.model_copy(update={"parent": found.parent})
    return record._replace(event=event, type=found.type, v=found.version, time=found.at, by=found.by)
