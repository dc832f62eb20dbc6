"""Who is asking, and what that opens.

probe    /health with its checks, /metrics, /doctor, and nothing else
read  <  chat  <  owner        each opens what those before it open
"""

import math
from dataclasses import dataclass
from typing import Literal

from starlette.requests import HTTPConnection

from gateway.problem import Refused
from persistence.events import OWNER, By

Scope = Literal["probe", "read", "chat", "owner"]
SCOPES: tuple[Scope, ...] = ("probe", "read", "chat", "owner")  #: from the smallest; see Caller.may
CALLER = "finn.caller"  #: where the guard of a route leaves the caller, in the connection's scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has shown a token or a cookie, and what that opens.

    `token` is the id of a scoped token (None: the owner's own), `generation` that of the owner's token when this was
    shown, `until` the second in which it ends by itself.
    """

    scope: Scope
    by: Literal["token", "cookie"]
    token: str | None = None
    generation: int = 0
    until: float = math.inf

    def may(self, need: Scope) -> bool:
        """Whether this opens what needs that scope."""
        if self.scope == "probe":
            return need == "probe"
        return SCOPES.index(self.scope) >= SCOPES.index(need)

    def require(self, need: Scope) -> None:
        """Raises Refused `forbidden_scope` where this does not open what needs that scope."""
        if not self.may(need):
            what = f"this needs a token of scope {need}, and this one has {self.scope}"
            raise Refused("forbidden_scope", what, hint=f"`finn token create --scope {need}` makes one")

    @property
    def who(self) -> By:
        """The actor of whatever this caller causes."""
        return OWNER if self.token is None else By(actor=f"token:{self.token}", trust=OWNER.trust)


def caller_of(connection: HTTPConnection) -> Caller:
    """Whom the guard of this route has let in."""
    caller: Caller = connection.scope[CALLER]
    return caller
