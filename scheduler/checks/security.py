"""Whether what is secret stays so, and nobody comes in who should not.

    known secrets, by exact value in every form in which they travel ─▶ log, chunks, beads, mirrors, files, quarantine
    modes, owners, links, hosts, proxies, tokens ─▶ as the settings and the disk have them

The search is bounded in time and says how far it came. No finding holds a secret, nor a part of one.
"""

import ctypes
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from persistence.limits import IGNORED
from persistence.redact import MIN_SECRET
from scheduler.below import content, files
from scheduler.check import Check, Remove, SetMode, Step
from scheduler.finding import Seen, Severity
from scheduler.naming import named, some
from scheduler.site import Site

TOKEN_BITS = 128
LINK_S = 600.0  #: how long a login link is good
LINKS_MOST = 10  #: that have ended and are still there before it is odd
SEARCH_S = 0.8  #: for the log, and at the same time for the files: half of it where others compute
FILE_BYTES = 8 << 20  #: a larger file beside the log is not searched
WAL_BYTES = 1 << 30  #: and a segment larger than this, which finn never writes, neither
PR_GET_DUMPABLE = 3  #: of linux/prctl.h
WIDE = {4: 8, 6: 16}  #: a trusted network with a shorter prefix than this is half the world
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]", "")

_LINK = re.compile(r"[0-9a-f]{64}")
_MASK = re.compile(rb"\[REDACTED:([A-Za-z0-9_-]{1,64})\]")


# ---------------------------------------------------------------- modes


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _open_paths(paths: Iterable[Path]) -> list[Path]:
    """Those that others than their owner can get at."""
    return [path for path in paths if os.path.lexists(path) and not path.is_symlink() and _mode(path) & 0o077]


def _auth(site: Site) -> list[Path]:
    top = site.root / "auth"
    return [top, *sorted(top.rglob("*"))] if top.is_dir() and not top.is_symlink() else []


def _closed(path: Path) -> SetMode:
    return SetMode(path, 0o700 if path.is_dir() else 0o600)


def _see_auth(site: Site) -> Seen:
    odd = [f"{path.relative_to(site.root)} ({_mode(path):04o})" for path in _open_paths(_auth(site))]
    hint = f"`chmod -R go= {site.root / 'auth'}`; if others use this machine, `finn token --rotate`"
    return some(odd, "fail", "nobody else can read the token", "others can get at", hint)


def _mend_auth(site: Site) -> Sequence[Step]:
    return [_closed(path) for path in _open_paths(_auth(site))]


def _see_env(site: Site) -> Seen:
    path = site.root / ".env"
    if not _open_paths([path]):
        return Seen("pass", "nobody else can read .env" if path.exists() else "there is no .env")
    what = f".env holds keys, and others can read it ({_mode(path):04o})"
    return Seen(
        "fail", what, f"`chmod 600 {path}`; if others use this machine, change the keys in it", {"mode": _mode(path)}
    )


def _mend_env(site: Site) -> Sequence[Step]:
    return [_closed(path) for path in _open_paths([site.root / ".env"])]


def _see_parents(site: Site) -> Seen:
    """Who can rename the data directory can put another in its place."""
    if not site.root.is_dir():
        return Seen("pass", "none yet")
    odd = []
    for folder in site.root.resolve().parents:
        status = folder.stat()
        writable = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if writable or status.st_uid not in (0, site.root.stat().st_uid):
            odd.append(f"{folder} ({stat.S_IMODE(status.st_mode):04o}, of user {status.st_uid})")
    hint = "chmod go-w the folders, or choose a FINN_DATA_DIR whose parents are yours or root's"
    well = "nobody else can put another folder in the data directory's place"
    return some(odd, "warn", well, "others can rename what is in", hint)


# ---------------------------------------------------------------- links and tokens


def _links(site: Site) -> dict[Path, float | None]:
    """The login links, and when each ends; None for a file that is none."""
    folder = site.root / "auth" / "links"
    names = site.disk.names(folder) if folder.is_dir() else []
    return {folder / name: _ends(folder / name) for name in names}


