"""Two instances on one bucket, to which anything happens in any order: what one of them acknowledged is there once.

finn "one" ─▶ proxy ─┐      started, killed, stopped, paused; the store silent, away, or answering into the void
finn "two" ─▶ proxy ─┴▶ moto

At the end each is started once more on its own disk, then the last one on an empty one: that has it all.
"""

import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.conftest import count
from tests.end_to_end.bucket import Bucket, lose, ready, saved, texts
from tests.end_to_end.finn import Died, Finn, until
from tests.fault_proxy import Fault, Kind
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

KINDS: tuple[Kind, ...] = ("reset_before", "reset_after", "half", "blackhole", "status")


class One:
    """An instance and what becomes of it. `acknowledged` is what it has to answer for."""

    def __init__(self, bucket: Bucket, name: str, level: str, draw: random.Random) -> None:
        self.acknowledged: list[str] = []
        self.session = ""
        self.did: list[str] = []
        self.it = bucket.made(name, FINN_DURABILITY=level, FINN_SHUTDOWN_BUDGET="4s")
        self._bucket = bucket
        self._name = name
        self._draw = draw
        self._state = "down"

    def step(self) -> None:
        """One thing that happens to it."""
        talk: list[Callable[[], None]] = [self.say, self.say]
        about: dict[str, list[Callable[[], None]]] = {
            "down": [self.start],
            "up": [*talk, *talk, self.kill, self.stop, self.pause],
            "paused": [self.resume, self.kill],
        }
        act = self._draw.choice([*about[self._state], *about[self._state], self.fault, self.away, self.heal])
        self.did.append(f"{self._name} {act.__name__}")
        with suppress(OSError, HTTPException):  # it hung, or was gone: what it did not say it need not answer for
            act()

    def say(self) -> None:
        text = f"{self._name} {len(self.did)}"
        told = self.it.ask("POST", f"/api/sessions/{self.session}/messages", {"text": text}, {"Idempotency-Key": text})
        if told.status == 202:
            self.acknowledged.append(text)

    def start(self) -> None:
        with suppress(Died):
            self.it.start()
            self._state = "up"

    def kill(self) -> None:
        self.it.kill()
        self._state = "down"

    def stop(self) -> None:
        self.it.stop()
        self._state = "down"

    def pause(self) -> None:
        self.it.send_signal(signal.SIGSTOP)
        self._state = "paused"

    def resume(self) -> None:
        self.it.send_signal(signal.SIGCONT)
        self._state = "up"

    def fault(self) -> None:
        kind, method = self._draw.choice(KINDS), self._draw.choice(["PUT", "GET", ""])
        self._bucket.proxy(self._name).add(Fault(kind, method, times=self._draw.randrange(1, 6)))

    def away(self) -> None:
        self._bucket.proxy(self._name).away = True
        self._bucket.proxy(self._name).cut()

    def heal(self) -> None:
        self._bucket.proxy(self._name).clear()
        self._bucket.proxy(self._name).cut()

    def last(self) -> Finn:
        """Once more, as a new release, which claims; when all that this disk had is in the bucket."""
        self.heal()
        it = self._bucket.made(self._name, FINN_RELEASE="last")
        it.start()
        until(lambda: ready(it) == "ok")
        saved(it)
        until(lambda: not [*self._bucket.store.list("orphans/")])
        saved(it)
        return it


def test_what_was_acknowledged_in_any_turmoil_is_there_once(tmp_path: Path, server: S3Server, seed: int) -> None:
    for number in range(count(1, 20)):
        draw, bucket = random.Random(f"{seed} {number}"), Bucket(tmp_path / str(number), server)
        level = draw.choice(["local", "store"])
        try:
            pair = [One(bucket, name, level, draw) for name in ("one", "two")]
            pair[0].start()
            session = pair[0].it.new_session()
            saved(pair[0].it)
            for one in pair:
                one.session = session
            for _ in range(count(14, 40)):
                draw.choice(pair).step()
            for one in pair:
                one.kill()
            pair[0].last().stop()
            it = pair[1].last()
            lose(it)
            it.start()
            there = Counter(texts(it, session))
            owed = [text for one in pair for text in one.acknowledged]
            assert {text: there[text] for text in owed} == dict.fromkeys(owed, 1), (number, [one.did for one in pair])
        finally:
            bucket.close()
