"""Ids of tool calls for models that have to make up their own.

An id depends on nothing but the request, so that the same request gives the same answer, and it covers the ids of the
calls before it, so that two calls of one session never share one.
"""

from hashlib import sha256

from agent.model import Request

LINKS = 8  # messages that are hashed: enough to reach an earlier call's id, and flat in the length of the request


def call_id(request: Request, n: int) -> str:
    """The id of the n-th call in the answer to `request`, in the form that every provider takes back."""
    seen = repr((request.session, len(request.messages), request.messages[-LINKS:], n))
    return f"call_{sha256(seen.encode()).hexdigest()[:20]}"
