"""What the doctor is told of a data directory: from the settings, be they usable or not, with finn up or down.

    environment, .env, flags ─▶ effective settings, what is odd, what `finn serve` would refuse
    run.json, the process's table, one question ─▶ whether a finn runs here, and whether it answers
    auth/token ─▶ what is known of the token, never the token

Nothing is written, and nothing but the running finn is asked.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from gateway.bead_mending import Mend, alone
from gateway.chosen import chosen_of
from gateway.client import running as alive
from gateway.folds import FOLDS
from gateway.places import Hook
from gateway.settings import NOTHING_SAID, SETTINGS, Settings, read_leniently, token_bits
from gateway.sources import remote_of, store_of
from persistence.clock import Clock, SystemClock
from persistence.disk import Disk, SystemDisk
from persistence.errors import UsageError
from persistence.redact import Redactor
from persistence.replay import Paths
from persistence.values import Json
from scheduler.site import Running, Site

ACT_S = 60.0  #: for what a running finn is asked to do
ASK_S = 2.0  #: how long a finn that runs may take to say that it does


def site_of(environ: Mapping[str, str] | None = None, flags: Mapping[str, str | None] = NOTHING_SAID) -> Site:
    """The place that these settings mean, as it is now, seen from outside of any finn. Raises nothing."""
    settings, wrong = read_leniently(environ, flags)
    running = running_on(settings.data_dir)
    change = alone(settings) if running is None else None
    return plain_site(settings, wrong, running, again=lambda: site_of(environ, flags), change=change)


def plain_site(
    settings: Settings,
    wrong: tuple[UsageError, ...] = (),
    running: Running | None = None,
    *,
    again: Callable[[], Site],
    disk: Disk | None = None,
    clock: Clock | None = None,
    facts: Mapping[str, Json] | None = None,
    acts: Mapping[str, Callable[[], None]] | None = None,
    change: Mend | None = None,
) -> Site:
    """The place that settings mean, whoever looks at it."""
    return Site(
        paths=Paths(settings.data_dir),
        disk=disk or SystemDisk(),
        clock=clock or SystemClock(),
        settings=plain(settings),
        problems=settings.problems,
        refusal="; ".join(map(str, wrong)),
        token=token_facts(settings),
        public_url=settings.public_url or "",
        running=running,
        facts=facts or {},
        store=partial(store_of, settings) if settings.store_url else None,  # type: ignore[arg-type]
        acts=acts or {},
        keys=frozenset(settings.secrets),
        again=again,
        remote=remote_of(settings),
        branch=settings.archive_branch,
        release=settings.release or "",
        chosen=chosen_of(settings),
        redactor=Redactor({**settings.secrets, **_kept_token(settings.data_dir)}),
        folds=FOLDS,
        hooks={one.name: hook.origin for one in SETTINGS if isinstance(hook := getattr(settings, one.field), Hook)},
        change=change,
    )


def plain(settings: Settings) -> Mapping[str, Json]:
    """The effective settings by their name; of what is secret, nothing but the address of the remote."""
    shown = {one.name: _plain(getattr(settings, one.field)) for one in SETTINGS if not one.secret}
    return {**shown, "FINN_GIT_REMOTE": settings.git_remote.url if settings.git_remote else None}


def _plain(value: object) -> Json:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return [_plain(one) for one in value]
    return str(value)


# ---------------------------------------------------------------- the token


def token_facts(settings: Settings) -> Mapping[str, Json]:
    """{source: setting | file | none | unreadable, bits}: how good the token is that opens this finn."""
    if settings.token is not None:
        return {"source": "setting", "bits": token_bits(settings.token.reveal())}
    path = settings.data_dir / "auth" / "token"
    try:
        return {"source": "file", "bits": token_bits(path.read_text(encoding="ascii").strip())}
    except FileNotFoundError:
        return {"source": "none", "bits": 0.0}
    except (OSError, UnicodeDecodeError):
        return {"source": "unreadable", "bits": 0.0}


def _kept_token(data_dir: Path) -> dict[str, str]:
    try:
        return {"FINN_TOKEN": (data_dir / "auth" / "token").read_text(errors="replace").strip()}
    except OSError:
        return {}


# ---------------------------------------------------------------- who runs here


def running_on(data_dir: Path) -> Running | None:
    """The finn that has the log of a directory, by its own note; None where no process of that number lives."""
    note = alive(data_dir)
    if note is None:
        return None
    epoch = note.get("epoch")
    return Running(int(note["pid"]), str(note["url"]), epoch if isinstance(epoch, int) else None, _lives(note["url"]))


def _lives(url: str) -> bool:
    """Whether somebody answers there as a finn does."""
    from http.client import HTTPSConnection

    try:
        where = urlsplit(url)
        make = HTTPSConnection if where.scheme == "https" else HTTPConnection
        connection = make(where.hostname or "", where.port, timeout=ASK_S)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().read(16) == b"ok"
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError):
        return False
