"""What is looked at of the place that finn was put in: whether people reach it, and whether it survives a new one."""

from pathlib import Path
from urllib.parse import urlsplit

from persistence.limits import amount
from scheduler.check import Check
from scheduler.checks.disk import mount_of
from scheduler.finding import Seen
from scheduler.site import Site

BOX = Path("/.dockerenv")
MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MEMORY_BYTES = 200 << 20  #: with a model's SDK loaded, a finn takes some 120 MB
UNBOUNDED = 1 << 50  #: what kernels say in place of no bound
PATIENCE_S = 9.0  #: most platforms kill ten seconds after they asked
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _is_boxed() -> bool:
    return BOX.exists()


def _host(site: Site) -> str:
    return str(site.settings.get("FINN_HOST") or LOOPBACK[1])


def _see_volume(site: Site) -> Seen:
    mount = mount_of(site)
    if mount is None or mount.kind != "overlay" or site.store is not None:
        kept = "the store has it all" if site.store is not None else "the data directory is on a disk of its own"
        return Seen("pass", kept)
    what = f"{site.root} is part of a container's image layer: the next deployment begins without it"
    return Seen("fail", what, "mount a volume at FINN_DATA_DIR, or set FINN_STORE_URL", {"kind": mount.kind})


def _see_reached(site: Site) -> Seen:
    """A public address that only this machine understands, where others are meant to come in."""
    named = urlsplit(site.public_url).hostname or ""
    if _host(site) in LOOPBACK or not site.public_url or named not in LOOPBACK:
        return Seen("pass", f"people come in at {site.public_url or 'the address that finn prints'}")
    what = f"FINN_HOST is {_host(site)}, so others can come in, and FINN_PUBLIC_URL sends them to {named}"
    return Seen("warn", what, "set FINN_PUBLIC_URL to what people type into their browser")


def _see_release(site: Site) -> Seen:
    if site.release or _host(site) in LOOPBACK:
        return Seen("pass", f"the release is {site.release}" if site.release else "finn runs where it was made")
    what = "FINN_RELEASE is not set, so neither health nor the copies say which deployment wrote what"
    return Seen("info", what, "set FINN_RELEASE to the commit or the image that is deployed")


def _see_stop(site: Site) -> Seen:
    budget = site.settings.get("FINN_SHUTDOWN_BUDGET")
    seconds = float(budget) if isinstance(budget, int | float) else 8.0
    if not _is_boxed() or seconds <= PATIENCE_S:
        return Seen("pass", f"a stop takes {seconds:g} s at the most")
    what = f"a stop may take {seconds:g} s, and a container is usually killed after 10 s"
    return Seen("warn", what, "give it more (docker stop -t, kill_timeout on Fly), or set FINN_SHUTDOWN_BUDGET=8s")


def _memory() -> int | None:
    """How much this container may use; None without a bound."""
    for path in MEMORY:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < UNBOUNDED else None
    return None


def _see_memory(site: Site) -> Seen:
    most = _memory()
    if most is None or most >= MEMORY_BYTES:
        return Seen("pass", f"finn may use {amount(most) if most is not None else 'what the machine has'}")
    what = f"finn may use {amount(most)} of memory, and is killed beyond that"
    return Seen("warn", what, f"give it {amount(MEMORY_BYTES)} or more", {"bytes": most})


CHECKS: tuple[Check, ...] = (
    Check("deploy.volume", "the data outlives a deployment", _see_volume),
    Check("deploy.reached", "people are sent to where finn is", _see_reached),
    Check("deploy.release", "the release is named", _see_release),
    Check("deploy.stop", "the platform waits for a stop", _see_stop),
    Check("deploy.memory", "there is enough memory", _see_memory),
)
