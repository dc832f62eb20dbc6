"""The settings: one table, read once, from the command line, the environment and `.env` in the data directory.

    flags ─▶ environment ─▶ DATA_DIR/.env ─▶ default     the first that says something wins; empty is nothing said

This is the only file that reads the environment. `read` gives frozen values or raises UsageError (exit 2) naming the
setting; what is odd but harmless is a sentence in `Settings.problems`. `scrub` then takes the secrets out of the
environment, so that no child process inherits one.

`.env` holds lines `KEY=VALUE`: `export` before it and comments are allowed, 'single quotes' take all as it stands, in
"double quotes" \\n, \\" and \\\\ are escapes.
"""

import math
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast

from gateway.address import Network, is_loopback
from gateway.logs import LEVELS
from gateway.places import Hook, Remote, endpoint, git_branch, git_remote, hook, size, store_url, without_credentials
from gateway.secret import Secret
from persistence.errors import UsageError

TOKEN_BITS = 128  #: what a token has to hold
TOKEN_SYMBOLS = 8  #: different characters, below which length proves nothing
NEAR = 2  #: letters between an unknown name and a known one that make it a slip of the pen
USUAL_PORT = MappingProxyType({"http": "80", "https": "443"})
HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
UNIT_S = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86400})
NOTHING_SAID: Mapping[str, str | None] = MappingProxyType({})

T = TypeVar("T")


# ---------------------------------------------------------------- parsers: text to value, ValueError says what is wrong


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"is one of {', '.join(choices)}")
        return text.lower()

    return parse


