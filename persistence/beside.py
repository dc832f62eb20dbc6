"""Git beside a store that answers, for a start that has no log here: is it further on in the same past?

    asked while the store is ──▶ its branch ends with the commit that the manifest names     the store has all of it
                                 no answer in time, damaged                                  told: could not be compared
                                 another commit ─▶ fetched ─▶ its state
                                                               not behind the store's end     the store has all of it
                                                               the store is in its past      git is further
                                                               it is another history         told

A store that was away for a while, or was set back, still answers; what git got meanwhile was acknowledged as well.
"""

import queue
import threading
from typing import Any, Protocol

from persistence.ancestry import Kin, Place
from persistence.errors import ArchiveError, Damaged, Newer
from persistence.relation import place
from persistence.remote import Tip
from persistence.store import Store

FETCH_S = 60.0  #: how long a git that has answered, and has something else than the store, may take to hand it over


class Compared(Protocol):
    """The git tier, as far as it is compared."""

    def heads(self, limit_s: float) -> frozenset[str]: ...

    def latest(self, limit_s: float) -> Any: ...

    def kin(self, state: Any, theirs: Place) -> Kin: ...


class Beside:
    """One comparison. Git is asked at once, in a thread of its own, and has `patience_s` to answer.

    `problems` is what was found that a person has to know. Both methods wait for that answer first: until then the
    archive is in use.
    """

    def __init__(self, archive: Compared, patience_s: float) -> None:
        self.problems: list[str] = []
        self._archive = archive
        self._answers: queue.SimpleQueue[frozenset[str] | BaseException] = queue.SimpleQueue()
        self._heads: frozenset[str] | BaseException | None = None
        threading.Thread(target=self._ask, args=(patience_s,), name="git-look", daemon=True).start()

    def _ask(self, patience_s: float) -> None:
        try:
            self._answers.put(self._archive.heads(patience_s))
        except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
            self._answers.put(error)

    def wait(self) -> frozenset[str] | BaseException:
        """What git said, or why it did not."""
        if self._heads is None:
            self._heads = self._answers.get()  # git itself is ended when its time is up
        return self._heads

    def further(self, store: Store, tip: Tip) -> Any | None:
        """The state in git that goes on from where the store ends; None where none does. Raises StoreError."""
        self.problems = []
        try:
            heads = self.wait()
            if isinstance(heads, BaseException):
                raise heads
            if heads <= {tip.manifest.archived}:
                return None
            state = self._archive.latest(FETCH_S)
            if state is None or (state.seq <= tip.seq and state.epoch <= tip.epoch):
                return None
            found = self._archive.kin(state, place(store, tip))
        except (ArchiveError, Damaged, Newer) as error:
            self.problems.append(f"git could not be compared with the store, which was taken: {error}")
            return None
        ends = f"the store ends with record {tip.seq}, git with record {state.seq}"
        if found is not Kin.PAST or state.seq <= tip.seq:
            self.problems.append(f"{ends} of another history; the store was taken")
            return None
        self.problems.append(f"{ends} of the same history; git was taken")
        return state