def _ends(path: Path) -> float | None:
    if not _LINK.fullmatch(path.name):
        return None
    try:
        return float(path.read_text(encoding="ascii")[:20])
    except (OSError, ValueError):
        return None


def _odd_links(site: Site) -> list[Path]:
    """Links that would be good for longer than one is, files that are none, and ended ones where they pile up."""
    now, links = site.clock.now(), _links(site)
    strange = [path for path, ends in links.items() if ends is None or ends > now + LINK_S + 60]
    ended = [path for path, ends in links.items() if ends is not None and ends <= now]
    return [*strange, *(ended if len(ended) > LINKS_MOST else [])]


def _see_links(site: Site) -> Seen:
    odd, links = _odd_links(site), _links(site)
    if not odd:
        good = sum(ends is not None and ends > site.clock.now() for ends in links.values())
        return Seen("pass", f"{good} login links are good now", data={"good": good, "all": len(links)})
    hint = "`finn doctor --fix` takes them away; a new link comes from `finn token`"
    what = f"{len(odd)} of {len(links)} login links have ended, or are none that finn made for ten minutes"
    return Seen("warn", what, hint, {"count": len(odd)})


def _mend_links(site: Site) -> Sequence[Step]:
    return [Remove(path) for path in _odd_links(site)]


def _see_token(site: Site) -> Seen:
    source, bits = site.token.get("source", "none"), float(site.token.get("bits", 0.0))
    data = {"source": source, "bits": round(bits)}
    if source == "none":
        return Seen("pass", "finn makes a token when it first starts", data=data)
    if source == "unreadable":
        return Seen("fail", "auth/token cannot be read", "`finn token --rotate` makes a new one", data)
    if bits < TOKEN_BITS:
        what = f"the owner's token holds {bits:.0f} bits at most, fewer than {TOKEN_BITS}"
        return Seen("fail", what, "`finn token --rotate`, or FINN_TOKEN from `openssl rand -hex 32`", data)
    return Seen("pass", f"the owner's token comes from the {source} and is strong", data=data)


def _see_tokens(site: Site) -> Seen:
    """Scoped tokens: those that open all, those that never end, those that have ended. None is a fault."""
    fold = next((fold for fold in site.folds if fold.name == "tokens"), None)
    tokens = fold.dump(site.state(fold))["tokens"].values() if fold is not None else []
    now = site.clock.now() * 1000
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for one in tokens:
        if one["revoked"] is None:
            over = one["expires"] is not None and one["expires"] <= now
            kinds["expired"] += [one["id"]] if over else []
            kinds["never expires"] += [one["id"]] if one["expires"] is None else []
            kinds["opens all"] += [one["id"]] if one["scope"] == "owner" and not over else []
    told = [f"{kind}: {named(ids)}" for kind, ids in kinds.items() if ids]
    if not told:
        return Seen("pass", f"{len(tokens)} scoped tokens were made, none that opens all or never ends")
    hint = "`finn token revoke ID` for those that nobody needs"
    return Seen("info", "; ".join(told), hint, {kind: ids for kind, ids in kinds.items() if ids})


# ---------------------------------------------------------------- secrets where they should not be


def _see_log(site: Site) -> Seen:
    """The log, its chunks, its long texts: what was written there is in every copy as well."""
    folders = (site.paths.wal, site.paths.chunks, site.paths.blobs)
    hint = (
        "change the secret where it was given out (the log cannot forget one thing), then set the new one; "
        "the old value stays in log, store and git, and is worth nothing any more"
    )
    return _searched(site, folders, "fail", "the log", hint)


def _see_files(site: Site) -> Seen:
    folders = (*(site.root / name for name in ("state", "grimoires", "workspace", "quarantine", "doctor-undo")),)
    hint = (
        "take it out of these files, and change it if the agent or others could read it; such a file stays out of the "
        "copies"
    )
    return _searched(site, folders, "warn", "the files", hint)


