"""A store that knows what it may hold: every write is checked when it is made, whoever makes it.

    log/n       created once, in a row; the epoch never falls, and is one writer's; ids rise; no text comes twice
    manifest/m  created once, in a row; the epoch never falls
    put         never over a log object or a manifest, but for the mark that collection leaves

What was ever in the log is kept here as it was, so that a history that was lost or changed later is seen.
"""

import json
import re
from typing import NamedTuple

from persistence.clock import Clock
from persistence.layout import COLLECTED, NOTHING, decode_manifest, decode_object
from persistence.segment import frames
from persistence.stores.memory import MemoryStore

TOKEN = re.compile(rb"<([A-Z]\d+)>")  #: what tells one thing that was said from every other


class Broken(AssertionError):
    """An invariant does not hold."""


class Entry(NamedTuple):
    """A record that the store has, and the log's digest behind it."""

    digest: str
    id: str
    epoch: int
    tokens: tuple[str, ...]
    recovered: bool


class Annals(MemoryStore):
    """The objects, and the history that they have been so far."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.history: list[Entry] = []  #: of seq 1, 2, …
        self.seq_of: dict[str, int] = {}  #: where in the history something was said
        self.recovered: dict[str, int] = {}  #: where it came back as an orphan
        self.epoch = 0  #: of the last log object: its fence stands
        self.writes: dict[str, int] = {}  #: how often what kind of object was written
        self._strict = True
        self._last_n = 0
        self._writer = ""
        self._last_m = 0
        self._claimed = 0

    def forgive(self) -> None:
        """Nothing is checked any more: somebody else changes the objects."""
        self._strict = False

    @property
    def chain(self) -> str:
        """The log's digest at its end."""
        return self.history[-1].digest if self.history else NOTHING

    def _write(self, key: str, data: bytes) -> None:
        kind = key.partition("/")[0]
        self.writes[kind] = self.writes.get(kind, 0) + 1
        taken = key in self.objects
        super()._write(key, data)
        if not self._strict:
            return
        if kind == "log":
            self._require(not taken, f"{key} was written over")
            self._log(key, data)
        elif kind == "manifest" and key != "manifest/HINT" and data != COLLECTED:
            self._require(not taken, f"{key} was written over")
            self._manifest(key, data)

    def _log(self, key: str, data: bytes) -> None:
        one = decode_object(data, key)
        header = one.header
        if header.n <= self._last_n:
            return  # its number was collected: whoever wrote it must not count it, which the reader of `history` sees
        self._require(header.n == self._last_n + 1, f"{key} leaves a hole behind {self._last_n}")
        self._require(header.epoch >= self.epoch, f"I4: {key} of epoch {header.epoch} behind the fence of {self.epoch}")
        same = header.epoch > self.epoch or header.writer == self._writer
        self._require(same, f"I4: {key} is of a second writer in epoch {self.epoch}")
        self._last_n, self.epoch, self._writer = header.n, header.epoch, header.writer
        self._require(
            (header.first, header.chain_in) == (len(self.history) + 1, self.chain),
            f"I2: {key} with {header.first}-{header.last} does not follow record {len(self.history)}",
        )
        for frame in frames(one.body, header.first, header.chain_in, key):
            self._record(key, frame.line, frame.digest.hex())

    def _record(self, key: str, line: bytes, digest: str) -> None:
        body = json.loads(line)
        recovered = body["type"] == "entry_recovered"
        tokens = tuple(dict.fromkeys(token.decode() for token in TOKEN.findall(line)))
        seq = len(self.history) + 1
        self._require(body["seq"] == seq, f"I2: {key} has record {body['seq']} as {seq}")
        if self.history:
            self._require(body["id"] > self.history[-1].id, f"I9: the id of record {seq} does not rise")
            self._require(body["epoch"] >= self.history[-1].epoch, f"I4: the epoch of record {seq} falls")
        for token in tokens:
            before = self.seq_of.get(token) or self.recovered.get(token)
            self._require(before is None, f"I2: {token} stands at {before} and again at {seq}")
            (self.recovered if recovered else self.seq_of)[token] = seq
        self.history.append(Entry(digest, body["id"], body["epoch"], tokens, recovered))

    def _manifest(self, key: str, data: bytes) -> None:
        manifest = decode_manifest(data, key)
        if manifest.m <= self._last_m:
            return  # as above
        self._require(manifest.m == self._last_m + 1, f"{key} leaves a hole behind {self._last_m}")
        self._require(manifest.epoch >= self._claimed, f"I4: {key} of epoch {manifest.epoch} after {self._claimed}")
        self._last_m, self._claimed = manifest.m, manifest.epoch

    @staticmethod
    def _require(holds: bool, what: str) -> None:
        if not holds:
            raise Broken(what)
