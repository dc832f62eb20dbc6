"""A fold: the only way state changes.

    state, record ─ step ─▶ state        pure, total, frozen: the same log gives the same state, byte for byte

A fold holds one value for the whole log, or one for each stream. It names the record types it looks at, so that the
others cost it nothing. `version` goes up when the shape of its state changes; an older state is lifted step by step
where there are steps, else folded anew from the log while the log still has its beginning.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from persistence.errors import Newer
from persistence.events import Event, Json, Record, Unknown

S = TypeVar("S")
States = dict[str, Any]  #: by stream

WHOLE = ""  #: what stands for the stream where a fold has one state for the whole log


@dataclass(frozen=True)
class Fold(Generic[S]):
    """A named step over records. `shape` is the type of the state: a frozen dataclass that pydantic can read back.

    `lifts` are pure steps from the dumped states of one version to the next.
    """

    name: str
    version: int
    shape: type[S]
    initial: S
    step: Callable[[S, Record], S]
    per_stream: bool
    events: tuple[type[Event], ...]
    lifts: Mapping[int, Callable[[Json], Json]] = field(default_factory=dict)

    @cached_property
    def _adapter(self) -> TypeAdapter[S]:
        return TypeAdapter(self.shape)

    def dump(self, state: S) -> Json:
        """The state as JSON data."""
        return self._adapter.dump_python(state, mode="json")

    def load(self, data: Json) -> S:
        """The state that `dump` gave. Raises ValidationError."""
        return self._adapter.validate_python(data)


def changed(state: S, changes: Mapping[str, Any]) -> S:
    """A copy of a frozen dataclass without slots, with other values in those of its fields.

    `dataclasses.replace` calls the constructor, which sets one frozen field after the other: four times as slow, and a
    fold is stepped with every record.
    """
    twin = object.__new__(type(state))
    fields = twin.__dict__
    fields.update(state.__dict__)
    fields.update(changes)
    return twin


class OtherRelease(ValueError):
    """A sound state that another release folded, in which something is not as this one folds it."""


class Folded:
    """The present state of every fold. Changed by `step` alone; reads give frozen values."""

    def __init__(self, folds: Iterable[Fold[Any]]) -> None:
        self.folds = tuple(folds)
        self._states: dict[str, States] = {
            fold.name: {} if fold.per_stream else {WHOLE: fold.initial} for fold in self.folds
        }
        self._by_type: defaultdict[str, list[tuple[Fold[Any], States]]] = defaultdict(list)
        for fold in self.folds:
            for event in fold.events:
                self._by_type[event.kind].append((fold, self._states[fold.name]))

    def step(self, record: Record) -> None:
        """Folds one record into every state that looks at its type."""
        for fold, states in self._by_type.get(record.event.kind, ()):
            _step(fold, states, record)

    def catch_up(self, record: Record) -> None:
        """Folds a record that was Unknown when it came, into the states that did not see it then."""
        for fold, states in self._by_type.get(record.event.kind, ()):
            if Unknown not in fold.events:
                _step(fold, states, record)

    def whole(self, fold: Fold[S]) -> S:
        """The state of a fold over the whole log."""
        state: S = self._states[fold.name][WHOLE]
        return state

    def streams(self, fold: Fold[S]) -> Mapping[str, S]:
        """The states of a fold, by stream."""
        return self._states[fold.name]

    def copy(self) -> "Folded":
        """The states as they are now; later steps do not change the copy."""
        twin = Folded(self.folds)
        for name, states in self._states.items():
            twin._states[name].update(states)
        return twin

    def dump(self) -> dict[str, Json]:
        """Every state as JSON data: `{name: {v, state}}`."""
        return {fold.name: {"v": fold.version, "state": self._dump(fold)} for fold in self.folds}

    def load(self, sections: Mapping[str, Json]) -> None:
        """Takes the states that `dump` gave. Raises OtherRelease, or ValueError and KeyError for another shape.

        A section with a `seq` was carried on by programs without that fold, and has not seen what came after that seq.
        """
        for fold in self.folds:
            if fold.name not in sections:
                raise OtherRelease(f"fold {fold.name} is not in the snapshot")
            self._load(fold, sections[fold.name])

    def load_what_fits(self, sections: Mapping[str, Json]) -> list[str]:
        """Takes the states that can be taken, for a log whose beginning is gone: nothing can be folded anew.

        Returns a sentence for each fold that does not know all of the past. Raises Newer.
        """
        told = []
        for fold in self.folds:
            section = dict(sections.get(fold.name, {"v": 0, "state": None}))
            if section["v"] > fold.version:
                what = f"the state of {fold.name} is of version {section['v']}, and this release knows {fold.version}"
                raise Newer(what, hint="start the release that wrote it")
            if "seq" in section:
                told.append(f"what {fold.name} shows leaves out what came after {section.pop('seq')}")
            try:
                self._load(fold, section)
            except ValueError:
                told.append(f"what {fold.name} shows leaves out what the log no longer has")
        return told

    def _load(self, fold: Fold[Any], section: Json) -> None:
        if "seq" in section:
            raise OtherRelease(f"fold {fold.name} was last folded at seq {section['seq']}")
        version, state = section["v"], section["state"]
        while version in fold.lifts and version < fold.version:
            version, state = version + 1, fold.lifts[version](state)
        if version != fold.version:
            raise OtherRelease(f"fold {fold.name} has version {fold.version}, the snapshot {section['v']}")
        self._states[fold.name].update(
            {stream: fold.load(one) for stream, one in state.items()} if fold.per_stream else {WHOLE: fold.load(state)}
        )

    def _dump(self, fold: Fold[Any]) -> Json:
        states = self._states[fold.name]
        return (
            {stream: fold.dump(one) for stream, one in states.items()} if fold.per_stream else fold.dump(states[WHOLE])
        )


def _step(fold: Fold[Any], states: States, record: Record) -> None:
    name = record.stream if fold.per_stream else WHOLE
    if name is not None:
        states[name] = fold.step(states.get(name, fold.initial), record)
