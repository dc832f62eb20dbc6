"""How a model has answered lately, seen from beside it.

    Agent ─▶ Watched.stream ─▶ the model itself       an answer clears `trouble`, a failed call says what it was

A call that is not heard to its end tells nothing. What passes by itself (overloaded, unreachable, broken off) is told
for a while after it happened last; what a person has to mend (a key, a name) until there is an answer again.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from agent.model import About, Answer, Delta, Model, Request
from persistence.clock import Clock
from persistence.errors import ModelError

LATELY_S = 900.0


class Watched:
    """The same model, and what became of its last call."""

    def __init__(self, model: Model, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._error: ModelError | None = None
        self._at = 0.0

    @property
    def about(self) -> About:
        """What is known of the model without calling it."""
        return self._model.about

    @property
    def trouble(self) -> str:
        """Why its last call failed, with what to do; empty where it did not, or long ago."""
        error = self._error
        if error is None or (error.retryable and self._clock.monotonic() - self._at > LATELY_S):
            return ""
        return f"the last call failed: {error}"

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """As the model does."""
        try:
            async with aclosing(self._model.stream(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, Answer):
                        self._error = None
                    yield delta
        except ModelError as error:
            self._error, self._at = error, self._clock.monotonic()
            raise
