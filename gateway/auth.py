"""Who is asking: the owner's token, scoped tokens, the session cookie, login links, and a brake on wrong tokens.

    auth/token          the token, 0600; FINN_TOKEN takes its place and then no file is written
    auth/links/<hash>   one unused login link, named by a keyed hash of its code; holds the second in which it ends

    token ─▶ key ─┬▶ cookie     v1.<issued>.<HMAC(key, issued)>           30 days, also after a restart
                  ├▶ cookie     v2.<issued>.<id>.<HMAC(key, issued, id)>  of a scoped token, no longer than that is good
                  └▶ link hash  HMAC(key, code)                           10 minutes, also after a restart
Another token is another key, so a rotation voids cookies and links at once. Every process that holds the directory sees
a rotation with its next check, because each check looks whether the file is still the one that was read.

Scoped tokens are in the log (tokens.py), so they are known while it is open; the owner's own needs no log. What a token
may is looked up by its id each time, and never taken from what was sent.
"""

import base64
import hashlib
import hmac
import logging
import math
import os
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from starlette.requests import HTTPConnection

from gateway.address import bucket
from gateway.caller import Caller
from gateway.problem import Refused
from gateway.secret import Secret
from gateway.settings import strong_token
from gateway.tokens import Token, Tokens, is_token
from persistence.clock import Clock, Entropy
from persistence.disk import TEMPORARY, SystemDisk, refused, replace
from persistence.errors import Damaged, FinnError, UsageError

COOKIE = "finn_session"
COOKIE_S = 30 * 86400
LINK_S = 600
TOKEN_BYTES = 32
LINK_BYTES = 24
LINK = re.compile(r"[0-9a-f]{64}")  #: the name of a link's file; a crash may leave others beside it
DRAFT_BYTES = 8  #: of the name of a file that is being made
WRONG_LIMIT = 10  #: wrong tokens of one address within WRONG_WINDOW_S that are answered 401
WRONG_WINDOW_S = 60.0
MAX_ADDRESSES = 4096  #: that are remembered for their wrong tokens

COOKIE_SHAPE = re.compile(r"(?:v1\.([0-9]{1,12})|v2\.([0-9]{1,12})\.([0-9A-Z]{26}))\.[0-9a-f]{64}")

Ring = Callable[[], Tokens | None]  #: the scoped tokens; None while the log is not open

logger = logging.getLogger("finn.auth")


class Mark(NamedTuple):
    """What changes when a file is replaced."""

    inode: int
    modified_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Key:
    """A token and what follows from it."""

    token: Secret
    mark: Mark | None  #: of the file it was read from

    def matches(self, token: str) -> bool:
        """Whether it is this token, in a time that tells nothing about either."""
        return hmac.compare_digest(_sha256(token), _sha256(self.token.reveal()))

    def sign(self, purpose: str, text: str) -> str:
        return hmac.new(_sha256(self.token.reveal()), f"finn {purpose} {text}".encode(), hashlib.sha256).hexdigest()