def _searched(site: Site, folders: Sequence[Path], severity: Severity, what: str, hint: str) -> Seen:
    found: defaultdict[str, set[str]] = defaultdict(set)
    end, size, searched, left = site.clock.monotonic() + SEARCH_S, 0, 0, 0
    for path, most in _youngest(folders):
        if site.clock.monotonic() >= end:
            left += 1
            continue
        try:
            data = content(path, most)
        except OSError:
            continue  # gone meanwhile, or not ours to read: then it is not ours to lose either
        if data is None:
            continue
        size, searched = size + len(data), searched + 1
        for name in _secrets(site, data):
            found[name].add(str(path.relative_to(site.root)))
    far = f"{searched} files, {size / (1 << 20):.1f} MB" + (f"; {left} older ones were not reached" if left else "")
    figures = {"files": searched, "bytes": size, "left": left}
    if not found:
        return Seen("pass", f"no known secret in {what}: {far}", data=figures)
    told = "; ".join(f"{name} in {named(sorted(paths))}" for name, paths in sorted(found.items()))
    said = f"a known secret stands in {what}: {told}"
    return Seen(
        severity, said, hint, {**figures, "found": {name: sorted(paths)[:100] for name, paths in found.items()}}
    )


def _secrets(site: Site, data: bytes) -> set[str]:
    """The names of the secrets in these bytes."""
    clean = site.redactor.bytes(data)
    if clean is data or clean == data:
        return set()
    before, after = _MASK.findall(data), _MASK.findall(clean)
    return {name.decode() for name in set(after) if after.count(name) > before.count(name)}


def _youngest(folders: Iterable[Path]) -> list[tuple[Path, int]]:
    """The plain files below the folders, the one that was written last first, with the bytes that they may have."""
    found = []
    for folder in folders:
        most = WAL_BYTES if folder.name == "wal" else FILE_BYTES
        for path, status in files(folder, IGNORED):
            if stat.S_ISREG(status.st_mode) and MIN_SECRET <= status.st_size <= most:
                found.append((status.st_mtime_ns, path, most))
    return [(path, most) for _, path, most in sorted(found, reverse=True)]


# ---------------------------------------------------------------- who comes in


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _is_near(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host in LOOPBACK


def _listed(site: Site, name: str) -> list[str]:
    value = site.settings.get(name)
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _see_public(site: Site) -> Seen:
    url, host = site.public_url, str(site.settings.get("FINN_HOST") or "127.0.0.1")
    far = [one for one in (_host(url), host) if one and not _is_near(one)]
    if not far:
        return Seen("pass", "finn is for this machine alone")
    if url.startswith("https://"):
        return Seen("pass", f"people reach it as {url}")
    return Seen(
        "warn",
        f"finn is reached as {_host(url) or host} without https: token, cookie and every word travel readable",
        "put a proxy with TLS before it and set FINN_PUBLIC_URL=https://NAME; or FINN_HOST=127.0.0.1 and an ssh tunnel",
        {"hosts": far},
    )


def _see_origins(site: Site) -> Seen:
    odd = [
        one for one in _listed(site, "FINN_ALLOWED_ORIGINS") if one.startswith("http://") and not _is_near(_host(one))
    ]
    odd += [one for one in _listed(site, "FINN_ALLOWED_HOSTS") if one.startswith(("0.0.0.0", "[::]", "*"))]  # noqa: S104
    hint = "allow https origins only, and hosts that people type; take out of FINN_ALLOWED_* what nobody uses"
    wrong = "allowed, and anybody on the way could pass for it"
    return some(odd, "warn", "only own and encrypted origins are allowed", wrong, hint)


def _see_proxies(site: Site) -> Seen:
    odd = [one for one in _listed(site, "FINN_TRUSTED_PROXIES") if _is_wide(one)]
    hint = "name the proxy's own address in FINN_TRUSTED_PROXIES; whoever is in it can claim any address"
    return some(odd, "warn", "no half of the world is a trusted proxy", "trusted proxies that are too many", hint)


def _is_wide(text: str) -> bool:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return False
    return network.prefixlen < WIDE[network.version]


def _see_dumpable(site: Site) -> Seen:
    """Whether another process of the same user can read the memory of the finn that runs, and so its keys."""
    if site.running is None:
        return Seen("pass", "no finn runs here")
    if site.running.pid == os.getpid():
        dumpable = ctypes.CDLL(None, use_errno=True).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1
    else:
        known = _is_dumpable(site.proc / str(site.running.pid))
        if known is None:
            return Seen("pass", "not told of a process of root, or on this system")
        dumpable = known
    if not dumpable:
        return Seen("pass", "the kernel keeps other processes out of finn's memory")
    return Seen(
        "warn",
        f"other processes of its user can read the memory of finn (process {site.running.pid})",
        "restart `finn serve`: it takes this away when it starts",
        {"pid": site.running.pid},
    )


def _is_dumpable(process: Path) -> bool | None:
    """The kernel gives what belongs to a process that is not dumpable to root."""
    try:
        line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("Uid:"))
        uid, owner = int(line.split()[2]), (process / "status").stat().st_uid
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return None if uid == 0 else owner == uid


