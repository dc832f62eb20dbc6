"""The command line: `finn serve` runs the agent, the other commands ask it or look at its files.

    finn serve ──────────────▶ gateway/app.py
    finn chat, status, sessions ─▶ gateway/client.py ─▶ HTTP and WebSocket of the running gateway (run.json, auth/token)
    finn verify, token ──────▶ the data directory itself, and the store
    finn token create, … ────▶ gateway/token_verbs.py
    finn restore ────────────▶ gateway/rebuild.py
    finn doctor ─────────────▶ gateway/diagnosis.py
    finn beads ──────────────▶ gateway/beads.py

Errors go to stderr as `finn: WHAT (HINT)`, with --json as the problem object of HTTP. Exit codes: 0, 1, 2 for usage.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from gateway.beads import add_beads
from gateway.terminal import Tame
from persistence.errors import FinnError, UsageError

PACKAGES = ("agent", "gateway", "grimoires", "persistence", "scheduler")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. What it prints steers no terminal, whoever wrote it."""
    with redirect_stdout(cast(TextIO, Tame(sys.stdout))), redirect_stderr(cast(TextIO, Tame(sys.stderr))):
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    os.umask(0o077)  # whatever a command makes is for its owner alone
    try:
        require_own_packages()
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except FinnError as error:
        _tell(error, as_json=getattr(args, "json", False))
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        _silence()  # the reader of our output is gone, and that is its right
        return 0
    except OSError as error:
        _silence()
        print(f"finn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _silence() -> None:
    """What is still to be printed goes nowhere; the end of the process would fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _tell(error: FinnError, *, as_json: bool) -> None:
    if as_json:
        from gateway.problem import describe

        print(json.dumps(describe(error)))
    print(f"finn: {error}", file=sys.stderr)


def require_own_packages() -> None:
    """Another program's `agent` or `gateway` in the same environment would be imported in place of ours."""
    from importlib.util import find_spec

    homes = {Path(spec.origin).parent.parent for name in PACKAGES if (spec := find_spec(name)) and spec.origin}
    if len(homes) != 1:
        found = ", ".join(sorted(map(str, homes)))
        raise UsageError(
            f"finn's packages come from several places: {found}", hint="install finn in an environment of its own"
        )


# ---------------------------------------------------------------- the commands


def parser() -> argparse.ArgumentParser:
    """Every command, with an example in its help."""
    top = argparse.ArgumentParser(
        prog="finn", description="A persistent agent that one person owns.", epilog="example: finn serve --port 8080"
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    serve = _command(commands, "serve", _serve, "run the agent", "finn serve --data-dir ~/.finn --port 8080")
    serve.add_argument("--host", help="the address to listen on (127.0.0.1)")
    serve.add_argument("--port", help="the port (8080; 0 takes a free one)")
    _data_dir(serve)

    chat = _command(commands, "chat", _chat, "talk to the running agent", 'finn chat "what do you remember about tea"')
    chat.add_argument("text", nargs="?", help="what to say; without it a conversation begins")
    chat.add_argument("--session", help="the session to go on with; a new one otherwise")
    chat.add_argument("--url", help="where finn is; taken from the data directory otherwise")
    _data_dir(chat)

    status = _command(commands, "status", _status, "one screen about how it is", "finn status --json")
    _data_dir(status)
    _json(status)

    checkup = _command(commands, "doctor", _doctor, "find what is broken, and mend it", "finn doctor --fix")
    either = checkup.add_mutually_exclusive_group()
    either.add_argument("--fix", action="store_true", help="mend what can be mended; what it replaces is kept")
    either.add_argument("--undo", metavar="ID", help="put back what a fix replaced")
    checkup.add_argument("--only", metavar="CATEGORY,…", help="look at these subjects alone")
    checkup.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="how it is told (text)")
    checkup.add_argument("--fail-on", choices=("warn", "fail"), default="fail", help="from where on it exits 1 (fail)")
    _data_dir(checkup)

    verify = _command(commands, "verify", _verify, "prove every checksum of the log", "finn verify --store")
    verify.add_argument("--store", action="store_true", help="also read and prove all that the store keeps")
    _data_dir(verify)
    _json(verify)

    restore = _command(commands, "restore", _restore, "rebuild from a copy", "finn restore --to ~/finn-again")
    restore.add_argument("--to", required=True, metavar="DIR", help="the data directory to make; an empty folder")
    restore.add_argument("--from", dest="source", choices=("auto", "store", "git"), default="auto", help="which copy")
    restore.add_argument("--at", type=int, metavar="SEQ", help="up to this record, as far back as the store keeps")
    _data_dir(restore)
    _json(restore)

    token = _command(commands, "token", _token, "print a login link; scoped tokens", "finn token --rotate")
    token.add_argument("--rotate", action="store_true", help="make another token; every cookie and link is void")
    _data_dir(token)
    _token_verbs(token.add_subparsers(metavar="VERB"))

    sessions = _command(commands, "sessions", None, "list, show and export sessions", "finn sessions list --json")
    verbs = sessions.add_subparsers(required=True, metavar="VERB")
    listed = _command(verbs, "list", _sessions_list, "the sessions, newest first", "finn sessions list --limit 20")
    listed.add_argument("--limit", type=int, default=100, help="how many (1 to 1000)")
    shown = _command(verbs, "show", _sessions_show, "one session's messages", "finn sessions show 01K…")
    shown.add_argument("id")
    exported = _command(
        verbs, "export", _sessions_export, "a session as a file", "finn sessions export 01K… --format md"
    )
    exported.add_argument("id")
    exported.add_argument("--format", choices=("md", "jsonl"), default="md", help="jsonl is a Pi session")
    for verb in (listed, shown, exported):
        _data_dir(verb)
        verb.add_argument("--url", help="where finn is; taken from the data directory otherwise")
    _json(listed)
    _json(shown)
    add_beads(_command(commands, "beads", None, "tracked work, as br keeps it", "finn beads ready --json"))
    return top


def _token_verbs(verbs: Any) -> None:
    example = "finn token create --scope probe --expires 90d --name prometheus"
    create = _command(verbs, "create", _scoped, "a token that opens only so much; it is shown once", example)
    create.add_argument("--scope", required=True, choices=("probe", "read", "chat", "owner"), help="what it opens")
    create.add_argument("--expires", metavar="90d", help="for how long it is good; otherwise until it is revoked")
    create.add_argument("--name", default="", help="what it is for, for your own eyes")
    listed = _command(verbs, "list", _scoped, "every scoped token, without its text", "finn token list --json")
    revoke = _command(verbs, "revoke", _scoped, "a token opens nothing any more, at once", "finn token revoke 01K…")
    revoke.add_argument("id")
    for name, verb in (("create", create), ("list", listed), ("revoke", revoke)):
        verb.set_defaults(verb=name)
        verb.add_argument("--url", help="where finn is; taken from the data directory otherwise")
        verb.add_argument("--data-dir", metavar="DIR", default=argparse.SUPPRESS, help="where everything is kept")
        _json(verb)


def _command(
    commands: Any, name: str, run: Callable[..., int] | None, does: str, example: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=does, description=does, epilog=f"example: {example}")
    if run is not None:
        made.set_defaults(run=run)
    return made


def _data_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", metavar="DIR", help="where everything is kept (~/.finn)")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="for programs")


def _version() -> str:
    from importlib.metadata import version

    return f"finn {version('finn')}"


# ---------------------------------------------------------------- serve


def _serve(args: argparse.Namespace) -> int:
    from gateway import serve, settings

    flags = {"FINN_HOST": args.host, "FINN_PORT": args.port, "FINN_DATA_DIR": args.data_dir}
    return serve.serve(settings.read(flags=flags))


# ---------------------------------------------------------------- asking the running gateway


def _client(args: argparse.Namespace) -> Any:
    from gateway.client import Client

    return Client.find(_settings(args), getattr(args, "url", None))


def _looking(args: argparse.Namespace) -> Any:
    from gateway.client import LOOK_S, Client

    return Client.find(_settings(args), None, LOOK_S)


def _settings(args: argparse.Namespace) -> Any:
    from gateway import settings

    return settings.read(flags={"FINN_DATA_DIR": args.data_dir})


def _chat(args: argparse.Namespace) -> int:
    from gateway.console import converse, say

    client = _client(args)
    session = args.session or client.post("/api/sessions", {})["id"]
    return say(client, session, args.text) if args.text else converse(client, session)


def _status(args: argparse.Namespace) -> int:
    from gateway.screen import screen
    from persistence.clock import SystemClock

    client = _looking(args)
    health = client.get("/health", accept=(200, 503))
    answer = client.get("/api/storage", accept=(200, 404, 503))
    storage = answer if "tiers" in answer else None  # it starts, waits behind a fence, or is of an earlier release
    tasks = client.get("/api/tasks", accept=(200, 404, 503)).get("tasks")
    if args.json:
        print(json.dumps({**health, "storage": storage, "tasks": tasks}))
    else:
        print(screen(health, storage, tasks, SystemClock().now()))
    return 1 if health["status"] == "fail" else 0


def _sessions_list(args: argparse.Namespace) -> int:
    found = _client(args).get(f"/api/sessions?limit={args.limit}")
    if args.json:
        print(json.dumps(found))
    else:
        for one in found["sessions"]:
            print(f"{one['id']}  {one['updated_at'][:16].replace('T', ' ')}  {one['messages']:>5}  {one['title']}")
    return 0


def _sessions_show(args: argparse.Namespace) -> int:
    from gateway.console import pages

    client, shown = _client(args), []
    for message in pages(client, args.id):
        if args.json:
            shown.append(message)
        else:
            print(f"[{message['role']}] {message['text']}\n")
    if args.json:
        print(json.dumps({"messages": shown}))
    return 0


def _sessions_export(args: argparse.Namespace) -> int:
    from urllib.parse import quote

    data = _client(args).download(f"/api/sessions/{quote(args.id, safe='')}/export?format={args.format}")
    sys.stdout.buffer.write(data)
    return 0


# ---------------------------------------------------------------- the data directory itself


def _doctor(args: argparse.Namespace) -> int:
    from gateway.diagnosis import doctor

    return doctor(args)


def _verify(args: argparse.Namespace) -> int:
    from gateway.proof import told, verify

    found = verify(_settings(args), store=args.store)
    print(json.dumps(found) if args.json else "\n".join(told(found)))
    return 0 if found["ok"] else 1


def _restore(args: argparse.Namespace) -> int:
    from gateway.rebuild import rebuild, told

    found = rebuild(_settings(args), Path(args.to), args.source, args.at)
    print(json.dumps(found) if args.json else "\n".join(told(found, args.to)))
    return 1 if found["problems"] else 0


def _token(args: argparse.Namespace) -> int:
    from gateway.auth import Auth, rotate
    from gateway.client import running
    from persistence.clock import SystemClock, system_entropy

    settings = _settings(args)
    folder = settings.data_dir / "auth"
    if args.rotate:
        rotate(folder, entropy=system_entropy, token=settings.token)
    auth = Auth.open(folder, clock=SystemClock(), entropy=system_entropy, token=settings.token)
    now = running(settings.data_dir)
    print(auth.login_url(now["url"] if now else settings.entrance(settings.port).url))
    return 0


def _scoped(args: argparse.Namespace) -> int:
    from gateway.token_verbs import VERBS, where

    if args.rotate:
        raise UsageError(f"--rotate does not go with {args.verb}", hint="say it alone: finn token --rotate")
    return VERBS[args.verb](args, where(_settings(args), args.url))


if __name__ == "__main__":
    sys.exit(main())