class Brake:
    """Counts wrong tokens by address. Only the wrong ones: whoever has the right token is never held up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wrong(self, address: str) -> float | None:
        """Counts one; gives the seconds to wait where the address has used up its tries."""
        now = self._clock.monotonic()
        times = self._times(bucket(address))
        while times and times[0] <= now - WRONG_WINDOW_S:
            times.popleft()
        if len(times) == WRONG_LIMIT:
            return times[0] + WRONG_WINDOW_S - now
        times.append(now)
        return None

    def _times(self, key: str) -> deque[float]:
        times = self._wrong.setdefault(key, deque())
        self._wrong.move_to_end(key)
        if len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)
        return times


class Auth:
    """The ways in: the one owner's, and those that the owner gave to others."""

    def __init__(self, folder: Path, key: Key, *, fixed: bool, clock: Clock, entropy: Entropy) -> None:
        self._folder = folder
        self._path = folder / "token"
        self._key = key
        self._fixed = fixed
        self._clock = clock
        self._entropy = entropy
        self._generation = 0
        self._brake = Brake(clock)
        self._tokens: Ring = lambda: None

    @classmethod
    def open(cls, folder: Path, *, clock: Clock, entropy: Entropy, token: Secret | None = None) -> Self:
        """The auth of a data directory. Without a `token` of the owner's own, `folder/token` is read or made.

        Raises StorageError, or Damaged if the file does not hold a token.
        """
        if token is None and not (folder / "token").exists():
            _keep_first(folder / "token", entropy)
        key = Key(token, None) if token else _read_key(folder / "token")
        return cls(folder, key, fixed=token is not None, clock=clock, entropy=entropy)

    @property
    def token(self) -> Secret:
        return self._current().token

    @property
    def generation(self) -> int:
        """Grows when the token is another one: what was let in before has to show itself again."""
        self._current()
        return self._generation

    # ------------------------------------------------------------ requests

    def learn(self, tokens: Ring) -> None:
        """Where scoped tokens are looked up from now on."""
        self._tokens = tokens

    def identify(self, connection: HTTPConnection) -> Caller:
        """Who is asking. A bearer token, where one was sent, decides alone.

        Raises Refused `unauthorized`, `rate_limited` for one wrong token too many, and `starting` for what may be a
        scoped token while nobody can tell.
        """
        bearer = bearer_token(connection)
        if bearer is not None:
            caller = self.by_token(bearer)
            if caller is None:
                raise self.wrong(connection)
        else:
            caller = self.by_cookie(connection.cookies.get(COOKIE, ""))
        if caller is None:
            raise Refused("unauthorized", "this needs a token or a login", hint="`finn token` prints a login link")
        return caller

    def may_see_checks(self, connection: HTTPConnection) -> bool:
        """Whether /health tells its checks. A scoped token that cannot be known yet is no wrong one: it is told less.

        Raises Refused for a wrong one.
        """
        if not has_credentials(connection):
            return False
        try:
            return self.identify(connection).may("probe")
        except Refused as refused:
            if refused.code != "starting":
                raise
            return False

    def stands(self, caller: Caller, generation: int | None = None) -> bool:
        """Whether what a caller has shown opens anything still.

        `generation` is that of now, where it was looked up for many.
        """
        generation = self.generation if generation is None else generation
        if self._clock.now() >= caller.until or (_leans_on_key(caller) and caller.generation != generation):
            return False
        tokens = self._tokens()
        return caller.token is None or (tokens is not None and tokens.is_good(caller.token))

    def wrong(self, connection: HTTPConnection) -> Refused:
        """Counts a wrong token or link and gives the refusal it deserves."""
        wait = self._brake.wrong(connection.client.host if connection.client else "")
        if wait is None:
            return Refused("unauthorized", "the token or link is not valid", hint="`finn token` prints a login link")
        return Refused(
            "rate_limited",
            "too many wrong tokens from this address",
            hint=f"try again in {math.ceil(wait)} s; the right token is let in at any time",
            retry_after=wait,
        )

    def by_token(self, text: str) -> Caller | None:
        """Whose token this is; None for nobody's. Raises Refused `starting` where it cannot be known yet."""
        if self.accepts_token(text):
            return Caller("owner", "token", generation=self._generation)
        token = self._opened().find(text) if is_token(text) else None
        return Caller(token.scope, "token", token.id, self._generation, _end(token)) if token else None

    def accepts_token(self, token: str) -> bool:
        """Whether this is the owner's own token."""
        return self._current().matches(token)

    def _opened(self) -> Tokens:
        tokens = self._tokens()
        if tokens is None:
            what = "scoped tokens are not known while finn's log is not open"
            raise Refused("starting", what, hint="try again in a moment; the owner's token is known at any time")
        return tokens

    # ------------------------------------------------------------ cookies

    def new_cookie(self, token: str | None = None) -> str:
        """The value of a session cookie that begins now: of the owner, or of the scoped token with that id."""
        return self._cookie(int(self._clock.now()), token)

    def accepts_cookie(self, value: str) -> bool:
        """Whether a cookie lets anybody in. Raises Refused `starting` where that cannot be known yet."""
        return self.by_cookie(value) is not None

    def by_cookie(self, value: str) -> Caller | None:
        """Whose cookie this is; None for nobody's. Raises Refused `starting` where it cannot be known yet."""
        match = COOKIE_SHAPE.fullmatch(value)
        if match is None:
            return None
        issued, name = int(match[1] or match[2]), match[3]
        until = float(issued + COOKIE_S)
        if not hmac.compare_digest(value, self._cookie(issued, name)) or self._clock.now() >= until:
            return None
        if name is None:
            return Caller("owner", "cookie", None, self._generation, until)
        token = self._opened().get(name)
        if token is None:
            return None
        return Caller(token.scope, "cookie", name, self._generation, min(until, _end(token)))

    def _cookie(self, issued: int, token: str | None) -> str:
        text = f"v1.{issued}" if token is None else f"v2.{issued}.{token}"
        return f"{text}.{self._current().sign('cookie', text.partition('.')[2])}"

    # ------------------------------------------------------------ login links

    def login_url(self, url: str) -> str:
        """A new login link below the public URL. Raises StorageError."""
        return f"{url}/login?once={self.new_link()}"

    def new_link(self) -> str:
        """The code of a new login link: good once, for ten minutes, with every process on this directory."""
        self._forget_ended_links()
        code = base64.urlsafe_b64encode(self._entropy(LINK_BYTES)).decode()
        path = self._link(code)
        SystemDisk().mkdir(path.parent)
        replace(SystemDisk(), path, str(int(self._clock.now()) + LINK_S).encode())
        return code

    def redeem(self, code: str) -> bool:
        """Whether the link was good, which it then is no longer. It waits for the disk: call it in a thread.

        Removing the file is what uses the link up, so of two that come at once the kernel lets one win.
        """
        path = self._link(code)
        try:
            ends = _ends(path)
            path.unlink()
        except FileNotFoundError:
            return False
        SystemDisk().sync_folder(path.parent)
        return self._clock.now() < ends

    def _link(self, code: str) -> Path:
        return self._folder / "links" / self._current().sign("link", code)

    def _forget_ended_links(self) -> None:
        for name in SystemDisk().names(self._folder / "links"):
            path = self._folder / "links" / name
            with suppress(FileNotFoundError):  # used just now by another process
                if LINK.fullmatch(name) and _ends(path) <= self._clock.now():
                    path.unlink()

    # ------------------------------------------------------------ the key

    def _current(self) -> Key:
        """The key in force, read again if the file is another one. A file that holds no token changes nothing."""
        if self._fixed or (mark := _mark(self._path)) in (None, self._key.mark):
            return self._key
        try:
            changed = _read_key(self._path)
        except FinnError as error:
            logger.warning("the last good token stays in force", extra={"reason": str(error)})
            changed = Key(self._key.token, mark)
        self._generation += changed.token != self._key.token
        self._key = changed
        return changed


