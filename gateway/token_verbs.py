"""`finn token create|list|revoke`: scoped tokens, wherever the log is.

    a finn runs on the data directory ─▶ its HTTP
    none runs ─────────────────────────▶ the log itself, under its lock

A new token goes to stdout alone, so that a script can keep it; what is told about it goes to stderr.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from gateway.caller import Scope
from gateway.client import Client, running
from gateway.desk import open_log, require_own_log
from gateway.routes.tokens import view
from gateway.settings import Settings
from gateway.tokens import Tokens, checked, lasting
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.errors import NotFound
from persistence.events import OWNER, Json

T = TypeVar("T")


class Far:
    """The tokens of a running gateway. Every call raises FinnError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def all(self) -> list[Json]:
        """Every token as people see it."""
        found: list[Json] = self._client.get("/api/tokens")["tokens"]
        return found

    def create(self, scope: Scope, name: str, expires: str | None) -> Json:
        """A new one with its text."""
        return self._client.post("/api/tokens", {"scope": scope, "name": name, "expires": expires})

    def revoke(self, name: str) -> None:
        """Takes one back."""
        self._client.delete(f"/api/tokens/{quote(name, safe='')}")


class Near:
    """The tokens of a data directory on which nothing runs. Looking at an empty one makes no log."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def all(self) -> list[Json]:
        async def look(tokens: Tokens) -> list[Json]:
            return [view(token, SystemClock().now()) for token in tokens.all()]

        return self._within(look) if self._has_log else []

    def create(self, scope: Scope, name: str, expires: str | None) -> Json:
        async def make(tokens: Tokens) -> Json:
            made = await tokens.create(scope, name, lasting(expires), OWNER)
            return {**view(made.token, SystemClock().now()), "token": made.text.reveal()}

        checked(scope, name, lasting(expires))
        require_own_log(self._settings)
        return self._within(make)

    def revoke(self, name: str) -> None:
        require_own_log(self._settings)
        if not self._has_log:
            raise NotFound(f"there is no token {name[:64]!r}", hint="`finn token list` shows their ids")
        self._within(lambda tokens: tokens.revoke(name, OWNER))

    @property
    def _has_log(self) -> bool:
        return (self._settings.data_dir / "wal").is_dir()

    def _within(self, ask: Callable[[Tokens], Awaitable[T]]) -> T:
        """What was asked of the tokens, with the log open for as long as that takes."""
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

        async def run() -> T:
            clock = SystemClock()
            ids = Ids(clock, system_entropy)
            journal = await open_log(self._settings, ids)
            try:
                return await ask(Tokens(journal, clock, ids, system_entropy))
            finally:
                await journal.close()

        return asyncio.run(run())


def where(settings: Settings, url: str | None) -> Far | Near:
    """The tokens of a gateway at `url`, of the one on the data directory, or of that directory itself."""
    if url is not None or running(settings.data_dir) is not None:
        return Far(Client.find(settings, url))
    return Near(settings)


# ---------------------------------------------------------------- the verbs


def _created(args: argparse.Namespace, tokens: Far | Near) -> int:
    made = tokens.create(args.scope, args.name, args.expires)
    if args.json:
        print(json.dumps(made))
        return 0
    print(made["token"])
    print(f"{made['scope']} token {made['id']}, {_ends(made)}; it is shown this once", file=sys.stderr)
    return 0


def _listed(args: argparse.Namespace, tokens: Far | Near) -> int:
    found = tokens.all()
    if args.json:
        print(json.dumps({"tokens": found}))
    else:
        for one in found:
            told = f"{one['state']:<7}  made {_day(one['created_at'])}, {_ends(one)}"
            print(f"{one['id']}  {one['scope']:<5}  {told}  {one['name']}".rstrip())
    return 0


def _revoked(args: argparse.Namespace, tokens: Far | Near) -> int:
    tokens.revoke(args.id)
    return 0


def _ends(token: Json) -> str:
    return f"ends {_day(token['expires_at'])}" if token["expires_at"] else "without an end"


def _day(stamp: Any) -> str:
    return str(stamp)[:16].replace("T", " ")


VERBS: Mapping[str, Callable[[argparse.Namespace, Far | Near], int]] = {
    "create": _created,
    "list": _listed,
    "revoke": _revoked,
}
