"""Tool calls as models make them: with ids for those that have none, and arguments that can be kept.

An id depends on nothing but the request, so that the same request gives the same answer, and it covers the ids of the
calls before it, so that two calls of one session never share one.
"""

from collections.abc import Mapping
from hashlib import sha256

from agent.model import Request
from persistence.events import ToolCallBlock
from persistence.values import DEPTH, Json, deeper_than

LINKS = 8  # messages that are hashed: enough to reach an earlier call's id, and flat in the length of the request


def call_id(request: Request, n: int) -> str:
    """The id of the n-th call in the answer to `request`, in the form that every provider takes back."""
    seen = repr((request.session, len(request.messages), request.messages[-LINKS:], n))
    return f"call_{sha256(seen.encode()).hexdigest()[:20]}"


def tool_call(call: str, name: str, arguments: Mapping[str, Json]) -> ToolCallBlock:
    """The call; arguments that are nested too deep for a record come as one that no tool takes."""
    kept = {"too_deep": f"more than {DEPTH} levels"} if deeper_than(arguments, DEPTH) else dict(arguments)
    return ToolCallBlock(id=call, name=name, arguments=kept)
