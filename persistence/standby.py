"""What a fenced process does: it watches the one that writes, and takes over when that one has gone.

    watching ── knock ──▶ asking ── a sign of life ──▶ watching (and asks again after a minute)
       │                    └────── none in five minutes of looking ──▶ takes over
       └── the newest manifest is released ──▶ takes over

A sign of life is anything that the writer wrote after the knock: its answer, a record, a manifest. Only time in which
the standby looked and the store answered counts; one that slept, or could not reach the store, has seen no silence.
Taking over too early would not be wrong, for the claim decides who writes, only rude: two that are started by
supervisors would take the agent from one another for ever.

    fenced.json {release, epoch, writer}    in the data directory: who starts again with the same release is a standby
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from persistence.clock import Clock, Entropy
from persistence.disk import Disk, read, refused
from persistence.disk import replace as write
from persistence.layout import KNOCK, encode_knock
from persistence.remote import Tip, look
from persistence.store import Store

PATIENCE_S = 300.0  #: of silence after a knock
ASK_S = 60.0  #: between a sign of life and the next knock
LOOK_S = 0.5  #: between two looks: a successor is to be there within a second
STRIDE_S = 5.0  #: the most that counts between two looks: longer, and the standby was not looking
MARK = "fenced.json"
NONCE_BYTES = 16

Verdict = Literal["wait", "knock", "take"]


# ---------------------------------------------------------------- the decision


@dataclass(frozen=True)
class Standing:
    """What a standby has seen so far. `waited` is since the last sign of life or knock, in seconds of looking."""

    tip: Tip | None = None
    knocked: bool = False
    waited: float = ASK_S  #: so that the first look is followed by a knock
    looked_at: float | None = None

    def seen(self, tip: Tip | None, now: float) -> "Standing":
        """After a look at boot time `now` that the store answered."""
        if self.looked_at is None:
            return replace(self, tip=tip, looked_at=now)
        if _mark(tip) != _mark(self.tip):
            return Standing(tip, knocked=False, waited=0.0, looked_at=now)
        since = min(now - self.looked_at, STRIDE_S)
        return replace(self, tip=tip, waited=self.waited + since, looked_at=now)

    def asked(self) -> "Standing":
        """After a knock."""
        return replace(self, knocked=True, waited=0.0)

    @property
    def verdict(self) -> Verdict:
        """What to do now. A store without a log, or whose writer has released it, is anybody's."""
        if self.looked_at is None:
            return "wait"
        if self.tip is None or self.tip.manifest.released:
            return "take"
        if self.knocked:
            return "take" if self.waited >= PATIENCE_S else "wait"
        return "knock" if self.waited >= ASK_S else "wait"

    @property
    def may_act(self) -> bool:
        """Whether to take over now."""
        return self.verdict == "take"


def _mark(tip: Tip | None) -> tuple[int, int]:
    """What moves whenever the writer does anything."""
    return (tip.m, tip.n) if tip else (0, 0)


# ---------------------------------------------------------------- the steps


def step(store: Store, standing: Standing, *, clock: Clock, entropy: Entropy) -> Standing:
    """One look, and a knock where it is time for one. Called each second, until it `may_act`.

    Raises StoreError: nothing was seen, the standing is as before.
    """
    # From the last tip on: two requests. After an hour in which nobody looked, look begins anew by itself.
    tip = look(store, standing.tip, clock=clock, threads=1)
    standing = standing.seen(_light(tip), clock.boottime())
    if standing.verdict == "knock":
        store.put(KNOCK, encode_knock(entropy(NONCE_BYTES).hex()))
        standing = standing.asked()
    return standing


def _light(tip: Tip | None) -> Tip | None:
    """The tip without the frames: a standby stands for days."""
    return replace(tip, tail=tuple(replace(one, body=b"") for one in tip.tail[-1:])) if tip else None


# ---------------------------------------------------------------- the mark


@dataclass(frozen=True)
class Mark:
    """Who was fenced here: the release that ran, and the reign that ended."""

    release: str
    epoch: int
    writer: str


def marked(disk: Disk, root: Path) -> Mark | None:
    """The mark in a data directory; None where there is none, or none that can be read. Raises StorageError."""
    try:
        body = json.loads(read(disk, root / MARK))
        return Mark(str(body["release"]), int(body["epoch"]), str(body["writer"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(error, root / MARK) from error
    except (ValueError, KeyError, TypeError):
        return None  # it is advice: without it the start claims, as any other does


def mark(disk: Disk, root: Path, mark: Mark) -> None:
    """Notes that this process was fenced. Raises StorageError."""
    body = {"release": mark.release, "epoch": mark.epoch, "writer": mark.writer}
    write(disk, root / MARK, json.dumps(body).encode() + b"\n")


def unmark(disk: Disk, root: Path) -> None:
    """After a claim: the next start is one like any other. Raises StorageError."""
    try:
        disk.unlink(root / MARK)
        disk.sync_folder(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise refused(error, root / MARK) from error


def stands_by(mark: Mark | None, release: str) -> bool:
    """Whether a start with that mark waits: a supervisor started again what had been fenced. A new release claims."""
    return mark is not None and mark.release == release
