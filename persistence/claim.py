"""Taking the log over: whoever claims last is its writer, and everybody before finds out at the next create.

    1  manifest m+1 with epoch e+1, created     taken by another: look again, claim the number after
    2  log/n+1 created, empty, epoch e+1        taken by a lower epoch: it is part of the past, the next number then
       └ the fence: nobody of a lower epoch creates anything after it                by a higher: this one is fenced

Nobody waits for anybody: there are no leases and no wall clocks. A create whose answer was lost is asked for once more
with the same bytes; what lies there then says whose it is. A claim that ends in StoreError holds nothing: what it may
have written is an epoch without records, and the next claim goes above it.
"""

from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from persistence.clock import Clock, Entropy
from persistence.errors import Exists, Fenced, NotFound, StoreError, StoreUnreachable
from persistence.layout import (
    HINT,
    NOTHING,
    Header,
    LogObject,
    Manifest,
    bytes_of,
    encode_hint,
    encode_manifest,
    encode_object,
    log_key,
    manifest_key,
)
from persistence.remote import AHEAD, FRESH_S, Tip, follow, look
from persistence.store import Store

ATTEMPTS = 100  #: claims that may come in between before this one gives up
HINT_BEHIND = 4  #: manifests after which HINT is worth a request outside of compaction
NONCE_BYTES = 16


class Start(NamedTuple):
    """Where a log begins in a store that has none: the seq before its first record, and the log's digest there."""

    seq: int = 0
    chain: str = NOTHING


BEGINNING = Start()


class Claimed(NamedTuple):
    """The right to write, until somebody claims after. `tip` is the whole past, its tail ends with the own fence."""

    manifest: Manifest
    tip: Tip
    epoch: int
    writer: str

    @property
    def n(self) -> int:
        """The number of the last log object."""
        return self.tip.n

    @property
    def previous(self) -> str:
        """Its hash."""
        return self.tip.previous


def claim(
    store: Store,
    tip: Tip | None,
    *,
    writer: str,
    release: str,
    entropy: Entropy,
    clock: Clock,
    floor: int = 0,
    start: Start = BEGINNING,
    conditional: bool = True,
    threads: int = AHEAD,
) -> Claimed:
    """Takes the next epoch after what a look found and after `floor`, the highest that is known from elsewhere.

    `start` counts only where this claim itself is the first one ever. Raises StoreError, Fenced where another claimed
    meanwhile, and what look raises.
    """
    looked = clock.boottime() if tip is None else tip.at
    for _ in range(ATTEMPTS):
        manifest, data = encode_manifest(_next(tip, writer, release, nonce(entropy), floor, start, conditional))
        mine = settle(store, manifest_key(manifest.m), data) == data
        claimed = _fence(store, _under(manifest, tip, looked), nonce(entropy), threads) if mine else None
        if claimed and clock.boottime() - looked <= FRESH_S:
            return _hinted(store, claimed)
        # Another was first; or the look is so old that these numbers were collected, and creating them proves nothing.
        tip = look(store, None if mine else tip, clock=clock, threads=threads)
        if tip is None:
            raise StoreUnreachable(f"{store.url} has a manifest and shows none", hint="it is asked again")
        looked = tip.at
    raise Fenced("others claim this log again and again", hint="let one instance run")


def anew(store: Store, claimed: Claimed, start: Start, *, entropy: Entropy) -> Claimed:
    """The claim over a log that begins once more, after `start`: what was there cannot be used, or led elsewhere.

    Nothing is deleted. Until a snapshot is up the replica is not complete. Raises StoreError, Fenced.
    """
    old = claimed.manifest
    manifest, data = encode_manifest(
        replace(
            old,
            m=old.m + 1,
            previous=old.self_sha256,
            nonce=nonce(entropy),
            snap=None,
            segs=(),
            log_from=claimed.n + 1,
            log_previous=claimed.previous,
            log_seq=start.seq,
            log_chain=start.chain,
        )
    )
    if settle(store, manifest_key(manifest.m), data) != data:
        raise overtaken(manifest_key(manifest.m))
    tip = replace(claimed.tip, manifest=manifest, m=manifest.m, tail=(), seq=start.seq, chain=start.chain)
    return claimed._replace(manifest=manifest, tip=tip)


