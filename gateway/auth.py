"""Who is asking: the owner's token, the session cookie, single-use login links, and a brake on wrong tokens.

    auth/token          the token, 0600; FINN_TOKEN takes its place and then no file is written
    auth/links/<hash>   one unused login link, named by a keyed hash of its code; holds the second in which it ends

    token ─▶ key ─┬▶ cookie     v1.<issued>.<HMAC(key, issued)>      30 days, also after a restart
                  └▶ link hash  HMAC(key, code)                      10 minutes, also after a restart
Another token is another key, so a rotation voids cookies and links at once. Every process that holds the directory sees
a rotation with its next check, because each check looks whether the file is still the one that was read.
"""

import base64
import hashlib
import hmac
import logging
import math
import os
import re
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from starlette.requests import HTTPConnection

from gateway.address import bucket
from gateway.problem import Refused
from gateway.secret import Secret
from gateway.settings import strong_token
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

Scope = Literal["probe", "read", "chat", "owner"]
SCOPES: tuple[Scope, ...] = ("probe", "read", "chat", "owner")  #: from the smallest; see Caller.may

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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has shown a token or a cookie, and what that opens."""

    scope: Scope
    by: Literal["token", "cookie"]

    def may(self, need: Scope) -> bool:
        if self.scope == "probe":
            return need == "probe"
        return SCOPES.index(self.scope) >= SCOPES.index(need)


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
    """The one owner's ways in."""

    def __init__(self, folder: Path, key: Key, *, fixed: bool, clock: Clock, entropy: Entropy) -> None:
        self._folder = folder
        self._key = key
        self._fixed = fixed
        self._clock = clock
        self._entropy = entropy
        self._generation = 0
        self._brake = Brake(clock)

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

    def identify(self, connection: HTTPConnection) -> Caller:
        """Who is asking. A bearer token, where one was sent, decides alone.

        Raises Refused `unauthorized`, or `rate_limited` for one wrong token too many.
        """
        bearer = bearer_token(connection)
        if bearer is not None:
            if self.accepts_token(bearer):
                return Caller("owner", "token")
            raise self.wrong(connection)
        if self.accepts_cookie(connection.cookies.get(COOKIE, "")):
            return Caller("owner", "cookie")
        raise Refused("unauthorized", "this needs a token or a login", hint="`finn token` prints a login link")

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

    def accepts_token(self, token: str) -> bool:
        return self._current().matches(token)

    # ------------------------------------------------------------ cookies

    def new_cookie(self) -> str:
        """The value of a session cookie that begins now."""
        return self._cookie(int(self._clock.now()))

    def accepts_cookie(self, value: str) -> bool:
        match = re.fullmatch(r"v1\.([0-9]{1,12})\.[0-9a-f]{64}", value)
        if not match or not hmac.compare_digest(value, self._cookie(int(match[1]))):
            return False
        return self._clock.now() < int(match[1]) + COOKIE_S

    def _cookie(self, issued: int) -> str:
        return f"v1.{issued}.{self._current().sign('cookie', str(issued))}"

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
        path = self._folder / "token"
        if self._fixed or (mark := _mark(path)) in (None, self._key.mark):
            return self._key
        try:
            changed = _read_key(path)
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
