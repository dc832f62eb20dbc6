"""Whether commands of the agent are confined: tried out, as a start tries it."""

import tempfile
from pathlib import Path

from agent import confine
from agent.sandbox import Sandbox, probe
from scheduler.check import Check
from scheduler.finding import Seen, Severity
from scheduler.site import Site

#: Files of the kernel below sys/, the value that keeps users from namespaces, and what to do.
NAMESPACES = (
    ("sys/user/max_user_namespaces", "0", "`sysctl user.max_user_namespaces=15000`"),
    ("sys/kernel/unprivileged_userns_clone", "0", "`sysctl kernel.unprivileged_userns_clone=1`"),
    (
        "sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor profile for bwrap",
    ),
)


def _tried(site: Site) -> Sandbox:
    """The sandbox that a start would come to."""
    choice = str(site.settings.get("FINN_SANDBOX") or "auto")
    network = site.settings.get("FINN_SANDBOX_NETWORK") == "on"
    workspace = site.root / "workspace"
    if workspace.is_dir():
        return probe(choice, network, workspace)
    with tempfile.TemporaryDirectory(prefix="finn-doctor-") as elsewhere:
        return probe(choice, network, Path(elsewhere))


def _see_rung(site: Site) -> Seen:
    sandbox = _tried(site)
    rung = sandbox.rung
    data = {"rung": rung.name, "choice": site.settings.get("FINN_SANDBOX") or "auto"}
    if sandbox.refused:
        what = f"no command of the agent is run: {rung.reason}"
        return Seen("warn", what, "install what is missing, or run finn in its container image", data)
    if rung.name == "bwrap" and rung.reason:
        return Seen("info", f"commands run under bwrap, though {rung.reason}", "bubblewrap 0.8 or later can", data)
    return Seen("pass", f"commands run with the sandbox {rung.name}", data=data)


def _see_choice(site: Site) -> Seen:
    if site.settings.get("FINN_SANDBOX") != "none":
        return Seen("pass", f"FINN_SANDBOX is {site.settings.get('FINN_SANDBOX') or 'auto'}")
    return Seen(
        "warn",
        "FINN_SANDBOX=none: every command of the agent has all the rights of finn's own user",
        "set FINN_SANDBOX=auto, unless the machine itself is a sandbox that holds nothing else",
    )


def _see_network(site: Site) -> Seen:
    if site.settings.get("FINN_SANDBOX_NETWORK") != "on":
        return Seen("pass", "commands do not reach the network")
    return Seen(
        "info",
        "commands reach the network, and with it whatever this machine reaches: what the agent reads may leave",
        "set FINN_SANDBOX_NETWORK=off where it is not needed",
    )


def _see_namespaces(site: Site) -> Seen:
    odd = {name: todo for name, bad, todo in NAMESPACES if _said(site.proc / name) == bad}
    if not odd:
        return Seen("pass", "the kernel gives users namespaces of their own")
    keys = ", ".join(name.removeprefix("sys/").replace("/", ".") for name in odd)
    what = f"the kernel keeps users from namespaces of their own, which bwrap needs: {keys}"
    severity: Severity = "info" if _uid(site) == 0 else "warn"
    return Seen(severity, what, "; ".join(odd.values()), {"keys": list(odd)})


def _see_root(site: Site) -> Seen:
    uid = _uid(site)
    if uid != 0:
        return Seen("pass", f"finn runs as user {uid}" if uid is not None else "not told on this system")
    return Seen(
        "info",
        "finn runs as root: what gets out of the sandbox has the whole machine",
        "run it as a user of its own; in a container of its own it matters less",
        {"uid": 0},
    )


def _uid(site: Site) -> int | None:
    """Whose the process is that looks, as the kernel says it."""
    text = _said(site.proc / "self" / "status")
    line = next((line for line in text.splitlines() if line.startswith("Uid:")), "")
    return int(line.split()[1]) if line else None


def _said(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _see_tools(_: Site) -> Seen:
    if confine.has_openat2():
        return Seen("pass", "the kernel itself keeps the file tools below their roots (openat2)")
    return Seen(
        "info",
        "this kernel or its filters have no openat2: the file tools walk folder by folder, and follow no link",
        "nothing has to be done; Linux 5.6 and a container profile that allows openat2 let them follow links inside",
    )


CHECKS: tuple[Check, ...] = (
    Check("sandbox.rung", "commands of the agent can be confined", _see_rung),
    Check("sandbox.choice", "commands of the agent are to be confined", _see_choice),
    Check("sandbox.network", "commands of the agent reach no network", _see_network),
    Check("sandbox.namespaces", "the kernel gives users namespaces of their own", _see_namespaces),
    Check("sandbox.root", "finn is not root", _see_root),
    Check("sandbox.file_tools", "the kernel confines the file tools", _see_tools),
)
