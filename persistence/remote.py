"""What the store holds, as one look finds it: the newest manifest, and the log's objects after it.

    HINT ─▶ manifest m ─▶ m+1, m+2 … until there is none ─▶ log/log_from … until there is none, eight at a time
     └ missing, wrong, or of a manifest that is gone: the listing says m, and manifest 1 whether there ever was one

A look changes nothing. Numbers are probed one after the other, because a listing may be late and HINT is advice; what
a look finds is therefore never newer than the truth, and everybody who builds on it does so by create-if-absent at the
next number. What is damaged is read twice, then told in `problems` and stepped over: the records that follow are known
to follow by the log's own digests.

    manifest m+1 damaged      the one before counts; the log's objects after it lead to the same end
    log object damaged        its records are missing from the store, their seqs are in the sentence
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import count
from typing import TypeVar

from persistence.clock import Clock
from persistence.errors import Damaged, Headless, NotFound, StoreUnreachable
from persistence.layout import (
    COLLECTED,
    HINT,
    PROVE,
    LogObject,
    Manifest,
    decode_hint,
    decode_manifest,
    decode_object,
    log_key,
    manifest_key,
    number,
)
from persistence.store import Store

T = TypeVar("T")

AHEAD = 8  #: log objects that are asked for at once
FRESH_S = 3600.0  #: how long a look may be built on; what it saw as missing is collected after 24 h at the earliest


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of the replica. A value: looking again gives another.

    `n` is the number of the last log object (0: none), `previous` its hash; `seq` and `chain` are the log's end there.
    `m` is the highest number of a manifest, above `manifest.m` only where the newest is damaged. `epoch` is the highest
    that was seen, `hinted` the manifest that HINT named, `at` the boot time when the look began.
    """

    manifest: Manifest
    m: int
    tail: tuple[LogObject, ...]
    n: int
    previous: str
    epoch: int
    seq: int
    chain: str
    problems: tuple[str, ...]
    hinted: int
    at: float

    @property
    def complete(self) -> bool:
        """Whether a state can be made of what is there."""
        return self.manifest.complete


def look(
    store: Store, known: Tip | None = None, *, clock: Clock, hinted: bool = False, threads: int = AHEAD
) -> Tip | None:
    """The end of the replica, or None where the store is proven to have none.

    `known` is what an earlier look found: then only what came after it is read. `hinted` takes HINT's word for the
    newest manifest, for a caller who is about to create the next one and so will be told. Raises StoreError, Newer, and
    Damaged where there is something of which nothing can be used.
    """
    at = clock.boottime()
    if known and at - known.at > FRESH_S:  # the numbers after it may be gone already
        known = None
    if known:
        return follow(store, _onward(store, replace(known, at=at)), threads)
    m, n = _hint(store)
    begin = (_read(store, m) if m else None) or _listed(store)
    if begin is None:
        return None
    found = _tip(begin, m if m == begin.manifest.m else 0, at)
    if not hinted or not found.hinted:
        found = _onward(store, found)
    return follow(store, found, threads, n - found.n + 1)


def follow(store: Store, tip: Tip, threads: int = AHEAD, first: int = 1) -> Tip:
    """The tip with the log objects that came after it. `first` is how many are asked for to begin with."""
    walk = _Walk(tip)
    ahead = max(1, min(first, AHEAD))
    while True:
        found = together([partial(_object, store, n) for n in range(walk.n + 1, walk.n + 1 + ahead)], threads)
        while found and found[-1] is None:
            found.pop()
        for one in found:
            walk.step(one or _object(store, walk.n + 1))  # it may have come while the one behind it was read
        if len(found) < ahead:
            return walk.tip()
        ahead = AHEAD


