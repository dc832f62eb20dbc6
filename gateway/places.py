"""Where copies are kept and who is told, as the settings say it: URLs, a git remote and its branch, sizes.

    s3://bucket/prefix   file:///dir                                     a store; its keys stand in AWS_*, never in it
    https://TOKEN@host/me/state.git   git@host:me/state.git   /dir       a remote; what opens it is taken out of the URL
    https://host/path-that-opens-it#FORM                                 an address of the owner; only the host is shown

Each parser raises ValueError with a clause that continues `NAME …`.
"""

import re
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import unquote

from gateway.secret import Secret
from persistence.errors import OutboundRefused

UNIT_BYTES = MappingProxyType({"": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30})
USERINFO = re.compile(r"//[^/]*@")  #: the part of a URL in which people put passwords
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
GIT_URL = re.compile(r"(?P<scheme>https?|ssh|file)://(?:(?P<user>[^/@:]*)(?::(?P<password>[^/@]*))?@)?(?P<rest>[!-~]+)")
NO_PASSWORD = ("", None, "x-oauth-basic")  #: what stands in its place where the user is the token
GIT_SSH = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[!-~]+")  # git@github.com:me/state.git


@dataclass(frozen=True, slots=True)
class Remote:
    """A git remote. `url` holds nothing secret and may be shown; `user` and `password` are what the server asks for.

    A token alone (`https://TOKEN@host`) is the password of a user that servers do not look at.
    """

    url: str
    user: str = ""
    password: Secret | None = None

    def reveal(self) -> str:
        """What has to stay hidden; nothing where there is no password."""
        return self.password.reveal() if self.password else ""


@dataclass(frozen=True, slots=True)
class Hook:
    """An address of the owner. `origin` may be shown, the rest of the URL opens it; `form` is how it is told things."""

    origin: str
    form: str
    url: Secret

    def reveal(self) -> str:
        """What has to stay hidden, and where to send."""
        return self.url.reveal()


def without_credentials(text: str) -> str:
    """`text`, safe to be shown: what stands before the @ of a URL is left out."""
    return USERINFO.sub("//***@", text)


def size(text: str) -> int:
    """Bytes of `512KB`, `8MB`, `1GB`, or of a plain number."""
    match = re.fullmatch(r"([0-9]{1,12})(KB|MB|GB|)", text.upper())
    if not match:
        raise ValueError("is a size like 512KB, 8MB or 1GB")
    return int(match[1]) * UNIT_BYTES[match[2]]


def store_url(text: str) -> str:
    """`s3://bucket/prefix` or `file:///dir`, without a slash at the end."""
    scheme, found, place = text.rstrip("/").partition("://")
    parts = place.split("/")
    if not found or scheme not in ("s3", "file") or not re.fullmatch(r"[^?#\s]+", place):
        raise ValueError("is written like s3://bucket/prefix or file:///dir")
    if "@" in parts[0]:
        raise ValueError("holds no keys; they stand in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if scheme == "s3" and not BUCKET.fullmatch(parts[0]):
        raise ValueError("names a bucket of 3 to 63 letters, digits, dots and hyphens")
    if scheme == "file" and parts[0]:
        raise ValueError("is a whole path, like file:///dir")
    if not all(part and part not in (".", "..") for part in parts[1:]):
        raise ValueError("has no empty part, no . and no .. in its path")
    return f"{scheme}://{place}"


def git_remote(text: str) -> Remote:
    """A remote as git takes it, and apart from it what opens it."""
    if text.startswith("/") or GIT_SSH.fullmatch(text):
        return Remote(text)
    match = GIT_URL.fullmatch(text)
    if not match or "@" in match["rest"].partition("/")[0]:
        raise ValueError("is written like https://host/me/state.git, git@host:me/state.git or /dir")
    scheme, user, password, rest = match.group("scheme", "user", "password", "rest")
    if scheme == "file" and (user is not None or not rest.startswith("/")):
        raise ValueError("is a whole path, like file:///dir")
    if scheme == "ssh":
        if password is not None:
            raise ValueError("holds a password, which ssh does not take; it needs a key")
        return Remote(text)
    url = f"{scheme}://{rest}"
    if password not in NO_PASSWORD:
        return Remote(url, unquote(user), Secret(unquote(password)))
    return Remote(url, "x-access-token", Secret(unquote(user))) if user else Remote(url)


def git_branch(text: str) -> str:
    """A branch's name, of the plain kind."""
    odd = (".." in text, "//" in text, "/." in text, text.endswith(("/", ".", ".lock")))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", text) or any(odd):
        raise ValueError("is a branch like state/main")
    return text


def endpoint(text: str) -> str:
    """The URL of a server, without a slash at the end."""
    if not re.fullmatch(r"https?://[^@?#\s]+", text):
        raise ValueError("is a URL that begins with http:// or https://, without credentials")
    return text.rstrip("/")


def hook(text: str) -> Hook:
    """An address of the owner, out in the internet. A name is looked up with each message, not now."""
    from agent.outbound import place_of  # imported on use: who sets no such address need not load what asks it
    from agent.public import is_public, literal
    from scheduler.message import FORMS, form_of

    url, _, fragment = text.partition("#")
    try:
        place = place_of(url, ("https",))
    except OutboundRefused:
        raise ValueError("is written like https://host/path, without user or password") from None
    address = literal(place.name)
    if place.name.rpartition(".")[2] == "localhost" or (address is not None and not is_public(address)):
        raise ValueError(f"leads to {place.name}, and finn sends to public addresses only")
    form = form_of(text)
    if form not in FORMS:
        raise ValueError(f"ends with #{fragment}; behind the # stands {', '.join(FORMS)}, or nothing")
    return Hook(place.origin, form, Secret(url))
