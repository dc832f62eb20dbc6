"""Whether a store keeps the one promise that fencing leans on: of many who create a name, one succeeds.

    put, get          it can be used at all, else the error is raised
    create, create    the second is told Exists, and the first one's bytes stay
    create ×8         at once: one is told that it succeeded, and its bytes are there

Several servers that speak S3 take the condition, ignore it and answer 200; others refuse to know it. On both finn runs
unfenced, and says so. Asked for a new prefix only; the manifest remembers the answer.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from persistence.clock import Entropy
from persistence.errors import Exists, NotFound, StoreError, StoreRefused, StoreUnreachable
from persistence.store import Store

RACERS = 8
TRIES = 3
PAUSE_S = 1.1  #: R2 takes one write a second to one name

Pause = Callable[[float], object]  #: waits so many seconds


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def probe(store: Store, entropy: Entropy, pause: Pause = _pause) -> bool:
    """Whether conditional writes work. Its objects are gone afterwards. Raises StoreError where it cannot tell."""
    place = f"probe/{entropy(8).hex()}"
    with _removed(store, [f"{place}/{name}" for name in ("put", "twice", "race")]) as (plain, twice, race):
        store.put(plain, b"put")
        if store.get(plain) != b"put":
            raise StoreUnreachable(f"{store.url} does not give back what was written", hint="see what is before it")
        return _refuses_a_second(store, twice, pause) and _has_one_winner(store, race)


def _refuses_a_second(store: Store, key: str, pause: Pause) -> bool:
    try:
        store.create(key, b"first")
    except StoreRefused:
        return False  # a plain write was just taken: it is the condition that this store does not know
    for _ in range(TRIES - 1):  # again without harm: its bytes are others, and the first one's are looked for
        with contextlib.suppress(StoreUnreachable):
            return _refused(store, key)
        pause(PAUSE_S)
    return _refused(store, key)


def _refused(store: Store, key: str) -> bool:
    try:
        store.create(key, b"second")
    except Exists:
        return store.get(key) == b"first"
    return False


def _has_one_winner(store: Store, key: str) -> bool:
    """Raises StoreError where none was told so and one has no outcome: it may be the winner.

    Beside a winner those without an outcome tell nothing: R2 answers 429 to the second write of a second to one name.
    """
    gate = threading.Barrier(RACERS)
    winners: list[bytes] = []
    unknown: list[StoreError] = []

    def attempt(racer: int) -> None:
        own = f"racer {racer}".encode()
        gate.wait()
        try:
            store.create(key, own)
            winners.append(own)
        except Exists:
            return
        except StoreError as error:
            unknown.append(error)

    # Daemons: an attempt that hangs must not hold up the end of the process.
    racers = [threading.Thread(target=attempt, args=(racer,), daemon=True) for racer in range(RACERS)]
    for thread in racers:
        thread.start()
    for thread in racers:
        thread.join()
    if unknown and not winners:
        raise unknown[0]
    return len(winners) == 1 and store.get(key) == winners[0]


@contextlib.contextmanager
def _removed(store: Store, keys: list[str]) -> Iterator[list[str]]:
    try:
        yield keys
    finally:
        for key in keys:
            # A key without the right to delete is a good idea, not a failed probe: the few bytes stay.
            with contextlib.suppress(StoreError, NotFound):
                store.delete(key)