def together(calls: Sequence[Callable[[], T]], threads: int = AHEAD) -> list[T]:
    """What the calls return, in their order, at most so many at a time. Raises the first error in that order.

    The threads are daemons: a call that hangs must not hold up the end of the process.
    """
    if min(threads, len(calls)) <= 1:
        return [call() for call in calls]
    results: list[tuple[T | None, BaseException | None]] = [(None, None)] * len(calls)
    numbers = iter(range(len(calls)))  # next() of a range's iterator is one step under the interpreter's lock

    def run() -> None:
        for index in numbers:
            try:
                results[index] = (calls[index](), None)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                results[index] = (None, error)

    crew = [threading.Thread(target=run, name="store-get", daemon=True) for _ in range(min(threads, len(calls)))]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    for _, error in results:
        if error is not None:
            raise error
    return [result for result, _ in results]  # type: ignore[misc]  # those without an error are of T


# ---------------------------------------------------------------- manifests


@dataclass(frozen=True, slots=True)
class _Begin:
    """The manifest that a look begins with, the highest number known, and what was wrong above it."""

    manifest: Manifest
    m: int
    problems: tuple[str, ...] = ()


def _hint(store: Store) -> tuple[int, int]:
    try:
        return decode_hint(store.get(HINT))
    except NotFound:
        return 0, 0


def _read(store: Store, m: int) -> _Begin | None:
    """Manifest m to begin with, if it is there and sound."""
    manifest = _manifest(store, m)
    return _Begin(manifest, m) if isinstance(manifest, Manifest) else None


def _listed(store: Store) -> _Begin | None:
    """The newest sound manifest of the listing, or None where there never was one."""
    numbers = [m for one in store.list("manifest/") if (m := number(one.key, "manifest")) is not None]
    problems: list[str] = []
    for m in reversed(numbers):
        manifest = _manifest(store, m)
        if isinstance(manifest, Manifest):
            return _Begin(manifest, numbers[-1], tuple(problems))
        problems.append(manifest or f"{manifest_key(m)} is listed but cannot be read")
    if problems:
        raise Damaged(f"no manifest in {store.url} can be used: {problems[0]}", hint=PROVE)
    return _first(store)


def _first(store: Store) -> _Begin | None:
    """Manifest 1, which no listing is trusted about: its name is never free again once it was used."""
    log = any(True for _ in store.list("log/"))  # before the manifest is read, which is written before any log
    manifest = _manifest(store, 1)
    if isinstance(manifest, Manifest):
        return _Begin(manifest, 1)
    if manifest is not None:
        raise StoreUnreachable(f"the listing of {store.url} does not show what is there", hint="it is asked again")
    if log:
        raise Headless(f"{store.url} holds a log, but no manifest", hint=PROVE)
    return None


def _manifest(store: Store, m: int) -> Manifest | str | None:
    """Manifest m, a sentence about why it cannot be used, or None where there is none."""
    try:
        data = store.get(manifest_key(m))
        if data == COLLECTED:
            return f"{manifest_key(m)} was collected"
        manifest = _twice(partial(decode_manifest, key=manifest_key(m)), data, partial(store.get, manifest_key(m)))
    except NotFound:
        return None
    except Damaged as error:
        return error.message
    return manifest if manifest.m == m else f"{manifest_key(m)} is manifest {manifest.m}"


def _twice(decode: Callable[[bytes], T], data: bytes, again: Callable[[], bytes]) -> T:
    """What the bytes mean; those that mean nothing are fetched once more, for they may have been damaged on the way."""
    try:
        return decode(data)
    except Damaged:
        return decode(again())


def _tip(begin: _Begin, hinted: int, at: float) -> Tip:
    """A tip that has seen no log object yet."""
    one = begin.manifest
    n = one.log_from - 1
    return Tip(one, begin.m, (), n, one.log_previous, one.epoch, one.log_seq, one.log_chain, begin.problems, hinted, at)


def _onward(store: Store, tip: Tip) -> Tip:
    """The tip with the newest manifest, probed for one number after the other."""
    for m in count(tip.m + 1):
        manifest = _manifest(store, m)
        if manifest is None:
            return tip
        if isinstance(manifest, Manifest) and manifest.epoch < tip.manifest.epoch:
            manifest = f"{manifest_key(m)} is of epoch {manifest.epoch}, though {tip.manifest.epoch} had begun"
        if isinstance(manifest, str):
            tip = replace(tip, m=m, problems=(*tip.problems, manifest))
        else:
            tip = _advanced(tip, manifest)
    raise AssertionError("unreachable")


