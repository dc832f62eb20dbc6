"""What goes wrong between finn and a provider, as finn's own errors.

refused key, no credit   ModelDenied        no answer within the idle limit        ModelStalled
429, 503, 529, no way    ModelOverloaded    broken off, or not understood          ModelCut
400, 404, too long       ModelRejected      500 and its like                       ModelError
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
)

from persistence.errors import ModelCut, ModelDenied, ModelError, ModelOverloaded, ModelRejected, ModelStalled

WORDS_SHOWN = 300  # characters of what the provider said

# The first line that fits is meant: the special before the general.
FAILURES: tuple[tuple[type[ModelAPIError], type[ModelError], str, str], ...] = (
    (
        ModelContextWindowExceededError,
        ModelRejected,
        "the conversation is longer than the model's context window",
        "start a new session, or use a model with a larger window",
    ),
    (
        ModelQuotaExceededError,
        ModelDenied,
        "the account's credit or quota is used up",
        "see the provider's billing page",
    ),
    (ModelAuthenticationError, ModelDenied, "the provider does not accept the key", "check {key} and what it may use"),
    (
        ModelNotFoundError,
        ModelRejected,
        "the provider does not know the model or the address",
        "check the name in FINN_MODEL, and FINN_MODEL_BASE_URL if it is set",
    ),
    (ModelRateLimitError, ModelOverloaded, "the rate limit is reached", "it is asked again a little later"),
    (ModelUnavailableError, ModelOverloaded, "the provider is overloaded", "it is asked again a little later"),
    (ModelServerError, ModelError, "the provider failed", "it is asked again a little later"),
    (ModelRequestRejectedError, ModelRejected, "the provider rejects the request", "what it says is in the message"),
    (ModelHTTPError, ModelRejected, "the provider refuses", "check FINN_MODEL_BASE_URL if it is set"),
)
UNREACHABLE = "check the network, and FINN_MODEL_BASE_URL if it is set"
AGAIN = "it is asked again"


def failure(
    error: Exception, *, model: str, key_name: str, secret: str | None, idle_s: float, now: float
) -> ModelError:
    """The ModelError for what a library raised. `secret` is taken out of whatever words the provider sent."""
    said = _words(error).replace(secret, "***") if secret else _words(error)
    if isinstance(error, ModelConnectionError | httpx2.TransportError):
        return _broken(error, model, said, idle_s)
    for kind, ours, sentence, hint in FAILURES:
        if isinstance(error, kind):
            wait = retry_after(error.headers or {}, now) if isinstance(error, ModelHTTPError) else None
            return ours(f"{model}: {sentence}: {said}", hint=hint.format(key=key_name), retry_after=wait)
    return ModelCut(f"{model}: the stream cannot be understood: {said}", hint=AGAIN)


def _broken(error: ModelConnectionError | httpx2.TransportError, model: str, said: str, idle_s: float) -> ModelError:
    """The connection itself failed: it was never made, it was silent, or it broke."""
    unmade = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
    if isinstance(error, unmade) or getattr(error, "phase", None) in ("connect", "pool"):
        return ModelOverloaded(f"{model}: the provider cannot be reached: {said}", hint=UNREACHABLE)
    if isinstance(error, ModelTimeoutError | httpx2.TimeoutException):
        return ModelStalled(f"{model}: nothing came from the provider for {idle_s:g} s", hint=AGAIN)
    return ModelCut(f"{model}: the connection broke before the answer was complete: {said}", hint=AGAIN)


def _words(error: Exception) -> str:
    """What the provider said, or failing that the library."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    cause = error.__cause__.__cause__ if error.__cause__ and not message else None
    text = str(message or cause or getattr(error, "message", None) or error or type(error).__name__)
    return " ".join(text.split())[:WORDS_SHOWN]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that the provider asks to wait: `retry-after-ms`, or `retry-after` as seconds or an HTTP date."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    seconds = _seconds(said)
    return seconds if seconds is not None or said is None else _until(said, now)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now)
