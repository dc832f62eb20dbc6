"""Whether a store keeps the one promise that fencing leans on: of many who create a name, one succeeds.

    put, get          it can be used at all, else the error is raised
    create, create    the second is told Exists, and the first one's bytes stay
    create ×8         at once: one is told that it succeeded, and its bytes are there

Several servers that speak S3 take the condition, ignore it and answer 200; others refuse to know it. On both finn runs
unfenced, and says so. Asked for a new prefix only; the manifest remembers the answer.
"""

import contextlib
import threading
from collections.abc import Iterator

from persistence.clock import Entropy
from persistence.errors import Exists, NotFound, StoreError, StoreRefused, StoreUnreachable
from persistence.store import Store

RACERS = 8


def probe(store: Store, entropy: Entropy) -> bool:
    """Whether conditional writes work. Its objects are gone afterwards. Raises StoreError where it cannot tell."""
    place = f"probe/{entropy(8).hex()}"
    with _removed(store, [f"{place}/{name}" for name in ("put", "twice", "race")]) as (plain, twice, race):
        store.put(plain, b"put")
        if store.get(plain) != b"put":
            raise StoreUnreachable(f"{store.url} does not give back what was written", hint="see what is before it")
        return _refuses_a_second(store, twice) and _has_one_winner(store, race)


def _refuses_a_second(store: Store, key: str) -> bool:
    try:
        store.create(key, b"first")
    except StoreRefused:
        return False  # a plain write was just taken: it is the condition that this store does not know
    try:
        store.create(key, b"second")
    except Exists:
        return store.get(key) == b"first"
    return False


def _has_one_winner(store: Store, key: str) -> bool:
    """Raises StoreError where one of the attempts had no outcome: it may have been the winner."""
    gate = threading.Barrier(RACERS)
    outcomes: list[bytes | StoreError] = []

    def attempt(racer: int) -> None:
        own = f"racer {racer}".encode()
        gate.wait()
        try:
            store.create(key, own)
            outcomes.append(own)
        except Exists:
            return
        except StoreError as error:
            outcomes.append(error)

    # Daemons: an attempt that hangs must not hold up the end of the process.
    racers = [threading.Thread(target=attempt, args=(racer,), daemon=True) for racer in range(RACERS)]
    for thread in racers:
        thread.start()
    for thread in racers:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, StoreError):
            raise outcome
    return len(outcomes) == 1 and store.get(key) == outcomes[0]


@contextlib.contextmanager
def _removed(store: Store, keys: list[str]) -> Iterator[list[str]]:
    try:
        yield keys
    finally:
        for key in keys:
            # A key without the right to delete is a good idea, not a failed probe: the few bytes stay.
            with contextlib.suppress(StoreError, NotFound):
                store.delete(key)