def _advanced(tip: Tip, manifest: Manifest) -> Tip:
    """The tip under a newer manifest: the same log, of which the tail may begin later."""
    problems = tip.problems
    if tip.m == tip.manifest.m and manifest.previous != tip.manifest.self_sha256:
        problems = (*problems, f"{manifest_key(manifest.m)} does not follow the manifest before it")
    epoch = max(tip.epoch, manifest.epoch)
    tail = tuple(one for one in tip.tail if one.header.n >= manifest.log_from)
    begins = tail and (tail[0].header.first - 1, tail[0].header.chain_in) == (manifest.log_seq, manifest.log_chain)
    if begins and len(tail) == tip.n - manifest.log_from + 1:
        return replace(tip, manifest=manifest, m=manifest.m, tail=tail, epoch=epoch, problems=problems)
    fresh = _tip(_Begin(manifest, manifest.m, problems), tip.hinted, tip.at)
    return replace(fresh, epoch=epoch)


# ---------------------------------------------------------------- log objects


@dataclass(frozen=True, slots=True)
class _Found:
    """A log object as it was read: what it is, or why it cannot be used."""

    one: LogObject | None
    sha256: str
    problem: str = ""


def _object(store: Store, n: int) -> _Found | None:
    """Log object n, or None where there is none."""
    key = log_key(n)
    try:
        data = store.get(key)
        one = _twice(partial(decode_object, key=key), data, partial(store.get, key))
    except NotFound:
        return None
    except Damaged as error:
        return _Found(None, sha256(data).hexdigest(), error.message)
    if one.header.n != n:
        return _Found(None, one.sha256, f"{key} is log object {one.header.n}")
    return _Found(one, one.sha256)


class _Walk:
    """A walk along the log objects, one number after the other."""

    def __init__(self, start: Tip) -> None:
        self.n = start.n
        self._start = start
        self._previous = start.previous
        self._seq, self._chain = start.seq, start.chain
        self._tail, self._problems = list(start.tail), list(start.problems)
        self._reign = max((one.header.epoch for one in start.tail), default=0)

    def step(self, found: _Found | None) -> None:
        """Takes the object after `n`: its records if they follow, a sentence if not."""
        self.n += 1
        if found is None:
            self._problems.append(f"{log_key(self.n)} is missing, though later ones are there")
            return
        problem = found.problem or self._stray(found.one)
        if problem:
            self._problems.append(problem)
        elif found.one:
            self._take(found.one)
        if found.one:
            self._reign = max(self._reign, found.one.header.epoch)
        self._previous = found.sha256

    def _stray(self, one: LogObject | None) -> str:
        """Why the records of an object cannot stand after those before it; empty where they can."""
        if one is None:
            return ""
        header = one.header
        if header.epoch < self._reign:
            return f"{log_key(self.n)} is of epoch {header.epoch}, though {self._reign} had begun"
        if header.first <= self._seq or (header.first == self._seq + 1 and header.chain_in != self._chain):
            return f"{log_key(self.n)}: its records {header.first}-{header.last} do not follow record {self._seq}"
        return ""

    def _take(self, one: LogObject) -> None:
        header = one.header
        if header.first > self._seq + 1 and header.chain_in != self._chain:
            self._problems.append(f"records {self._seq + 1}-{header.first - 1} are missing before {log_key(self.n)}")
        elif header.previous != self._previous:
            self._problems.append(f"{log_key(self.n)} does not follow the object before it")
        self._tail.append(one)
        self._seq, self._chain = header.last, header.chain_out

    def tip(self) -> Tip:
        return replace(
            self._start,
            n=self.n,
            previous=self._previous,
            epoch=max(self._start.epoch, self._reign),
            seq=self._seq,
            chain=self._chain,
            tail=tuple(self._tail),
            problems=tuple(dict.fromkeys(self._problems)),
        )
