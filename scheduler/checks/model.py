"""Whether there is a model that can answer, as far as that is known without asking it: asking costs money."""

import importlib.util
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from agent import models
from agent.models import scripted
from agent.models.catalog import VENDORS, Wire, takes_tools
from persistence.errors import FinnError
from scheduler.check import Check
from scheduler.finding import Seen
from scheduler.site import Site

KEY_CHARS = 20  #: below which a vendor's key is none
KEYS: dict[Wire, str] = {"anthropic": "sk-ant-", "openai": "sk-"}
#: What has to be installed for a wire, by the name under which it is imported.
LIBRARIES: dict[Wire, tuple[str, ...]] = {
    "anthropic": ("pydantic_ai", "anthropic"),
    "openai": ("pydantic_ai", "openai"),
}
NOT_REMOTE = Seen("pass", "this model needs none")


def _meant(site: Site) -> str:
    return site.chosen.model or models.default(site.chosen)


def _wire(site: Site) -> Wire | None:
    kind = _meant(site).partition(":")[0]
    return next((wire for wire in VENDORS if wire == kind), None)


def _see_choice(site: Site) -> Seen:
    meant = _meant(site)
    if meant == "builtin":
        return Seen(
            "info",
            "the builtin model answers: it follows a few rules, and is no language model",
            "set ANTHROPIC_API_KEY or OPENAI_API_KEY, or FINN_MODEL=openai:NAME with FINN_MODEL_BASE_URL for your own",
            {"model": meant},
        )
    name = meant.partition(":")[2]
    if not name or (_wire(site) is None and not meant.startswith("scripted:")):
        return Seen(
            "fail",
            f"FINN_MODEL={meant[:80]!r} is no model",
            "builtin, anthropic:NAME, openai:NAME or scripted:FILE",
            {"model": meant[:80]},
        )
    if site.chosen.base_url and not site.chosen.model:
        return Seen("fail", "FINN_MODEL_BASE_URL is set without FINN_MODEL", "set FINN_MODEL=openai:NAME as well")
    how = "was chosen" if site.chosen.model else "is the default, since its key is set"
    return Seen("pass", f"{meant} {how}", data={"model": meant})


def _see_script(site: Site) -> Seen:
    kind, _, name = _meant(site).partition(":")
    if kind != "scripted" or not name:
        return Seen("pass", "no script is set")
    try:
        scripted.load(Path(name))
    except FinnError as error:
        return Seen("fail", error.message, error.hint or "see docs/settings.md")
    return Seen("info", f"the answers come from the script {name}: this is for tests", "unset FINN_MODEL")


def _see_key(site: Site) -> Seen:
    wire = _wire(site)
    if wire is None:
        return NOT_REMOTE
    name, key, own = VENDORS[wire].key_name, site.chosen.key(wire), bool(site.chosen.base_url)
    if key is None:
        if own:
            return Seen("pass", "a server of your own, and no key is set for it")
        return Seen("warn", f"{name} is not set, so {_meant(site)} cannot answer", f"set {name} and restart finn")
    faults = list(_odd(key, "" if own else KEYS[wire]))
    if not faults:
        return Seen("pass", f"{name} is set, {len(key)} characters")
    hint = f"copy the key once more from the vendor's page into {name}, without quotes and spaces"
    return Seen("warn", f"{name} does not look like a key: it {' and '.join(faults)}", hint, {"characters": len(key)})


def _odd(key: str, begins: str) -> Iterator[str]:
    """What speaks against a key, as clauses that tell nothing of it."""
    if not re.fullmatch(r"[!-~]+", key):
        yield "holds spaces or signs that no key has"
    elif key[0] in "\"'<" or key[-1] in "\"'>":
        yield "stands in quotes or brackets"
    elif begins and not key.startswith(begins):
        yield f"does not begin with {begins}"
    if begins and len(key) < KEY_CHARS:
        yield f"has fewer than {KEY_CHARS} characters"


def _see_url(site: Site) -> Seen:
    url, wire = site.chosen.base_url, _wire(site)
    if not url:
        return Seen("pass", "the vendor's own address is used")
    if not models.is_http(url):
        hint = "for example http://localhost:11434/v1"
        return Seen("fail", "FINN_MODEL_BASE_URL is no http address", hint)
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_near(parts.hostname or ""):
        return Seen(
            "warn",
            f"what is said to the model goes unencrypted to {parts.hostname}, and so does its key",
            "use https in FINN_MODEL_BASE_URL, or a server on this machine",
            {"host": parts.hostname},
        )
    versioned = bool(re.search(r"/v\d+/?$", parts.path))
    if wire is not None and versioned != (wire == "openai"):
        how = "ends with /v1" if wire == "openai" else "has no /v1 at its end"
        what = f"the base URL of an {wire} server usually {how}, this one does not"
        return Seen("warn", what, f"write FINN_MODEL_BASE_URL as {wire}'s own library reads it", {"path": parts.path})
    return Seen("pass", f"{parts.scheme}://{parts.hostname} is asked", data={"host": parts.hostname})


def _is_near(host: str) -> bool:
    """Whether it is this machine, or a network that is nobody else's."""
    try:
        return ip_address(host).is_private or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".internal", ".local")) or "." not in host


def _see_library(site: Site) -> Seen:
    wire = _wire(site)
    if wire is None:
        return NOT_REMOTE
    missing = [name for name in LIBRARIES[wire] if not _is_installed(name)]
    if not missing:
        return Seen("pass", f"{' and '.join(LIBRARIES[wire])} are installed")
    hint = "install finn again: `pip install -r requirements.lock`"
    return Seen("fail", f"{_meant(site)} cannot be asked: {', '.join(missing)} is not installed", hint)


def _is_installed(name: str) -> bool:
    """Looked for, and not imported, which takes seconds."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ValueError, ImportError):
        return False


def _see_tools(site: Site) -> Seen:
    wire, name = _wire(site), _meant(site).partition(":")[2]
    if wire is None or site.chosen.base_url or takes_tools(wire, name):
        return Seen("pass", "the model may call tools")
    return Seen(
        "warn",
        f"{name} calls no tools over this wire: the agent can only talk",
        f"set FINN_MODEL={wire}:{VENDORS[wire].default}",
        {"model": name},
    )


CHECKS: tuple[Check, ...] = (
    Check("model.choice", "a model is chosen", _see_choice),
    Check("model.script", "the script of a scripted model can be read", _see_script),
    Check("model.key", "the model's key looks like one", _see_key),
    Check("model.base_url", "the model's server is addressed as it should be", _see_url),
    Check("model.library", "what the model's wire needs is installed", _see_library),
    Check("model.tools", "the model may call tools", _see_tools),
)
