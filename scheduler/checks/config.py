"""What is looked at of the settings: whether finn would start with them, and whether each does what it seems to."""

from ipaddress import ip_address

from agent.public import is_public
from scheduler.check import Check
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.site import Site

BUDGET_S = 3.0  #: what a clean stop needs at the least, to end its turns and let the copies catch up
SYNC_S, ARCHIVE_S = 600.0, 86_400.0  #: a copy that waits longer is old when it is needed
UNKNOWN = "is not a setting of this release"
KEYS = ("_API_KEY", "AWS_")  #: what `model` and `store` look at themselves


def _see_refusal(site: Site) -> Seen:
    if not site.refusal:
        return Seen("pass", "finn serve takes these settings")
    return Seen(
        "fail", f"`finn serve` would not start: {site.refusal}", "correct what is named, then start `finn serve`"
    )


def _see_names(site: Site) -> Seen:
    unknown = [problem.partition(" ")[0] for problem in site.problems if UNKNOWN in problem]
    hint = "remove it, or correct its name; docs/settings.md lists those that there are"
    return some(unknown, "warn", "every FINN_ name is one of this release's", "ignored, for nobody knows it", hint)


def _see_odd(site: Site) -> Seen:
    odd = [one for one in site.problems if UNKNOWN not in one and not any(key in one for key in KEYS)]
    if not odd:
        return Seen("pass", "no setting contradicts another")
    return Seen("warn", "; ".join(odd), "correct what is named, then restart finn", {"count": len(odd)})


def _see_budget(site: Site) -> Seen:
    budget, copies = _seconds(site, "FINN_SHUTDOWN_BUDGET", 8.0), bool(site.store or site.remote)
    data = {"budget_s": budget}
    if budget >= BUDGET_S or not copies:
        return Seen("pass", f"a clean stop may take {budget:g} s", data=data)
    what = f"FINN_SHUTDOWN_BUDGET is {budget:g} s: a stop may end before the copies have the last records"
    return Seen("warn", what, "set it to 8s, and give the platform two seconds more before it kills", data)


def _see_intervals(site: Site) -> Seen:
    late = [
        f"{name} is {_seconds(site, name, 0.0):.0f} s"
        for name, most, used in (
            ("FINN_SYNC_INTERVAL", SYNC_S, site.store),
            ("FINN_ARCHIVE_INTERVAL", ARCHIVE_S, site.remote),
        )
        if used and _seconds(site, name, 0.0) > most
    ]
    hint = "shorten it: 30s for the store and 1h for git are usual, and where nothing changed nothing is sent"
    return some(late, "warn", "the copies are told soon", "a copy may be far behind when it is needed", hint)


def _see_hooks(site: Site) -> Seen:
    """Whether the owner can be told: finn sends to public addresses only, and says so here before it matters."""
    from agent.outbound import addresses_of, place_of  # imported on use: most have none to look at

    if not site.network:
        return Seen("pass", "not asked, for no network may be")
    wrong = []
    for name, origin in site.hooks.items():
        place = place_of(origin)
        try:
            private = [one for one in addresses_of(place.name, place.port) if not is_public(ip_address(one))]
        except OSError as error:
            wrong.append(f"{name}: {place.name} is not found ({error.strerror or error})")
            continue
        wrong += [f"{name}: {place.name} is {private[0]}, which is no public address"] if private else []
    hint = "correct the address: nobody is told of anything until then"
    return some(wrong, "warn", f"{len(site.hooks)} addresses for the owner", "the owner cannot be told", hint)


def _seconds(site: Site, name: str, instead: float) -> float:
    value = site.settings.get(name)
    return float(value) if isinstance(value, int | float) else instead


CHECKS: tuple[Check, ...] = (
    Check("config.refused", "finn serve takes the settings", _see_refusal),
    Check("config.names", "every name is a setting", _see_names),
    Check("config.odd", "no setting contradicts another", _see_odd),
    Check("config.budget", "a stop has time to save", _see_budget),
    Check("config.intervals", "the copies are told soon", _see_intervals),
    Check("config.hooks", "the owner can be told", _see_hooks, far=True),
)
