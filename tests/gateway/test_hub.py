"""Who is connected: told and closed together, and each for itself once what it showed opens nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.auth import Auth, rotate
from gateway.caller import Caller
from gateway.hub import Close, Hub
from persistence.clock import FakeClock, system_entropy
from persistence.events import OWNER
from tests.gateway.ring import tokens_in

PATIENCE_S = 20.0  #: for what has to happen


@dataclass(eq=False)
class Silent:
    """A guest that neither says nor is told anything."""

    left: asyncio.Event = field(default_factory=asyncio.Event)
    code: int | None = None

    async def leave(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        self.code = code
        self.left.set()


@asynccontextmanager
async def watched(hub: Hub, auth: Auth) -> AsyncIterator[None]:
    watching = asyncio.create_task(hub.watch(auth))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def test_a_revocation_shows_out_who_came_with_that_token_at_once_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.hub.WATCH_S", 2 * PATIENCE_S)  # nothing is found by looking now and then
    clock = FakeClock()
    auth = Auth.open(tmp_path / "auth", clock=clock, entropy=system_entropy)
    async with tokens_in(tmp_path / "log", clock) as tokens:
        auth.learn(lambda: tokens)
        made, other = [await tokens.create("read", "", None, OWNER) for _ in range(2)]
        hub, gone, stays, owner = Hub(), Silent(), Silent(), Silent()
        hub.enter(gone, Caller("read", "token", made.token.id))
        hub.enter(stays, Caller("read", "token", other.token.id))
        hub.enter(owner, Caller("owner", "token"))
        async with watched(hub, auth):
            await tokens.revoke(made.token.id, OWNER)
            hub.stir()
            await gone.left.wait()
        assert (gone.code, stays.code, owner.code) == (Close.UNAUTHORIZED, None, None)


async def test_a_rotation_by_another_process_shows_out_who_came_with_the_owners_token(tmp_path: Path) -> None:
    auth = Auth.open(tmp_path / "auth", clock=FakeClock(), entropy=system_entropy)
    hub, owner = Hub(), Silent()
    hub.enter(owner, Caller("owner", "token", generation=auth.generation))
    async with watched(hub, auth):
        rotate(tmp_path / "auth", entropy=system_entropy)
        await owner.left.wait()
    assert owner.code == Close.UNAUTHORIZED


async def test_one_that_has_left_is_neither_counted_nor_told() -> None:
    hub, one, other = Hub(), Silent(), Silent()
    for guest in (one, other):
        hub.enter(guest, Caller("owner", "token"))
    hub.exit(one)
    hub.exit(one)
    await hub.leave_all(Close.RESTARTING, "restarting")
    assert (len(hub), one.code, other.code) == (1, None, Close.RESTARTING)
