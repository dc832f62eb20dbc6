"""A fold: the only way state changes.

    state, record ─ step ─▶ state        pure, total, frozen: the same log gives the same state, byte for byte

A fold holds one value for the whole log, or one for each stream. It names the record types it looks at, so that the
others cost it nothing. `version` goes up when the shape of its state changes; a snapshot of another version is folded
anew from the log.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from persistence.events import Event, Json, Record, Unknown

S = TypeVar("S")


@dataclass(frozen=True)
class Fold(Generic[S]):
    """A named step over records. `shape` is the type of the state: a frozen dataclass that pydantic can read back."""

    name: str
    version: int
    shape: type[S]
    initial: S
    step: Callable[[S, Record], S]
    per_stream: bool
    events: tuple[type[Event], ...]

    @cached_property
    def _adapter(self) -> TypeAdapter[S]:
        return TypeAdapter(self.shape)

    def dump(self, state: S) -> Json:
        """The state as JSON data."""
        return self._adapter.dump_python(state, mode="json")

    def load(self, data: Json) -> S:
        """The state that `dump` gave. Raises ValidationError."""
        return self._adapter.validate_python(data)


class Folded:
    """The present state of every fold. Changed by `step` alone; reads give frozen values."""

    def __init__(self, folds: Iterable[Fold[Any]]) -> None:
        self.folds = tuple(folds)
        self._whole: dict[str, Any] = {fold.name: fold.initial for fold in self.folds if not fold.per_stream}
        self._streams: dict[str, dict[str, Any]] = {fold.name: {} for fold in self.folds if fold.per_stream}
        self._by_type: dict[str, tuple[Fold[Any], ...]] = {}
        for fold in self.folds:
            for event in fold.events:
                self._by_type[event.kind] = (*self._by_type.get(event.kind, ()), fold)

    def step(self, record: Record) -> None:
        """Folds one record into every state that looks at its type."""
        for fold in self._by_type.get(record.event.kind, ()):
            self._step(fold, record)

    def catch_up(self, record: Record) -> None:
        """Folds a record that was Unknown when it came, into the states that did not see it then."""
        for fold in self._by_type.get(record.event.kind, ()):
            if Unknown not in fold.events:
                self._step(fold, record)

    def _step(self, fold: Fold[Any], record: Record) -> None:
        if not fold.per_stream:
            self._whole[fold.name] = fold.step(self._whole[fold.name], record)
        elif record.stream is not None:
            states = self._streams[fold.name]
            states[record.stream] = fold.step(states.get(record.stream, fold.initial), record)

    def whole(self, fold: Fold[S]) -> S:
        """The state of a fold over the whole log."""
        state: S = self._whole[fold.name]
        return state

    def streams(self, fold: Fold[S]) -> Mapping[str, S]:
        """The states of a fold, by stream."""
        return self._streams[fold.name]

    def copy(self) -> "Folded":
        """The states as they are now; later steps do not change the copy."""
        twin = Folded(self.folds)
        twin._whole = dict(self._whole)
        twin._streams = {name: dict(states) for name, states in self._streams.items()}
        return twin

    def dump(self) -> dict[str, Json]:
        """Every state as JSON data: `{name: {v, state}}`."""
        return {fold.name: {"v": fold.version, "state": self._dump(fold)} for fold in self.folds}

    def load(self, sections: Mapping[str, Json]) -> None:
        """Takes the states that `dump` gave. Raises KeyError, or ValueError for another version or shape.

        A section with a `seq` was carried on by programs without that fold, and has not seen what came after that seq.
        """
        for fold in self.folds:
            state, version = sections[fold.name]["state"], sections[fold.name]["v"]
            if "seq" in sections[fold.name]:
                raise ValueError(f"fold {fold.name} was last folded at seq {sections[fold.name]['seq']}")
            if version != fold.version:
                raise ValueError(f"fold {fold.name} has version {fold.version}, the snapshot {version}")
            if fold.per_stream:
                self._streams[fold.name] = {stream: fold.load(one) for stream, one in state.items()}
            else:
                self._whole[fold.name] = fold.load(state)

    def _dump(self, fold: Fold[Any]) -> Json:
        if not fold.per_stream:
            return fold.dump(self._whole[fold.name])
        return {stream: fold.dump(state) for stream, state in self._streams[fold.name].items()}
