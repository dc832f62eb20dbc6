"""Asks what may never answer: for so long, and no longer.

The question goes on in a thread that holds nothing up, not even the end of the process; its answer is then nobody's.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from persistence.errors import FinnError

T = TypeVar("T")


class Silent(FinnError):
    """No answer in the time that there was. What was asked may be well, and slow."""

    code = "unreachable"
    retryable = True


def within(seconds: float, what: str, ask: Callable[[], T]) -> T:
    """What `ask` returns, or raises. Raises Silent where that takes longer."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    asking = threading.Thread(target=run, name=f"ask-{what}", daemon=True)
    asking.start()
    asking.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise Silent(f"{what} gave no answer within {seconds:g} s", hint="see whether it can be reached from here")
    return answers[0]
