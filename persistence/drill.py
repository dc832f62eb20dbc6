"""A restoration for the sake of seeing that it works.

    store    an older snapshot and the log up to S ─▶ folded ┐
    git      the newest commit, of seq S                     ┴▶ state_sha ═ that of the snapshot at S which is here

Into an empty folder, never into the data directory; nothing is claimed and nothing is changed anywhere. Where the
store still has a snapshot before S the state is folded anew from there, so the drill proves the log as well.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from persistence import restoration, snapshot
from persistence.blobs import Kind
from persistence.cascade import Archived
from persistence.clock import Clock
from persistence.errors import Damaged, NotFound
from persistence.fold import Fold
from persistence.remote import Tip, look
from persistence.replay import Fetch, Means, Paths, Replayed, replay
from persistence.shelf import verified_body
from persistence.store import Store


@dataclass(frozen=True)
class Drilled:
    """What a drill came to. `why` says what is not as it should be; empty where `ok`."""

    source: Literal["store", "git"]
    ok: bool
    seq: int
    state_sha: str
    ms: int
    bytes: int
    why: str = ""


def drill_store(store: Store, live: Paths, folds: tuple[Fold[Any], ...], means: Means, into: Path) -> Drilled:
    """Restores from the store into the empty folder `into`, up to a snapshot that is here.

    Raises StoreError where it gives no answer, NotFound where there is nothing to compare yet, StorageError.
    """
    begin = means.clock.monotonic()
    tip = look(store, clock=means.clock)
    if tip is None:
        return Drilled("store", False, 0, "", _ms(means.clock, begin), 0, f"{store.url} holds nothing")
    expected = {seq: sha for seq, sha in _live(live) if seq <= tip.seq}
    if not expected and tip.problems:  # what is wrong with its end may be why
        return Drilled("store", False, tip.seq, "", _ms(means.clock, begin), 0, "; ".join(tip.problems))
    if not expected:
        raise NotFound("there is no snapshot here whose records are in the store yet", hint="try again later")
    seq = max(expected)
    try:
        built = _earlier(store, tip, into, means, seq)
        folded = replay(Paths(into), folds, replace(means, fetch=fetching(store)))
    except Damaged as problem:
        return Drilled("store", False, seq, "", _ms(means.clock, begin), 0, problem.message)
    sha = _state_sha(folded)
    why = "; ".join((*tip.problems, *built.problems, *folded.problems))
    if (folded.head.seq, sha) != (seq, expected[seq]):
        why = f"the state at record {seq} is another one than here" + (f": {why}" if why else "")
    return Drilled("store", not why, seq, sha, _ms(means.clock, begin), built.bytes, why)


def drill_archive(archive: Archived, live: Paths, means: Means, into: Path) -> Drilled:
    """Restores from git into the empty folder `into`. Raises ArchiveError, StorageError, NotFound as above."""
    begin = means.clock.monotonic()
    state = archive.latest()
    if state is None:
        raise NotFound("there is no commit in the archive yet", hint="try again later")
    try:
        built = archive.restore(state, into, means, epoch=state.epoch + 1)
        taken = snapshot.listed(Paths(into).snapshots)[0]
        sha = snapshot.state_sha(snapshot.decode(taken.read_bytes(), taken.name).folds)
    except Damaged as problem:
        return Drilled("git", False, state.seq, "", _ms(means.clock, begin), 0, problem.message)
    why = "; ".join(built.problems)
    if sha != dict(_live(live)).get(state.seq, state.state_sha) or sha != state.state_sha:
        why = f"the state at record {state.seq} is another one than here" + (f": {why}" if why else "")
    return Drilled("git", not why, state.seq, sha, _ms(means.clock, begin), built.bytes, why)


def fetching(store: Store) -> Fetch:
    """Chunks and blobs from the store, for whoever reads a body that is not here."""

    def fetch(kind: Kind, sha: str) -> bytes:
        return verified_body(store, kind, sha)

    return fetch


def _earlier(store: Store, tip: Tip, into: Path, means: Means, seq: int) -> restoration.Built:
    """The log up to `seq`, from a snapshot before that if one is kept."""
    ms = int(means.clock.now() * 1000)
    try:
        return restoration.restore(store, tip, into, means.disk, ms=ms, at=seq, before=seq)
    except (NotFound, Damaged):
        return restoration.restore(store, tip, into, means.disk, ms=ms, at=seq)


def _live(live: Paths) -> list[tuple[int, str]]:
    """The seqs and state hashes of the snapshots that are here."""
    states = []
    for path in snapshot.listed(live.snapshots):
        try:
            taken = snapshot.decode(path.read_bytes(), path.name)
        except (Damaged, OSError):
            continue  # a start tells it
        states.append((taken.seq, snapshot.state_sha(taken.folds)))
    return states


def _state_sha(replayed: Replayed) -> str:
    return snapshot.state_sha({**replayed.foreign, **replayed.folded.dump()})


def _ms(clock: Clock, begin: float) -> int:
    return round((clock.monotonic() - begin) * 1000)