def settle(store: Store, key: str, data: bytes) -> bytes:
    """The bytes under `key` when this returns: these, or those of whoever created it first.

    An answer that was lost is asked for once more, with the same bytes. Raises StoreError: these may come to lie there
    yet, so nothing else may ever be written under that name by the same caller.
    """
    for again in (True, False):
        try:
            store.create(key, data)
        except Exists:
            return _there(store, key)
        except StoreUnreachable:
            if not again:
                raise
        else:
            return data
    raise AssertionError("unreachable")


def overtaken(key: str) -> Fenced:
    """What a writer is told whose next number another has written."""
    return Fenced(f"another instance has taken over this agent: it wrote {key}", hint="one instance at a time may act")


def nonce(entropy: Entropy) -> str:
    """What tells an own object from another's."""
    return entropy(NONCE_BYTES).hex()


def empty_object(tip: Tip, epoch: int, writer: str, nonce: str) -> LogObject:
    """The fence after a tip: a log object without records."""
    return encode_object(
        Header(tip.n + 1, epoch, writer, tip.previous, tip.seq + 1, tip.seq, tip.chain, tip.chain, nonce), b""
    )


def _there(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFound as error:
        raise StoreUnreachable(f"{key} exists, but cannot be read yet", hint="it is asked again") from error


def _next(
    tip: Tip | None, writer: str, release: str, mark: str, floor: int, start: Start, conditional: bool
) -> Manifest:
    """The manifest of a claim: all that the one before says, under a new writer."""
    if tip is None:
        return Manifest(
            m=1,
            epoch=floor + 1,
            writer=writer,
            release=release,
            nonce=mark,
            previous=NOTHING,
            snap=None,
            segs=(),
            log_from=1,
            log_previous=NOTHING,
            log_seq=start.seq,
            log_chain=start.chain,
            gc_boundary=1,
            conditional=conditional,
        )
    return replace(
        tip.manifest,
        m=tip.m + 1,
        epoch=max(tip.epoch, floor) + 1,
        writer=writer,
        release=release,
        nonce=mark,
        previous=tip.manifest.self_sha256,
        released=False,
        conditional=conditional,
    )


def _under(manifest: Manifest, tip: Tip | None, at: float) -> Tip:
    """The tip under one's own manifest."""
    if tip is None:
        return Tip(manifest, 1, (), 0, NOTHING, manifest.epoch, manifest.log_seq, manifest.log_chain, (), 0, at)
    return replace(tip, manifest=manifest, m=manifest.m, epoch=manifest.epoch)


def _fence(store: Store, tip: Tip, mark: str, threads: int) -> Claimed:
    """The claim made good: an own object at the end of the log, and all before it read. Raises Fenced, StoreError."""
    manifest = tip.manifest
    while True:
        known, fence = tip.n, empty_object(tip, manifest.epoch, manifest.writer, mark)
        key = log_key(fence.header.n)
        if settle(store, key, bytes_of(fence)) == bytes_of(fence):
            tip = replace(tip, tail=(*tip.tail, fence), n=fence.header.n, previous=fence.sha256)
            return Claimed(manifest, tip, manifest.epoch, manifest.writer)
        tip = follow(store, tip, threads)
        for one in tip.tail:
            if one.header.n > known and above(one.header, manifest):
                raise overtaken(log_key(one.header.n))
        if tip.n == known:
            raise StoreUnreachable(f"{key} exists, but cannot be read yet", hint="it is asked again")


def above(header: Header, manifest: Manifest) -> bool:
    """Whether a log object shows that another claimed after this manifest."""
    return header.epoch > manifest.epoch or (header.epoch == manifest.epoch and header.writer != manifest.writer)


def _hinted(store: Store, claimed: Claimed) -> Claimed:
    """The claim, with HINT moved on if it lies far behind."""
    hinted = claimed.tip.hinted
    if not hinted or claimed.manifest.m - hinted >= HINT_BEHIND:
        with suppress(StoreError):  # advice: without it the next look probes further
            store.put(HINT, encode_hint(claimed.manifest.m, claimed.n))
    return claimed