def matching(pattern: str, what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(what)
        return text

    return parse


def listed(parse_item: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def parse(text: str) -> tuple[T, ...]:
        return tuple(parse_item(item.strip()) for item in text.split(",") if item.strip())

    return parse


def port_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("is a number from 0 to 65535")
    return int(text)


def duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h`, `90d`."""
    if not re.fullmatch(r"[0-9]{1,9}[smhd]", text):
        raise ValueError("is a duration like 30s, 5m, 1h or 90d")
    return float(int(text[:-1]) * UNIT_S[text[-1]])


def interval(text: str) -> float:
    """A duration that takes time."""
    seconds = duration(text)
    if not seconds:
        raise ValueError("is at least 1s")
    return seconds


def directory(text: str) -> Path:
    return Path(text).expanduser().absolute()


def listen_host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,253}", host):
        raise ValueError("is an address or a host name, without a port")
    return host


def network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("is a list of addresses or networks, like 10.0.0.7 or 10.0.0.0/8") from None


def strong_token(text: str) -> Secret:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is printable ASCII without spaces")
    if token_bits(text) < TOKEN_BITS or len(set(text)) < TOKEN_SYMBOLS:
        raise ValueError(f"has fewer than {TOKEN_BITS} bits; `openssl rand -hex 32` makes a good one")
    return Secret(text)


def token_bits(text: str) -> float:
    """The most that a text of this length over these kinds of characters can hold."""
    if set(text) <= set(string.hexdigits):
        return len(text) * 4.0
    kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation)
    alphabet = sum(len(kind) for kind in kinds if set(kind) & set(text))
    return len(text) * math.log2(alphabet or 1)


def host_name(text: str) -> str:
    """`finn.example` or `finn.example:8443`, as a Host header has it."""
    if not re.fullmatch(rf"{HOST}(:[0-9]{{1,5}})?", text):
        raise ValueError("is a list of hosts, like finn.example or 10.0.0.7:8080, without scheme, path or *")
    return text.lower()


def origin(text: str) -> str:
    """`https://finn.example`, lower case and without the port that goes without saying."""
    match = re.fullmatch(rf"(https?)://({HOST})(?::([0-9]{{1,5}}))?/?", text.lower())
    if not match:
        raise ValueError("is written like https://finn.example or http://10.0.0.7:8080, without a path")
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port in (None, USUAL_PORT[scheme]) else f"{scheme}://{host}:{port}"


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table. `parse` raises ValueError with a clause that continues `NAME …`."""

    name: str
    default: str | None
    help: str
    parse: Callable[[str], Any]
    secret: bool = False
    also: str | None = None  #: another name that is read, of lesser weight
    also_means: str = "{}"  #: what the value of that other name says
    shown: str = ""  #: what the documentation says in place of the default

    @property
    def field(self) -> str:
        """The attribute of Settings."""
        return self.name.lower().removeprefix("finn_")


SETTINGS: tuple[Setting, ...] = (
    Setting("FINN_DATA_DIR", "~/.finn", "where everything is kept; not allowed inside `.env`", directory),
    Setting(
        "FINN_HOST",
        "127.0.0.1",
        "the address to listen on; one that is not loopback needs `FINN_TOKEN`, "
        "and `FINN_PUBLIC_URL` or `FINN_ALLOWED_HOSTS`",
        listen_host,
    ),
    Setting("FINN_PORT", "8080", "the port; `PORT` is read too; 0 takes a free one", port_number, also="PORT"),
    Setting(
        "FINN_TOKEN",
        None,
        "the owner's token, at least 128 bits",
        strong_token,
        secret=True,
        shown="made and kept, mode 0600",
    ),
    Setting(
        "FINN_PUBLIC_URL",
        None,
        "what people type: gives the allowed Host, the own Origin, the cookie's Secure flag and the login link",
        origin,
        shown="`http://HOST:PORT`",
    ),
    Setting("FINN_ALLOWED_HOSTS", "", "further Hosts, with commas between them", listed(host_name)),
    Setting("FINN_ALLOWED_ORIGINS", "", "further Origins, with commas between them", listed(origin)),
    Setting(
        "FINN_TRUSTED_PROXIES",
        "",
        "addresses and networks whose `X-Forwarded-*` headers count; nobody else's do",
        listed(network),
    ),
    Setting(
        "FINN_AGENT_ID",
        "main",
        "the agent's name: in health, below the store's URL, in the archive's branch",
        matching(r"[a-z0-9][a-z0-9-]{0,62}", "is up to 63 lower case letters, digits and hyphens"),
    ),
    Setting(
        "FINN_RELEASE",
        None,
        "what is deployed, shown in health and kept with the copies",
        matching(r"[!-~]{1,128}", "is up to 128 printable characters without spaces"),
        shown="the version",
    ),
    Setting(
        "FINN_MODEL",
        None,
        "`builtin`, `anthropic:NAME`, `openai:NAME` or `scripted:FILE`",
        matching(r"builtin|(anthropic|openai|scripted):.+", "is builtin, anthropic:NAME, openai:NAME or scripted:FILE"),
        shown="see below",
    ),
    Setting(
        "FINN_MODEL_BASE_URL",
        None,
        "another server that speaks the wire of `FINN_MODEL`",
        matching(r"https?://[!-~]+", "is a URL that begins with http:// or https://"),
    ),
    Setting(
        "FINN_SANDBOX",
        "auto",
        "where `bash` runs: `auto`, `bwrap`, `landlock` or `none`; `auto` refuses bash where no sandbox works, "
        "`none` runs it without a wall",
        one_of("auto", "bwrap", "landlock", "none"),
    ),
    Setting("FINN_SANDBOX_NETWORK", "off", "whether commands in the sandbox reach the network", one_of("off", "on")),
    Setting("FINN_SHUTDOWN_BUDGET", "8s", "how long a clean stop may take", duration),
    Setting("FINN_LOG_LEVEL", "info", "how much is logged: `debug`, `info`, `warning` or `error`", one_of(*LEVELS)),
    Setting(
        "FINN_STORE_URL",
        None,
        "where the log is copied to: `s3://bucket/prefix` or `file:///dir`; `BUCKET_NAME` is read too",
        store_url,
        also="BUCKET_NAME",
        also_means="s3://{}",
        shown="none",
    ),
    Setting(
        "FINN_DURABILITY",
        "local",
        "what an acknowledgement waits for: `local`, this machine's disk, or `store`",
        one_of("local", "store"),
    ),
    Setting("FINN_SYNC_INTERVAL", "30s", "the longest a record waits for the store; normally under a second", interval),
    Setting("FINN_ARCHIVE_INTERVAL", "1h", "how often a commit is made in git, where something changed", interval),
    Setting(
        "FINN_STALE_BEADS_AFTER",
        "24h",
        "after how long without a change a bead in progress is labelled `stale:true` and reported",
        interval,
    ),
    Setting(
        "FINN_GIT_REMOTE",
        None,
        "where the archive is pushed to; a token or password in it is kept apart and never shown",
        git_remote,
        secret=True,
        shown="none",
    ),
    Setting("FINN_GIT_BRANCH", None, "the archive's branch", git_branch, shown="`state/AGENT_ID`"),
    Setting(
        "FINN_WORKSPACE_FILE_MAX",
        "8MB",
        "a larger file in `workspace/` or `grimoires/` stays on this disk only, and is reported",
        size,
    ),
    Setting(
        "FINN_WORKSPACE_MAX",
        "1GB",
        "how much of each of the two is kept in all; what comes beyond it is left out likewise",
        size,
    ),
    Setting(
        "FINN_ALERT_URL",
        None,
        "an https webhook that is told when something turns bad, and when it is well again; never shown whole",
        hook,
        secret=True,
        shown="none",
    ),
    Setting(
        "FINN_PING_URL",
        None,
        "an https address that is asked each minute while finn works, so that its silence is noticed",
        hook,
        secret=True,
        shown="none",
    ),
    Setting("AWS_ACCESS_KEY_ID", None, "the key for `s3://`", Secret, secret=True),
    Setting("AWS_SECRET_ACCESS_KEY", None, "its secret half", Secret, secret=True),
    Setting("AWS_SESSION_TOKEN", None, "what a temporary key needs besides", Secret, secret=True),
    Setting(
        "AWS_REGION",
        None,
        "the bucket's region; `AWS_DEFAULT_REGION` is read too",
        matching(r"[A-Za-z0-9-]{1,64}", "is a region like eu-central-1 or auto"),
        also="AWS_DEFAULT_REGION",
    ),
    Setting(
        "AWS_ENDPOINT_URL_S3",
        None,
        "a store that is not Amazon's; `AWS_ENDPOINT_URL` is read too",
        endpoint,
        also="AWS_ENDPOINT_URL",
    ),
    Setting("ANTHROPIC_API_KEY", None, "the key for `anthropic:`", Secret, secret=True),
    Setting("OPENAI_API_KEY", None, "the key for `openai:`", Secret, secret=True),
)

KNOWN = frozenset(setting.name for setting in SETTINGS)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How people reach finn on a port: what they type, and what their browser may then say of itself."""

    url: str
    hosts: frozenset[str]
    origins: frozenset[str]
    secure: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of this start. Each field is the line of SETTINGS of that name."""

    data_dir: Path
    host: str
    port: int
    token: Secret | None
    public_url: str | None
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[Network, ...]
    agent_id: str
    release: str | None
    model: str | None
    model_base_url: str | None
    sandbox: Literal["auto", "bwrap", "landlock", "none"]
    sandbox_network: Literal["off", "on"]
    shutdown_budget: float
    log_level: str
    store_url: str | None
    durability: Literal["local", "store"]
    sync_interval: float
    archive_interval: float
    stale_beads_after: float
    git_remote: Remote | None
    git_branch: str | None
    workspace_file_max: int
    workspace_max: int
    alert_url: Hook | None
    ping_url: Hook | None
    aws_access_key_id: Secret | None
    aws_secret_access_key: Secret | None
    aws_session_token: Secret | None
    aws_region: str | None
    aws_endpoint_url_s3: str | None
    anthropic_api_key: Secret | None
    openai_api_key: Secret | None
    problems: tuple[str, ...]

    @property
    def secrets(self) -> Mapping[str, str]:
        """Every secret by the name of its setting, for redaction."""
        values = {setting.name: getattr(self, setting.field) for setting in SETTINGS if setting.secret}
        hidden = {name: value.reveal() for name, value in values.items() if value}
        return {name: value for name, value in hidden.items() if value}

    @property
    def archive_branch(self) -> str:
        """The branch of the archive; each agent has its own."""
        return self.git_branch or f"state/{self.agent_id}"

    def entrance(self, port: int) -> Entrance:
        """The way in when finn listens on `port` (which FINN_PORT=0 leaves open)."""
        own = self.public_url or f"http://{bracketed(self.host)}:{port}"
        loopback = (bracketed(self.host), "localhost", "127.0.0.1", "[::1]") if is_loopback(self.host) else ()
        local = [f"http://{host}:{port}" for host in loopback]
        named = [f"{scheme}://{host}" for host in self._named_hosts(port) for scheme in USUAL_PORT]
        origins = [origin(each) for each in (own, *local, *named)]
        return Entrance(
            url=origin(own),
            hosts=frozenset(spelling for each in origins for spelling in _spellings(each)),
            origins=frozenset({*origins, *self.allowed_origins}),
            secure=own.startswith("https://"),
        )

    def _named_hosts(self, port: int) -> Iterator[str]:
        """FINN_ALLOWED_HOSTS; a name without a port is meant with ours and, behind a proxy, with none."""
        for host in self.allowed_hosts:
            yield host
            if not re.search(r":[0-9]+$", host):
                yield f"{host}:{port}"


def bracketed(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host.lower()


def _spellings(of: str) -> tuple[str, ...]:
    """The Host headers of an origin: clients may name the usual port or leave it out."""
    scheme, host = of.split("://")
    return (host,) if re.search(r":[0-9]+$", host) else (host, f"{host}:{USUAL_PORT[scheme]}")


# ---------------------------------------------------------------- reading


def read(environ: Mapping[str, str] = os.environ, flags: Mapping[str, str | None] = NOTHING_SAID) -> Settings:
    """The settings of a start. `flags` maps names of settings to what the command line says, or None.

    Raises UsageError; touches nothing.
    """
    said = {**_said(environ), **_said(flags)}
    data_dir = _parse(SETTINGS[0], said)
    written = _said(read_env_file(data_dir / ".env"))
    if "FINN_DATA_DIR" in written:
        raise UsageError(f"FINN_DATA_DIR stands in {data_dir / '.env'}", hint="set it in the environment")
    everything = {**written, **said}
    values = {setting.field: _parse(setting, everything) for setting in SETTINGS}
    settings = Settings(
        **values, problems=(*_name_problems(everything), *_key_problems(values), *_copy_problems(values))
    )
    _require_sense(settings)
    return settings


def read_leniently(
    environ: Mapping[str, str] | None = None, flags: Mapping[str, str | None] = NOTHING_SAID
) -> tuple[Settings, tuple[UsageError, ...]]:
    """The settings as far as they can be used, for who looks at what is wrong, and all that `read` would not take.

    Nobody is to be served with them where anything was wrong. Touches nothing, raises nothing.
    """
    wrong: list[UsageError] = []
    nothing: tuple[str, ...] = ()

    def attempt(step: Callable[[], T], instead: T) -> T:
        try:
            return step()
        except UsageError as error:
            wrong.append(error)
            return instead

    said = {**_said(os.environ if environ is None else environ), **_said(flags)}
    data_dir = _parse(SETTINGS[0], said)
    written = _said(attempt(lambda: read_env_file(data_dir / ".env"), {}))
    if written.pop("FINN_DATA_DIR", None):
        wrong.append(UsageError(f"FINN_DATA_DIR stands in {data_dir / '.env'}", hint="set it in the environment"))
    everything = {**written, **said}
    values = {one.field: attempt(partial(_parse, one, everything), _parse(one, {})) for one in SETTINGS}
    names = attempt(lambda: tuple(_name_problems(everything)), nothing)
    settings = Settings(**values, problems=(*names, *_key_problems(values), *_copy_problems(values)))
    attempt(lambda: _require_sense(settings), None)
    return settings, tuple(wrong)


def coloured(terminal: bool, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is printed may have colours: on a terminal that knows them, and to somebody who wants them."""
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def scrub(environ: MutableMapping[str, str] = os.environ) -> None:
    """Takes the secrets out of the environment, once they are read, so that no child inherits them."""
    for setting in SETTINGS:
        if setting.secret:
            environ.pop(setting.name, None)


def _said(source: Mapping[str, str | None]) -> dict[str, str]:
    """What one source says; within it, the other name of a setting counts where its own says nothing."""
    said = {name: value for name, value in source.items() if value}
    other = {
        setting.name: setting.also_means.format(said[setting.also]) for setting in SETTINGS if setting.also in said
    }
    return {**other, **said}


def _parse(setting: Setting, said: Mapping[str, str]) -> Any:
    value = said.get(setting.name, setting.default)
    if value is None:
        return None
    try:
        return setting.parse(value)
    except ValueError as error:
        shown = "" if setting.secret else f" and not {without_credentials(value)!r}"
        raise UsageError(f"{setting.name} {error}{shown}", hint="see docs/settings.md") from None


def _name_problems(said: Mapping[str, str]) -> Iterator[str]:
    """Names that this release does not use. Raises UsageError for one that looks like a slip of the pen."""
    for name in sorted(said):
        if name.startswith("FINN_") and name not in KNOWN:
            nearest = min(KNOWN, key=lambda known: (distance(name, known), known))
            if distance(name, nearest) <= NEAR:
                raise UsageError(f"{name} is not a setting", hint=f"did you mean {nearest}?")
            yield f"{name} is not a setting of this release and was ignored"


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    wire = (values["model"] or "").partition(":")[0]
    if wire in ("anthropic", "openai") and not values[f"{wire}_api_key"] and not values["model_base_url"]:
        yield f"FINN_MODEL is {values['model']}, but {wire.upper()}_API_KEY is not set"


def _copy_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What would leave the copies without effect."""
    if bool(values["aws_access_key_id"]) != bool(values["aws_secret_access_key"]):
        yield "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set; they belong together"
    if values["workspace_file_max"] > values["workspace_max"]:
        yield "FINN_WORKSPACE_FILE_MAX is larger than FINN_WORKSPACE_MAX"


def _require_sense(settings: Settings) -> None:
    """The rules between settings. Raises UsageError."""
    if settings.model_base_url and not settings.model:
        raise UsageError("FINN_MODEL_BASE_URL is set without FINN_MODEL", hint="say which model that server is to run")
    if settings.durability == "store" and not settings.store_url:
        raise UsageError("FINN_DURABILITY is store, and FINN_STORE_URL is not set", hint="say where the store is")
    _require_apart(settings)
    if is_loopback(settings.host):
        return
    exposed = f"FINN_HOST={settings.host} is reachable from other machines"
    if settings.token is None:
        raise UsageError(f"{exposed}, and FINN_TOKEN is not set", hint="`openssl rand -hex 32` makes a good one")
    if not settings.public_url and not settings.allowed_hosts:
        raise UsageError(
            f"{exposed}, and neither FINN_PUBLIC_URL nor FINN_ALLOWED_HOSTS is set", hint="say what people will type"
        )
    if settings.model and settings.model.startswith("scripted:"):
        raise UsageError(f"{exposed}, and FINN_MODEL is {settings.model}", hint="a script answers on loopback only")


def _require_apart(settings: Settings) -> None:
    """A store inside the data directory would be lost with it. Raises UsageError."""
    scheme, _, place = (settings.store_url or "").partition("://")
    if scheme == "file" and Path(place).is_relative_to(settings.data_dir):
        raise UsageError(f"FINN_STORE_URL lies inside {settings.data_dir}", hint="a copy belongs on another disk")


def distance(one: str, other: str) -> int:
    """How many letters have to be put in, taken out or changed to make one name of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


# ---------------------------------------------------------------- .env

LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>(?!['"]).*?))\s*(?:(?:(?<=\s)|(?<=['"]))\#.*)?""",
    re.VERBOSE,
)
ESCAPES = MappingProxyType({"n": "\n", "t": "\t"})


def read_env_file(path: Path) -> dict[str, str]:
    """What a `.env` file says; nothing if there is none. Raises UsageError naming the line, never what it holds."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="mend it or take it away") from None
    found = (_read_line(path, number, line) for number, line in enumerate(lines, 1))
    return dict(pair for pair in found if pair)


def _read_line(path: Path, number: int, line: str) -> tuple[str, str] | None:
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    match = LINE.fullmatch(line)
    if not match:
        raise UsageError(f"{path} line {number} is not KEY=VALUE", hint="quote a value that holds spaces or #")
    name, single, double, bare = match.group("name", "single", "double", "bare")
    if double is not None:
        return name, re.sub(r"\\(.)", lambda escape: ESCAPES.get(escape[1], escape[1]), double)
    return name, cast(str, single if single is not None else bare)


# ---------------------------------------------------------------- documentation


def table() -> str:
    """The settings as docs/settings.md lists them."""
    rows = (f"| `{setting.name}` | {_shown(setting)} | {setting.help} |" for setting in SETTINGS)
    return "\n".join(("| name | default | what it does |", "|---|---|---|", *rows)) + "\n"


def _shown(setting: Setting) -> str:
    return setting.shown or (f"`{setting.default}`" if setting.default else "")
