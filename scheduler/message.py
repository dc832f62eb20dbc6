"""What the owner is sent, and in which form.

    slack   {"text": …}                                                          hooks.slack.com, or URL#slack
    ntfy    the text; Title, Priority, Tags and Click as headers                 ntfy.sh, or URL#ntfy
    json    {agent, status, summary, problems: [{name, status, output}], url, time, release}      any other, or URL#json

The part of a URL behind # is never sent: there the owner says which form is meant. Outputs may hold what others wrote:
secrets are taken out before they are cut, control characters become spaces, and Slack's own signs are escaped.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from persistence.clock import iso
from scheduler.alerts import Bad, Told, silent_until, subject, worst
from scheduler.health import Report, Status

MAX_OUTPUT = 300  #: characters of what one check says
MAX_PROBLEMS = 12
MAX_TEXT = 4000  #: bytes; ntfy makes a file of what is longer than 4,096
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

Sent = tuple[Mapping[str, str], bytes]  #: headers and body


@dataclass(frozen=True, slots=True)
class Sender:
    """Who tells it, and where more is to be seen."""

    agent: str
    release: str
    url: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One check that is not well."""

    name: str
    status: Status
    output: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as the plain form has it."""

    agent: str
    status: Status
    summary: str
    problems: tuple[Problem, ...]
    url: str
    time: str
    release: str

    @property
    def text(self) -> str:
        """The same for people."""
        lines = [f"{one.name} ({one.status}): {one.output}" for one in self.problems]
        return cut("\n".join((self.summary, *lines, f"{self.url} · {self.release} · {self.time}")))


def message(told: Told, held: Bad, report: Report, sender: Sender, now: int, redact: Callable[[str], str]) -> Message:
    """What to say to an owner who knows `told` when `held` is what counts."""
    return Message(
        sender.agent,
        worst(held),
        " ".join(_summary(told, held, sender.agent, now)),
        _problems(held, report, redact),
        sender.url,
        iso(now / 1000),
        sender.release,
    )


def _summary(told: Told, held: Bad, agent: str, now: int) -> list[str]:
    """Sentences: how it is, what that is about, and what is to be expected."""
    news = [name for name in held if told.bad.get(name) != held[name]]
    still = [name for name in held if name not in news]
    gone = [name for name in told.bad if name not in held]
    verb = {"pass": "is well again", "warn": "needs a look", "fail": "does not work"}[worst(held)]
    said = [f"finn {agent} {verb}{_listed(news if held else gone)}."]
    if held:
        said += [f"{word}{_listed(names)}." for word, names in (("Still", still), ("Well again", gone)) if names]
    if not told.arrived:
        said.append("What was said before may not have arrived.")
    if until := silent_until(told, now):
        said.append(f"This is the last message until {iso(until / 1000)}; how it is then will be told.")
    return said


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _problems(held: Bad, report: Report, redact: Callable[[str], str]) -> tuple[Problem, ...]:
    bad = {
        name: row
        for name, rows in report.checks.items()
        for row in rows
        if row["status"] != "pass" and subject(name) in held
    }
    found = [Problem(name, row["status"], _plain(row.get("output", ""), redact)) for name, row in bad.items()]
    return tuple(sorted(found, key=lambda one: (one.status != "fail", one.name))[:MAX_PROBLEMS])


def _plain(output: str, redact: Callable[[str], str]) -> str:
    text = CONTROL.sub(" ", redact(output)).strip()
    return text if len(text) <= MAX_OUTPUT else f"{text[: MAX_OUTPUT - 1]}…"


def cut(text: str) -> str:
    """At most MAX_TEXT bytes of a text."""
    return text if len(text.encode()) <= MAX_TEXT else text.encode()[: MAX_TEXT - 3].decode(errors="ignore") + "…"


# ---------------------------------------------------------------- forms


def slack(told: Message) -> Sent:
    """As Slack's webhooks take it, and those that speak like them."""
    text = told.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _json({"text": text})


def ntfy(told: Message) -> Sent:
    """As ntfy takes it on the URL of a topic."""
    priority, tag = {
        "pass": ("default", "white_check_mark"),
        "warn": ("high", "warning"),
        "fail": ("urgent", "rotating_light"),
    }[told.status]
    headers = {"Title": f"finn {told.agent}: {told.status}", "Priority": priority, "Tags": tag, "Click": told.url}
    return {**headers, "Content-Type": "text/plain; charset=utf-8"}, told.text.encode()


def plain(told: Message) -> Sent:
    """As a program takes it."""
    return _json(asdict(told))


def _json(data: Mapping[str, object]) -> Sent:
    return {"Content-Type": "application/json"}, json.dumps(data, ensure_ascii=False).encode()


FORMS: Mapping[str, Callable[[Message], Sent]] = MappingProxyType({"slack": slack, "ntfy": ntfy, "json": plain})
HOSTS: Mapping[str, str] = MappingProxyType({"hooks.slack.com": "slack", "ntfy.sh": "ntfy"})


def form_of(url: str) -> str:
    """The name of the form for that URL; what stands behind its # is not looked up."""
    split = urlsplit(url)
    return split.fragment or HOSTS.get(split.hostname or "", "json")
