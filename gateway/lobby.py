"""Everybody who is connected: those who may speak, and those who only listen.

sockets   /ws, to talk            streams   server-sent events, to read along
"""

from collections.abc import Coroutine, Iterable

from gateway.auth import Auth
from gateway.hub import Close, Hub
from persistence.events import Record, TokenRevoked

RETRY_MS = 1000  #: when a client that is sent away comes back


class Lobby:
    """The connections of one process, of both kinds."""

    def __init__(self, auth: Auth) -> None:
        self.sockets, self.streams = Hub(), Hub()
        self._auth = auth

    def serve(self) -> Iterable[Coroutine[None, None, None]]:
        """What sees to it that nobody stays whose token opens nothing any more."""
        return self.sockets.watch(self._auth), self.streams.watch(self._auth)

    def follow(self, record: Record) -> None:
        """A token that is taken back ends what it had opened, at once and not when it next says something."""
        if isinstance(record.event, TokenRevoked):
            self.sockets.stir()
            self.streams.stir()

    async def send_all_away(self) -> None:
        """Ends every connection; who was there comes back in a moment, to whoever answers then."""
        for hub in (self.sockets, self.streams):
            await hub.leave_all(Close.RESTARTING, "restarting", retry_ms=RETRY_MS)
