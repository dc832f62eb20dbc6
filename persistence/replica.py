"""The log on its way to the store, by the one writer that claimed it.

    frames(confirmed, …) ─▶ blobs that they name, each once ─▶ log/n+1, created ─▶ confirmed
                                                                 │ no answer: the same bytes again, until there is one
                                                                 └ another's: its epoch is higher: Fenced, for good

    publish ─▶ manifest m+1, created ─▶ HINT       check ─▶ is there a log/n+1 that is not ours? does a standby knock?
    after silence: is what we wrote last still there?      emptied or set back by somebody: StoreLost, for good

Whoever holds this calls it from one thread at a time; the facts may be read from any. What raises StoreError is called
again later and goes on where it was. After Fenced or StoreLost nothing here will ever be confirmed again.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol, TypeVar

from persistence.claim import Claimed, above, nonce, overtaken, settle
from persistence.clock import Clock, Entropy
from persistence.errors import Damaged, Fenced, Newer, NotFound, StoreError, StoreLost
from persistence.layout import (
    HINT,
    KNOCK,
    PROVE,
    Header,
    LogObject,
    Manifest,
    blob_key,
    bytes_of,
    decode_knock,
    decode_object,
    encode_hint,
    encode_manifest,
    encode_object,
    log_key,
    manifest_key,
)
from persistence.remote import AHEAD, FRESH_S, Tip, look, together
from persistence.runs import Run
from persistence.store import Store

PROBLEMS = 20  #: sentences that are kept
OBJECT_BYTES = 4 << 20  #: of frames in one log object, but for a single record that is larger
OBJECT_BLOBS = 128  #: about as many are put before the object that names them, so that thousands of files come in parts
STAND_S = 2.0  #: after which the next object is not put on top of the last without a look whether that is there


E = TypeVar("E", Fenced, StoreLost)


class Frames(Protocol):
    """The local log as the replica reads it. Safe to call from its thread; `blob` from several at once."""

    @property
    def durable(self) -> int:
        """The last seq that is durable here."""

    def frames(self, after: int, limit: int) -> Run:
        """The records after a seq, about `limit` bytes of them and at least one. Raises StorageError."""

    def blob(self, sha: str) -> bytes:
        """Raises NotFound, Damaged, StorageError."""

    def chunk(self, sha: str) -> bytes:
        """Raises NotFound, Damaged, StorageError."""


class Laid(NamedTuple):
    """A log object that lies in the store, without its frames. `bytes` is the size of those."""

    header: Header
    bytes: int
    sha256: str


class Replica:
    """What this process has in the store. Made from a claim, whose past it continues."""

    def __init__(
        self,
        store: Store,
        claimed: Claimed,
        source: Frames,
        *,
        release: str,
        clock: Clock,
        entropy: Entropy,
        threads: int = AHEAD,
    ) -> None:
        tip = claimed.tip
        self.store = store
        self.source = source
        self.writer = claimed.writer
        self.epoch = claimed.epoch
        self.release_name = release
        self.manifest = claimed.manifest
        self.confirmed, self.chain = tip.seq, tip.chain
        self.n, self.previous = tip.n, tip.previous
        self.tail = tuple(Laid(one.header, len(one.body), one.sha256) for one in tip.tail)
        self.known: set[str] = set()  #: keys of blobs and chunks that this life knows to be in the store
        self.problems: tuple[str, ...] = ()  #: what was left out, until somebody has told it and empties this
        self._clock = clock
        self._entropy = entropy
        self._threads = threads
        self._proven = tip.at  # boot time at which the store last showed that nobody came after
        self._flying: LogObject | None = None  # log/n+1, sent, without an answer
        self._drafted: Manifest | None = None  # manifest m+1, likewise
        self._m = tip.m  # the highest number of a manifest, above its own only where that cannot be read
        self._answered = {one.header.answers for one in tip.tail}
        self._over: Fenced | StoreLost | None = None  # why nothing will be confirmed here any more
        self._turn = 0  # of the minute's check
        self._foot, self._stood = self._last_key, tip.at  # an object that was there, and when

    # ------------------------------------------------------------ facts

    @property
    def tail_objects(self) -> int:
        """How many log objects no seg holds yet."""
        return len(self.tail)

    @property
    def tail_bytes(self) -> int:
        """The size of their frames."""
        return sum(one.bytes for one in self.tail)

    @property
    def complete(self) -> bool:
        """Whether a state can be made of what is there, without this machine: all of it, from the beginning on."""
        runs = [one.header for one in self.tail if one.header.first <= one.header.last]
        ends = [self.manifest.log_seq, *(run.last for run in runs)]
        return self.manifest.complete and all(run.first == end + 1 for run, end in zip(runs, ends, strict=False))

    def nonce(self) -> str:
        """A new mark for an own object."""
        return nonce(self._entropy)

    # ------------------------------------------------------------ records

    def flush(self) -> int:
        """Brings everything that is durable here to the store. Returns the last seq that is confirmed then.

        Raises StoreError, StorageError (try again later), Fenced, StoreLost.
        """
        self.settle()
        if self.source.durable > self.confirmed:
            self._stand_firm()
        while self.source.durable > self.confirmed:
            self._send(self._drawn())
        return self.confirmed

    def settle(self) -> None:
        """Asks again, with the same bytes, for what was sent and not answered. Raises StoreError, Fenced, StoreLost."""
        if self._over:
            raise self._over
        if self._flying:
            self._send(self._flying)
        if self._drafted:
            self._create(self._drafted)

    def _drawn(self) -> LogObject:
        """The next log object, when the blobs that it names are up."""
        run = self.source.frames(self.confirmed, OBJECT_BYTES)
        if len(run.blobs) > OBJECT_BLOBS:
            run = self.source.frames(self.confirmed, len(run.body) * OBJECT_BLOBS // len(run.blobs))
        if run.first <= self.confirmed or (run.first == self.confirmed + 1 and run.chain_in != self.chain):
            raise Damaged(f"record {run.first} here does not follow record {self.confirmed} in the store", hint=PROVE)
        blobs = dict.fromkeys(run.blobs)
        together([partial(self.upload, blob_key(sha), partial(self.source.blob, sha)) for sha in blobs], self._threads)
        return self._object(run.first, run.last, run.chain_in, run.chain_out, run.body)

    def upload(self, key: str, read: Callable[[], bytes]) -> None:
        """Puts bytes that are named by their hash, unless this life knows that they are there.

        What is lost here must not hold up what is not: it becomes a sentence in `problems`. Raises StoreError.
        """
        if key in self.known:
            return
        try:
            data = read()
        except (NotFound, Damaged) as error:
            self._note(f"{key} cannot be brought to the store: {error.message}")
            return
        self.store.put(key, data)
        self.known.add(key)

    def _object(
        self, first: int, last: int, chain_in: str, chain_out: str, body: bytes = b"", answers: str = ""
    ) -> LogObject:
        return encode_object(
            Header(
                n=self.n + 1,
                epoch=self.epoch,
                writer=self.writer,
                previous=self.previous,
                first=first,
                last=last,
                chain_in=chain_in,
                chain_out=chain_out,
                nonce=self.nonce(),
                answers=answers,
            ),
            body,
        )

    def _send(self, one: LogObject) -> None:
        """Creates log/n+1. Until that is answered, nothing else is ever sent under its name."""
        while True:
            self._flying = one
            sent, data = self._clock.boottime(), bytes_of(one)
            found = settle(self.store, log_key(one.header.n), data)
            if found == data:
                break
            one = self._stepped_over(found, one)
        self.trusted(sent)
        self._flying = None
        self.n, self.previous = one.header.n, one.sha256
        self.confirmed, self.chain = one.header.last, one.header.chain_out
        self.tail = (*self.tail, Laid(one.header, len(one.body), one.sha256))

    def _stepped_over(self, found: bytes, one: LogObject) -> LogObject:
        """The object for the number after, where the bytes under its own belong to nobody who could be the writer.

        Raises Fenced where they show that another is.
        """
        key = log_key(one.header.n)
        self._newest(key, found)
        self._note(f"{key} holds what this writer did not write; it was stepped over")
        self._flying = None
        self.n, self.previous = one.header.n, sha256(found).hexdigest()
        return encode_object(replace(one.header, n=self.n + 1, previous=self.previous), one.body)

    # ------------------------------------------------------------ ownership

    def prove(self) -> None:
        """Asks the store whether another wrote after this one. Raises Fenced, StoreError."""
        self.settle()
        sent, key = self._clock.boottime(), log_key(self.n + 1)
        try:
            found = self.store.get(key)
        except NotFound:
            self.trusted(sent)
        else:
            self._newest(key, found)

    def check(self) -> None:
        """The look of every minute: each second one for a standby's knock, which is answered; the others by turns for a
        successor, and for what was written last.

        Raises Fenced, StoreError, StoreLost.
        """
        turns = (self.prove, self._answer, self._stand_by_turns, self._answer)
        self._turn, turn = (self._turn + 1) % len(turns), turns[self._turn]
        turn()

    def trusted(self, sent: float | None = None) -> None:
        """An answer to what was `sent` at that boot time counts, because the last proof is fresh enough.

        After an hour of silence the numbers after ours may have been written, collected, and be free again: then only
        the newest manifest says who writes. Raises Fenced, StoreError.
        """
        now = self._clock.boottime()
        self._proven = self._newest().at if now - self._proven > FRESH_S else now if sent is None else sent

    @property
    def _last_key(self) -> str:
        """What was written last, of that which is never collected while this writes."""
        return log_key(self.n) if self.tail else manifest_key(self.manifest.m)

    def _stand_firm(self) -> None:
        """Before something is put on top of what is there, after a while in which anything may have become of it."""
        if self._clock.boottime() - self._stood > STAND_S:
            self._stand(self._foot, self._last_key, manifest_key(self.manifest.m))
            self._foot = self._last_key

    def _stand_by_turns(self) -> None:
        """The same of a writer that has nothing to say, in one request: now the log, now the manifest."""
        head = manifest_key(self.manifest.m)
        self._stand(self._foot)
        self._foot = self._last_key if self._foot == head else head

    def _stand(self, *keys: str) -> None:
        """Looks whether these are there still. Raises StoreLost, Fenced, StoreError."""
        self.settle()
        now, asked = self._clock.boottime(), tuple(dict.fromkeys(keys))
        there = together([partial(self._is_there, key) for key in asked], self._threads)
        if not all(there):
            gone = asked[there.index(False)]
            with suppress(Damaged):  # so it is where only some of it went
                self._newest(gone)  # where another writes, it may have collected ours
            raise self._lose(_lost(self.store, gone))
        self._stood = now

    def _is_there(self, key: str) -> bool:
        try:
            self.store.get(key, 0, 1)
        except NotFound:
            return False
        return True

    def _answer(self) -> None:
        self.settle()
        try:
            asked = decode_knock(self.store.get(KNOCK))
        except NotFound:
            return
        if asked and asked not in self._answered:
            self._send(self._object(self.confirmed + 1, self.confirmed, self.chain, self.chain, answers=asked))
            self._answered.add(asked)

    def _newest(self, key: str = "", found: bytes = b"") -> Tip:
        """What the store holds now, where nothing shows another writer: not what was `found` under the own number, no
        manifest and no log object. Raises Fenced, StoreLost, StoreError, Damaged.
        """
        try:
            if key and self._shows_another(found, key):
                raise self._lose(overtaken(key))
            tip = look(self.store, clock=self._clock, threads=self._threads)
        except Newer as error:  # only a successor can have written what this release cannot read
            raise self._lose(overtaken(key or HINT)) from error
        if tip is None or tip.epoch < self.epoch:  # ours is higher, and is nowhere
            raise self._lose(_lost(self.store, manifest_key(self.manifest.m)))
        mine = (tip.manifest.epoch, tip.manifest.writer) == (self.epoch, self.writer)
        if tip.epoch > self.epoch or not mine:
            raise self._lose(overtaken(manifest_key(tip.manifest.m)))
        for one in tip.tail:
            if above(one.header, self.manifest):
                raise self._lose(overtaken(log_key(one.header.n)))
        return tip

    def _shows_another(self, found: bytes, key: str) -> bool:
        try:
            return above(decode_object(found, key).header, self.manifest)
        except Damaged:
            return False

    def _lose(self, error: E) -> E:
        self._over = error
        return error

    # ------------------------------------------------------------ manifests

    def publish(self, **changes: Any) -> Manifest:
        """Writes the next manifest: the last one with these changes. It is `manifest` when this returns.

        Raises StoreError: it may come to be yet, and the next call here finds out first. Raises Fenced, StoreLost.
        """
        self.settle()
        self._stand_firm()
        while True:
            draft = replace(
                self.manifest,
                m=self._m + 1,
                release=self.release_name,
                nonce=self.nonce(),
                previous=self.manifest.self_sha256,
                **changes,
            )
            if self._create(encode_manifest(draft)[0]):
                return self.manifest

    def release(self) -> None:
        """Says that this writer stops: a successor need not wait. Raises StoreError, Fenced."""
        self.publish(released=True)

    def _create(self, draft: Manifest) -> bool:
        """Creates manifest m+1. False where its number was taken by what is no claim: the next one is free then."""
        self._drafted = draft
        sent = self._clock.boottime()
        data = encode_manifest(draft)[1]
        mine = settle(self.store, manifest_key(draft.m), data) == data
        if mine:
            self.trusted(sent)
            self._adopt(draft, draft.m)
        else:
            tip = self._newest()
            self._adopt(tip.manifest, max(tip.m, draft.m))
        self._drafted = None
        with suppress(StoreError):  # advice: without it a look probes further
            self.store.put(HINT, encode_hint(self.manifest.m, self.n))
        return mine

    def _adopt(self, manifest: Manifest, m: int) -> None:
        self.manifest, self._m = manifest, m
        self._foot = manifest_key(manifest.m)
        self.tail = tuple(one for one in self.tail if one.header.n >= manifest.log_from)

    def _note(self, problem: str) -> None:
        self.problems = tuple(dict.fromkeys((*self.problems, problem)))[-PROBLEMS:]


def _lost(store: Store, key: str) -> StoreLost:
    """What a writer is told that finds its own objects gone."""
    return StoreLost(
        f"{store.url} has lost what it had confirmed: {key} is gone",
        hint="what is here is copied there again; see who empties the store or sets it back",
    )