def rotate(folder: Path, *, entropy: Entropy, token: Secret | None = None) -> None:
    """Another token, at once and for every process on this directory.

    Raises UsageError where the `token` of FINN_TOKEN rules, and StorageError.
    """
    if token is not None:
        raise UsageError(
            "FINN_TOKEN is set, so nothing else can change the token", hint="change FINN_TOKEN and restart"
        )
    SystemDisk().mkdir(folder)
    replace(SystemDisk(), folder / "token", new_token(entropy).encode())


def bearer_token(connection: HTTPConnection) -> str | None:
    """The token of the Authorization header. Other schemes are a proxy's business and say nothing to finn."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_by_cookie(connection: HTTPConnection) -> bool:
    """Whether a request would be let in by its cookie, if at all."""
    return bearer_token(connection) is None and COOKIE in connection.cookies


def has_credentials(connection: HTTPConnection) -> bool:
    """Whether a request shows anything by which it might be let in."""
    return bearer_token(connection) is not None or COOKIE in connection.cookies


def new_token(entropy: Entropy) -> str:
    return base64.urlsafe_b64encode(entropy(TOKEN_BYTES)).decode().rstrip("=")


def set_cookie(value: str, *, secure: bool) -> str:
    """The Set-Cookie header that begins a session, or with an empty value ends it."""
    seconds = COOKIE_S if value else 0
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def _leans_on_key(caller: Caller) -> bool:
    """Whether a rotation of the owner's token ends what was shown: it signs every cookie, also a scoped token's."""
    return caller.token is None or caller.by == "cookie"


def _end(token: Token) -> float:
    """The second in which a token ends by itself."""
    return math.inf if token.expires is None else token.expires / 1000


def _ends(path: Path) -> int:
    """When a link ends; a file that does not tell is of a link that has ended. Raises FileNotFoundError."""
    try:
        return int(path.read_text(encoding="ascii"))
    except ValueError:
        return 0


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _mark(path: Path) -> Mark | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Mark(status.st_ino, status.st_mtime_ns, status.st_size)


def _read_key(path: Path) -> Key:
    """Marked before it is read: a file replaced in between is then read again, never missed."""
    mark = _mark(path)
    try:
        return Key(strong_token(path.read_text(encoding="ascii").strip()), mark)
    except OSError as error:
        raise refused(error, path) from error
    except ValueError as error:
        what = f"{path} does not hold a token: it {error}"
        raise Damaged(what, hint="`finn token --rotate` makes a new one") from None


def _keep_first(path: Path, entropy: Entropy) -> None:
    """Writes the first token. Of two processes that start at once, both keep the one that was there first."""
    disk = SystemDisk()
    draft = path.with_name(f"{TEMPORARY}{entropy(DRAFT_BYTES).hex()}")
    try:
        disk.mkdir(path.parent)
        replace(disk, draft, new_token(entropy).encode())
        with suppress(FileExistsError):
            os.link(draft, path)
        disk.unlink(draft)
        disk.sync_folder(path.parent)
    except OSError as error:
        raise refused(error, path) from error
