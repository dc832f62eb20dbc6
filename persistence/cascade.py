"""Where a start has its past from: every source is looked at, and the best that is proven is taken.

    this disk ──▶ replayed ┐
    the store ──▶ looked at ┴▶ how they stand to one another ─▶ DECISIONS ─▶ act ─▶ claim ─▶ act on what came between

    here      in the store          what is done                                              who may write
    absent    off, empty, damaged,  git, else the template                                    claimed where it is empty
               headless
              silent                git, else nothing: SourceSilent, it is asked again        nobody claims
              here              git, where it goes on from the store's end (beside.py)        claimed anew
                                else the log is restored from the store                       claimed
    sound     off                   kept                                                      as before
              silent, damaged       kept, degraded: nothing is claimed or overwritten         as before
              empty, headless       kept, all of it goes up                                   claimed
              same, ahead           kept, the rest goes up                                    claimed
              behind                what the store has more is added                          claimed
              after             kept: its snapshot sums up all of the store, and more         claimed anew
              beyond                restored from the store, the old log to quarantine        claimed
              diverged              restored; what was acknowledged here alone: orphans       claimed
              unrelated             the longer history is served; the shorter stays where it is, or in quarantine
    damaged   as above, after the lost records have been fetched from the store as far as it has them

Headless is a log of which every manifest is gone; nothing can be made of it. A source that does not answer is not an
empty one. Heavy things are fetched before the claim, so that a writer that
lives loses nothing by one that cannot start; what it writes until the fence is taken in behind it. Every step can be
interrupted anywhere and is begun anew with the next start. Nothing is ever removed: it goes to quarantine/.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from persistence import orphans, restoration, swap
from persistence.ancestry import Kin, Place
from persistence.beside import Beside
from persistence.blobs import Blobs
from persistence.claim import BEGINNING, Claimed, Start, anew, claim
from persistence.clock import Entropy
from persistence.disk import Disk
from persistence.errors import ArchiveError, Damaged, Headless, Newer, SourceSilent, StoreError
from persistence.fold import Fold
from persistence.layout import NOTHING
from persistence.lock import Lock, hold
from persistence.needs import floor
from persistence.origin import Origin, Source
from persistence.reigns import REIGNS
from persistence.relation import Relation, Stand, digest_at, is_after, relate
from persistence.remote import Tip, look
from persistence.replay import Means, Paths, Replayed, replay
from persistence.replica import OBJECT_BYTES
from persistence.runs import Runs, between
from persistence.scan import segments
from persistence.snapshot import decode, listed
from persistence.splice import heal
from persistence.store import Store
from persistence.streams import STREAMS
from persistence.swap import Restored

ALONE_S = 60.0  #: how long the store is waited for where nothing is here

Local = Literal["absent", "sound"]
Remote = Literal["off", "silent", "damaged", "headless", "empty", "here"] | Relation
Act = Literal["keep", "extend", "restore", "part", "elsewhere", "wait"]
Right = Literal["", "claim", "anew"]


class Choice(NamedTuple):
    """What is done, whether the log is claimed (`anew`: it begins once more in the store), and whether to say so."""

    act: Act
    right: Right
    degraded: bool = False


#: `part` is a restoration after which the old log's own records are orphans; `elsewhere` is git, else the template.
DECISIONS: dict[tuple[Local, Remote], Choice] = {
    ("absent", "off"): Choice("elsewhere", ""),
    ("absent", "silent"): Choice("wait", "", degraded=True),
    ("absent", "damaged"): Choice("elsewhere", "", degraded=True),
    ("absent", "headless"): Choice("elsewhere", "", degraded=True),
    ("absent", "empty"): Choice("elsewhere", "claim"),
    ("absent", "here"): Choice("restore", "claim"),
    ("sound", "off"): Choice("keep", ""),
    ("sound", "silent"): Choice("keep", "", degraded=True),
    ("sound", "damaged"): Choice("keep", "", degraded=True),
    ("sound", "headless"): Choice("keep", "claim"),
    ("sound", "empty"): Choice("keep", "claim"),
    ("sound", "same"): Choice("keep", "claim"),
    ("sound", "ahead"): Choice("keep", "claim"),
    ("sound", "after"): Choice("keep", "anew"),
    ("sound", "behind"): Choice("extend", "claim"),
    ("sound", "beyond"): Choice("restore", "claim"),
    ("sound", "diverged"): Choice("part", "claim"),
}


def decide(local: Local, remote: Remote, *, longer: bool = False, complete: bool = True) -> Choice:
    """The choice. `longer`: the local history has more records. `complete`: a state can be made of the store alone."""
    if remote == "unrelated":
        return Choice("keep", "", degraded=True) if longer else Choice("part", "claim")
    if not complete and (local, remote) in (("absent", "here"), ("sound", "beyond"), ("sound", "diverged")):
        return Choice("elsewhere" if local == "absent" else "keep", "anew")
    return DECISIONS[local, remote]


@dataclass(frozen=True)
class ClaimWith:
    """In whose name the log is claimed. `conditional` False: the store ignores conditions, the prefix is our own."""

    writer: str
    release: str
    entropy: Entropy
    conditional: bool = True


@dataclass(frozen=True)
class Recovered:
    """What a start has its past from. `degraded` says why nothing was claimed though there is a store.

    `orphans` is how many runs of records that only this disk had were sent to the store, for the import.
    """

    origin: Origin
    claimed: Claimed | None = None
    degraded: str = ""
    orphans: int = 0


class FromArchive(Protocol):
    """What was made of it."""

    @property
    def seq(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def problems(self) -> tuple[str, ...]: ...


class Archived(Protocol):
    """The git tier, as far as a start needs it."""

    @property
    def remote(self) -> Any: ...

    def heads(self, limit_s: float) -> frozenset[str]: ...

    def latest(self, limit_s: float = ...) -> Any: ...

    def kin(self, state: Any, theirs: Place) -> Kin: ...

    def restore(self, state: Any, into: Path, means: Means, *, epoch: int) -> FromArchive: ...


@dataclass(frozen=True)
class Sources:
    """Where else than on this disk a past may be, and in whose name it is claimed there; None: not at all.

    The store is waited for `patience_s` where the log is here too, and git where the store answers; else both longer.
    `silence` says why the store did not answer a moment ago; then it is not asked.
    """

    store: Store | None = None
    archive: Archived | None = None
    claim_with: ClaimWith | None = None
    patience_s: float = 0.0
    silence: str = ""


def recover(paths: Paths, folds: tuple[Fold[Any], ...], means: Means, sources: Sources) -> Recovered:
    """Finds the past, brings it to this disk, and claims the right to go on with it. Waits for disk and network.

    The lock is held when this returns, and is free when it raises: Locked, SourceSilent (call it again), Fenced
    (another claimed at the same time), StorageError.
    """
    paths.make(means.disk)
    lock = hold(paths.wal)
    try:
        return _Start(paths, folds, means, sources, lock).recover()
    except BaseException:
        lock.release()
        raise


class _Seen(NamedTuple):
    """What the store answered: its tip if there is one, and else what that means."""

    state: Literal["off", "silent", "damaged", "headless", "empty", "here"]
    tip: Tip | None = None
    why: str = ""


class _Start:
    """One recovery, under the lock."""

    def __init__(self, paths: Paths, folds: tuple[Fold[Any], ...], means: Means, sources: Sources, lock: Lock) -> None:
        self._paths = paths
        self._folds = folds
        self._means = means
        self._disk = means.disk
        self._sources = sources
        self._store = sources.store
        self._lock = lock
        self._begin = means.clock.monotonic()
        self._problems: list[str] = []
        self._discarded: list[tuple[int, int]] = []
        self._bytes = 0
        self._orphans = 0
        self._source: Source | None = None
        self._claimed: Claimed | None = None
        self._reign = 0  # under which a log from git was begun, where it was
        self._beside: Beside | None = None  # git, where the store alone does not tell all
        self._built: int | None = None  # the seq up to which .restoring/ holds the log of the store
        self._replayed: Replayed

    def recover(self) -> Recovered:
        swap.finish(self._disk, self._paths.root)
        answer = _aside(self._look)
        self._replayed = self._replay()
        patience_s = self._sources.patience_s
        if self._local == "absent" and self._store is not None and (archive := self._archive) is not None:
            self._beside = Beside(archive, patience_s)
        seen = answer(patience_s if self._local == "sound" else max(patience_s, ALONE_S))
        while True:
            try:
                return self._settle(seen)
            except StoreError as error:
                seen = _Seen("silent", why=str(error))
            except Damaged as error:
                seen = _Seen("damaged", why=str(error))
            self._claimed = self._built = None

    # ------------------------------------------------------------ looking

    def _look(self) -> _Seen:
        if self._store is None:
            return _Seen("off")
        if self._sources.silence:
            return _Seen("silent", why=self._sources.silence)
        try:
            tip = look(self._store, clock=self._means.clock, hinted=self._sources.claim_with is not None)
            if tip and not tip.complete:  # a writer may have been killed between the manifest that is and its HINT
                tip = look(self._store, clock=self._means.clock)
        except (StoreError, Newer) as error:
            return _Seen("silent", why=str(error))
        except Damaged as error:
            return _Seen("headless" if isinstance(error, Headless) else "damaged", why=str(error))
        return _Seen("here", tip) if tip and tip.seq else _Seen("empty", tip)

    def _replay(self) -> Replayed:
        return replay(self._paths, self._folds, self._means)

    def _stand(self, seen: _Seen) -> tuple[Choice, Stand | None]:
        """What to do about what was seen, after what is lost here was fetched from there."""
        tip, store = seen.tip, self._store
        if seen.state != "here" or tip is None or store is None:
            return decide(self._local, seen.state), None
        if self._replayed.repaired.gaps:
            self._heal(store, tip)
        if self._local == "absent":
            return decide("absent", "here", complete=tip.complete), None
        stand = relate(self._disk, self._paths.wal, self._replayed.head, store, tip)
        longer = self._replayed.head.seq > tip.seq
        if stand.relation == "unrelated" and self._is_after(store, tip):
            stand = Stand("after", tip.seq)
        return decide("sound", stand.relation, longer=longer, complete=tip.complete), stand

    def _is_after(self, store: Store, tip: Tip) -> bool:
        head, folded = self._replayed.head, self._replayed.folded
        mine = Place(self._replayed.epoch, head.seq, head.checksum.hex(), folded.streams(STREAMS).keys())
        return is_after(self._disk, self._paths.wal, mine, folded.whole(REIGNS), store, tip)

    def _heal(self, store: Store, tip: Tip) -> None:
        head = self._replayed.head
        changed, problems = heal(store, tip, self._paths, self._disk, head=head, ms=self._ms)
        self._problems += problems
        if changed:
            self._replayed = self._replay()

    @property
    def _local(self) -> Local:
        return "sound" if self._replayed.head.seq else "absent"

    @property
    def _ms(self) -> int:
        return int(self._means.clock.now() * 1000)

    # ------------------------------------------------------------ acting

    def _settle(self, seen: _Seen) -> Recovered:
        choice, stand = self._stand(seen)
        further = self._further(seen, choice)
        if further is None and choice.act in ("restore", "part") and seen.tip:
            self._build(seen.tip)  # the heavy part, while whoever writes there can still go on
        if choice.act in ("elsewhere", "wait"):
            self._elsewhere(must=choice.act == "wait", why=seen.why)
        if seen.tip:
            self._problems += seen.tip.problems
        newest: Tip | None = None
        degraded = seen.why if choice.degraded else ""
        if choice.degraded and not degraded:
            degraded = f"{self._url} holds another history; this one is not replicated (choose another FINN_STORE_URL)"
        if choice.right and self._sources.claim_with and self._store:
            try:
                claimed = self._claim(self._store, self._sources.claim_with, seen.tip)
                if further and claimed.tip.seq != (seen.tip.seq if seen.tip else 0):
                    further = self._further(seen._replace(tip=claimed.tip), choice)  # another brought more meanwhile
                if further is None and seen.tip and seen.tip.complete and not claimed.tip.complete:
                    newest = claimed.tip  # HINT led to a log that is not the newest
                elif further or choice.right == "anew":
                    start = beginning(self._disk, Paths(self._building) if further else self._paths)
                    claimed = anew(self._store, claimed, start, entropy=self._sources.claim_with.entropy)
                self._claimed = claimed
                seen = seen._replace(tip=claimed.tip)
                self._problems += self._claimed.tip.problems  # a look that trusts the hint sees less
            except StoreError as error:
                if self._local == "absent" and self._built is None and further is None:
                    # Two that begin anew without a claim would be two pasts for ever.
                    raise SourceSilent(f"nothing is here, and {error}", hint="it is asked again") from error
                degraded = str(error)
        if newest is not None:
            self._claimed = self._built = None
            return self._settle(_Seen("here", newest))
        self._problems += self._beside.problems if self._beside else ()
        if further is not None:
            self._from_git(further)
        if seen.tip and seen.tip.seq:
            self._take(seen._replace(state="here"), stand)
        return self._recovered(seen, degraded)

    def _take(self, seen: _Seen, before: Stand | None) -> None:
        """Brings to this disk what the store has, as it is after the claim: nobody writes there any more.

        `before` is how the two logs stood when it was decided to claim.
        """
        choice, stand = self._stand(seen)
        if self._claimed and stand and stand.relation == "unrelated":
            # The store no longer has what both knew then; still it is the log that is claimed, and none goes beside it.
            choice, stand = Choice("part", "claim"), Stand("diverged", before.common if before else 0)
        tip, store = seen.tip, self._store
        assert tip is not None and store is not None
        if choice.act == "extend":
            self._extend(store, tip)
        elif choice.act in ("restore", "part"):
            self._replace(store, tip, stand)

    def _extend(self, store: Store, tip: Tip) -> None:
        into = swap.begin(self._disk, self._paths.root)
        after = self._replayed.head.seq
        built = restoration.extend(store, tip, into, self._disk, after=after, ms=self._ms)
        swap.join(self._disk, self._paths.root, restored=Restored("store", built.seq))
        self._came("store", built.bytes, built.problems)

    def _build(self, tip: Tip) -> None:
        """The store's log in .restoring/, up to a tip that may not be the last."""
        assert self._store is not None
        into = swap.begin(self._disk, self._paths.root)
        built = restoration.restore(self._store, tip, into, self._disk, ms=self._ms)
        self._built = built.seq
        self._bytes += built.bytes
        self._problems += built.problems

    def _replace(self, store: Store, tip: Tip, stand: Stand | None) -> None:
        """The store's log takes the place of the one that is here, whose own records are sent to the store first."""
        if self._built is None:
            self._build(tip)
        assert self._built is not None
        if self._built < tip.seq:
            more = restoration.extend(store, tip, self._building, self._disk, after=self._built, ms=self._ms)
            self._bytes += more.bytes
            self._problems += more.problems
        why = "it ends before all that the store still has; the store's own history was taken"
        if stand and stand.relation in ("diverged", "unrelated"):
            self._part(store, stand.common)
            why = f"it parted from the store's history after record {stand.common}"
        name = f"log-{self._means.ids.new()}"
        restored = Restored("store", max(self._built, tip.seq))
        swap.move_in(self._disk, self._paths.root, restored=restored, name=name, why=why)
        self._built = None
        self._came("store", 0, ())

    def _part(self, store: Store, common: int) -> None:
        """Sends to the store what only this log has, for the import; it stays in quarantine as well."""
        head, chain = self._replayed.head, self._replayed.head.checksum.hex()
        log = Runs(self._disk, self._paths.wal, lambda: head.seq)
        begins = min(segments(self._disk, self._paths.wal), default=1)  # behind a snapshot that sums up what was before
        common = max(common, begins - 1)
        runs = list(between(log.after, common, head.seq, OBJECT_BYTES))
        blobs = Blobs(self._disk, self._paths.blobs)
        self._orphans += orphans.keep(
            store, self._disk, self._paths.quarantine, self._replayed.epoch, chain[:32], runs, blobs.get
        )
        self._discarded.append((common + 1, head.seq))

    def _elsewhere(self, *, must: bool, why: str) -> None:
        """Git, if it has a state; else the template, unless a source that may have more has not answered."""
        silent = why if must else ""
        made = None
        try:
            made = self._from_archive()
        except (ArchiveError, Newer) as error:
            if isinstance(error, Newer) or (self._sources.archive and self._sources.archive.remote is not None):
                silent = silent or str(error)
            self._problems.append(str(error))
        except Damaged as error:
            self._problems.append(str(error))
        if made is not None:
            self._from_git(made)
        elif silent:
            raise SourceSilent(f"nothing is here, and {silent}", hint="it is asked again; see that it can be reached")

    def _from_archive(self) -> FromArchive | None:
        """What git has, in .restoring/; None where it is proven to have nothing. Raises ArchiveError, Damaged."""
        if self._archive is None:
            return None
        if self._beside is not None:
            self._beside.wait()
        state = self._archive.latest()
        return self._unpacked(self._archive, state, 0) if state is not None else None

    def _further(self, seen: _Seen, choice: Choice) -> FromArchive | None:
        """What git has in .restoring/, where it goes on from the end of the store's log. Raises StoreError."""
        beside, archive, store, tip = self._beside, self._archive, self._store, seen.tip
        if beside is None or archive is None or store is None or tip is None or choice != DECISIONS["absent", "here"]:
            return None
        state = beside.further(store, tip)
        try:
            return self._unpacked(archive, state, tip.epoch) if state is not None else None
        except (ArchiveError, Damaged) as error:
            beside.problems = [f"git goes further than the store, and cannot be used: {error}"]
            return None

    def _unpacked(self, archive: Archived, state: Any, epoch: int) -> FromArchive:
        """A state of git in .restoring/, under a reign after its own and after `epoch`."""
        self._reign = max(state.epoch, epoch) + 1
        into = swap.begin(self._disk, self._paths.root)
        return archive.restore(state, into, self._means, epoch=self._reign)

    def _from_git(self, made: FromArchive) -> None:
        """What was unpacked takes the place of the log."""
        name = f"log-{self._means.ids.new()}"
        restored = Restored("git", made.seq)
        swap.move_in(self._disk, self._paths.root, restored=restored, name=name, why="the archive's was taken")
        self._came("git", made.bytes, made.problems)

    @property
    def _archive(self) -> Archived | None:
        """Git, where it may have something."""
        archive = self._sources.archive
        there = archive is not None and (archive.remote is not None or self._disk.names(self._paths.root / "git"))
        return archive if there else None

    @property
    def _building(self) -> Path:
        return self._paths.root / swap.RESTORING

    def _came(self, source: Source, size: int, problems: tuple[str, ...]) -> None:
        self._source = source
        self._bytes += size
        self._problems += problems
        self._replayed = self._replay()

    # ------------------------------------------------------------ claiming

    def _claim(self, store: Store, who: ClaimWith, tip: Tip | None) -> Claimed:
        return claim(
            store,
            tip,
            writer=who.writer,
            release=who.release,
            entropy=who.entropy,
            clock=self._means.clock,
            floor=max(self._replayed.epoch if self._replayed.head.seq else 0, self._reign),
            start=beginning(self._disk, self._paths),
            conditional=who.conditional,
        )

    # ------------------------------------------------------------ the answer

    def _recovered(self, seen: _Seen, degraded: str) -> Recovered:
        before = swap.restored(self._disk, self._paths.root)
        source = self._source or ("local" if self._replayed.head.seq else "template")
        if source == "local" and before and before.source in ("store", "git"):
            source = "store" if before.source == "store" else "git"  # its files are not written yet
        ms = round((self._means.clock.monotonic() - self._begin) * 1000)
        origin = Origin(
            source=source,
            epoch=self._epoch(seen),
            lock=self._lock,
            problems=tuple(dict.fromkeys(self._problems)),
            ms=ms,
            bytes=self._bytes,
            discarded=tuple(self._discarded),
            replayed=self._replayed,
        )
        return Recovered(origin, self._claimed, degraded if not self._claimed else "", self._orphans)

    def _epoch(self, seen: _Seen) -> int:
        """The epoch of the records to come: the claimed one; without a claim a new one where the source is not here."""
        if self._claimed:
            return self._claimed.epoch
        if self._source is None:
            return self._replayed.epoch
        if self._reign:
            return max(self._replayed.epoch, self._reign)
        return max(self._replayed.epoch, seen.tip.epoch if seen.tip else 0) + 1

    @property
    def _url(self) -> str:
        return self._store.url if self._store else ""


def beginning(disk: Disk, paths: Paths) -> Start:
    """Where the upload of a log begins in a store that has nothing of it: at the newest snapshot's floor.

    Raises StorageError.
    """
    for path in listed(paths.snapshots):
        try:
            low = floor(decode(path.read_bytes(), path.name))
        except (Damaged, OSError):
            continue  # whoever replays the log tells it
        chain = digest_at(disk, paths.wal, low - 1) if low > 1 else NOTHING
        if chain is not None:
            return Start(low - 1, chain)
    first = min(segments(disk, paths.wal), default=1)
    return Start(first - 1, digest_at(disk, paths.wal, first - 1) or NOTHING) if first > 1 else BEGINNING


def _aside(call: Callable[[], _Seen]) -> Callable[[float], _Seen]:
    """Makes the call in a thread of its own. What is returned waits for its answer, so long and no longer."""
    answers: queue.SimpleQueue[_Seen | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(call())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
            answers.put(error)

    threading.Thread(target=run, name="store-look", daemon=True).start()

    def wait(patience_s: float) -> _Seen:
        try:
            answer = answers.get(timeout=patience_s)
        except queue.Empty:
            return _Seen("silent", why=f"the store gives no answer within {patience_s:g} s")
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return wait