# ---------------------------------------------------------------- the workspace


def _special(site: Site) -> tuple[list[Path], list[Path]]:
    """Files below the workspace that run with somebody's rights, and those with a second name."""
    rights, names = [], []
    for path, status in files(site.root / "workspace", IGNORED):
        if stat.S_ISREG(status.st_mode):
            rights += [path] if status.st_mode & (stat.S_ISUID | stat.S_ISGID) else []
            names += [path] if status.st_nlink > 1 else []
    return rights, names


def _see_rights(site: Site) -> Seen:
    odd = [str(path.relative_to(site.root)) for path in _special(site)[0]]
    hint = f"chmod ug-s them: whoever on this machine runs one has its owner's rights ({site.root / 'workspace'})"
    return some(odd, "warn", "no file of the workspace lends its owner's rights", "files that lend their rights", hint)


def _mend_rights(site: Site) -> Sequence[Step]:
    return [SetMode(path, _mode(path) & 0o777) for path in _special(site)[0]]


def _see_names(site: Site) -> Seen:
    odd = [str(path.relative_to(site.root)) for path in _special(site)[1]]
    hint = "the tools do not write to such a file; copy it and remove the first one where the agent is to change it"
    return some(
        odd, "info", "no file of the workspace has a second name", "files with a second name (hard links)", hint
    )


CHECKS: tuple[Check, ...] = (
    Check("security.auth_modes", "token and login links are for their owner alone", _see_auth, _mend_auth),
    Check("security.env_mode", ".env is for its owner alone", _see_env, _mend_env),
    Check("security.parents", "nobody else can replace the data directory", _see_parents),
    Check("security.links", "login links end and are gone", _see_links, _mend_links),
    Check("security.token", "the owner's token is strong", _see_token),
    Check("security.tokens", "scoped tokens are few and end", _see_tokens),
    Check("security.secrets_in_log", "no known secret is in the log", _see_log, apart=True),
    Check("security.secrets_in_files", "no known secret is in a file", _see_files, apart=True),
    Check("security.public", "who comes from outside comes encrypted", _see_public),
    Check("security.origins", "only own origins and hosts are allowed", _see_origins),
    Check("security.proxies", "few are trusted to say who is asking", _see_proxies),
    Check("security.dumpable", "other processes cannot read finn's memory", _see_dumpable, own=True),
    # alone: the agent's commands could put another file in the place of one whose mode is about to change
    Check("security.workspace_rights", "no file of the workspace lends rights", _see_rights, _mend_rights, alone=True),
    Check("security.workspace_links", "no file of the workspace has a second name", _see_names),
)
