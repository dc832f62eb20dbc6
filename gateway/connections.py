"""How much a caller may take up, and who is connected: from which address, and waiting for what.

enter ─▶ idle ─ a request is here ─▶ busy ─ it is answered ─▶ idle ─▶ leave
           └ has to give way where its address, or finn, is full
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.address import Network, bucket, within

RECEIVE_S = 10.0
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
PER_ADDRESS = 256
CONNECTIONS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may take up."""

    receive_s: float = RECEIVE_S
    headers: int = MAX_HEADERS
    header_bytes: int = MAX_HEADER_BYTES
    per_address: int = PER_ADDRESS
    connections: int = CONNECTIONS


DEFAULT_LIMITS = Limits()


class Connection(Protocol):
    """A connection that can be asked to end."""

    def give_way(self) -> None: ...


class Connections:
    """The open connections. Those that have not asked for anything give way, the longest idle first.

    The addresses of trusted proxies stand for many people: only the limit on all connections counts for them.
    """

    def __init__(self, limits: Limits, proxies: Collection[Network]) -> None:
        self._limits = limits
        self._proxies = proxies
        self._addresses: dict[object, str] = {}
        self._held: Counter[str] = Counter()
        self._idle: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: object, address: str) -> bool:
        """Whether there is room, if need be after the longest idle one of the fullest address has given way."""
        key = bucket(address)
        if self._held[key] >= self._limits.per_address and not within(address, self._proxies):
            self._make_room(key)
            if self._held[key] >= self._limits.per_address:
                return False
        if len(self._addresses) >= self._limits.connections:
            self._make_room(max(self._idle, key=lambda each: len(self._idle[each]), default=key))
            if len(self._addresses) >= self._limits.connections:
                return False
        self._addresses[connection] = key
        self._held[key] += 1
        return True

    def idle(self, connection: Connection) -> None:
        """It waits for a request, or is still sending it."""
        if connection in self._addresses:
            self._idle.setdefault(self._addresses[connection], {})[connection] = None

    def busy(self, connection: Connection) -> None:
        """Its request is here and has to be answered."""
        key = self._addresses.get(connection, "")
        idle = self._idle.get(key, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(key, None)

    def leave(self, connection: Any) -> None:
        """It is gone. Doing it twice is as good as once."""
        if connection not in self._addresses:
            return
        self.busy(connection)
        key = self._addresses.pop(connection)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    def _make_room(self, key: str) -> None:
        connection = next(iter(self._idle.get(key, ())), None)
        if connection is not None:
            self.leave(connection)
            connection.give_way()
