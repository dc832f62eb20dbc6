"""When the owner is sent word, and what it says: once when something turns bad, once when it is well, ten a day."""

import json
import random
from collections.abc import Iterator

import pytest

from persistence.clock import iso
from persistence.events import SYSTEM, Event, OwnerReached, OwnerTold, Record
from persistence.redact import Redactor
from scheduler.alerts import ALERTS, DAY_MS, LIMIT, Bad, Told, Watch, ailing, is_due, silent_until, subject, worst
from scheduler.health import RULES, Fact, Report, judge
from scheduler.message import FORMS, MAX_TEXT, Message, Sender, form_of, message, ntfy, plain, slack
from tests.conftest import count

MINUTE_MS = 60_000
NOW = 1_795_000_000_000
SENDER = Sender("main", "1.2.3", "https://finn.example")
WELL: Bad = {}
STORE: Bad = {"store": "warn"}


def report(**outputs: str) -> Report:
    """What health says where these checks have something to tell; `store_lastError="…"` is `store:lastError`."""
    checks = {name.replace("_", ":", 1): output for name, output in outputs.items()}
    return judge([lambda: [Fact(name, output, output=output) for name, output in checks.items()]], NOW / 1000)


def as_is(text: str) -> str:
    return text


def record(event: Event, at: int = NOW) -> Record:
    return Record(1, "", at, 1, 0, None, SYSTEM, event.kind, event.v, event, "", b"")


def said(told: Told, bad: Bad, at: int = NOW) -> Told:
    return ALERTS.step(told, record(OwnerTold(status=worst(bad), text="", bad=dict(bad)), at))


def arrived(told: Told) -> Told:
    return ALERTS.step(told, record(OwnerReached()))


def of(told: Told, held: Bad, now: int = NOW, **outputs: str) -> Message:
    return message(told, held, report(**outputs), SENDER, now, as_is)


# ---------------------------------------------------------------- what counts


def test_every_check_of_one_broken_store_is_about_the_store() -> None:
    names = ("store:lagSeconds", "store:lastError", "task:replicate", "task:orphans", "task:drill")
    assert {subject(name) for name in names} == {"store"}


def test_a_subject_is_as_bad_as_its_worst_check() -> None:
    assert ailing(report(wal_error="full", wal_upkeep="full", beads_file="torn")) == {"wal": "fail", "beads": "warn"}


def test_that_the_owner_cannot_be_told_is_not_told() -> None:
    assert ailing(report(owner_lastError="no answer")) == WELL


def test_numbers_ail_nothing() -> None:
    assert ailing(report()) == WELL
    assert ailing(judge([lambda: [Fact("wal:lastSeq", 7), Fact("epoch", 2)]], 0)) == WELL


def held(*looks: Bad, start: Bad = WELL) -> Bad:
    watch = Watch(start)
    for look in looks:
        watch = watch.seen(look)
    return watch.held


@pytest.mark.parametrize(
    ("looks", "counts"),
    [
        ((STORE,), WELL),
        ((STORE, STORE), STORE),
        ((STORE, WELL), WELL),
        ((STORE, WELL, STORE, WELL), WELL),
        ((STORE, STORE, WELL), STORE),
        ((STORE, STORE, WELL, STORE, WELL), STORE),
        ((STORE, STORE, WELL, WELL), WELL),
        (({"wal": "fail"}, {"wal": "warn"}), {"wal": "warn"}),
        (({"wal": "fail"}, {"wal": "warn"}, {"wal": "fail"}, {"wal": "fail"}), {"wal": "fail"}),
        ((STORE, {**STORE, "git": "warn"}), STORE),
        ((STORE, {**STORE, "git": "warn"}, {"git": "warn"}), {**STORE, "git": "warn"}),
    ],
)
def test_what_two_looks_agree_upon_counts(looks: tuple[Bad, ...], counts: Bad) -> None:
    assert held(*looks) == counts


def test_a_restart_goes_on_from_what_the_owner_knows() -> None:
    assert held(STORE, STORE, start=STORE) == STORE
    assert held(WELL, start=STORE) == STORE
    assert held(WELL, WELL, start=STORE) == WELL


# ---------------------------------------------------------------- when


def test_nothing_is_said_while_all_is_well() -> None:
    assert not is_due(Told(), WELL, NOW)


def test_what_turned_bad_is_said_once_and_that_it_is_well_once() -> None:
    assert is_due(Told(), STORE, NOW)
    told = arrived(said(Told(), STORE))
    assert not is_due(told, STORE, NOW)
    assert is_due(told, WELL, NOW)
    assert not is_due(arrived(said(told, WELL)), WELL, NOW)


def test_a_lasting_trouble_hides_no_other() -> None:
    told = arrived(said(Told(), {"beads": "warn"}))
    assert is_due(told, {"beads": "warn", **STORE}, NOW)


def test_what_gets_worse_is_said() -> None:
    assert is_due(arrived(said(Told(), {"disk": "warn"})), {"disk": "fail"}, NOW)


def test_what_may_not_have_arrived_is_said_again() -> None:
    told = said(Told(), STORE)
    assert is_due(told, STORE, NOW)
    assert is_due(told, WELL, NOW)
    assert "may not have arrived" in of(told, STORE).summary
    assert "may not have arrived" not in of(arrived(told), WELL).summary


def flapped(times: int, start: int = NOW) -> Told:
    told = Told()
    for n in range(times):
        told = arrived(said(told, STORE if n % 2 == 0 else WELL, start + n * MINUTE_MS))
    return told


def test_after_ten_messages_it_is_silent_until_the_first_is_a_day_old() -> None:
    told = flapped(LIMIT)
    assert not is_due(told, STORE, NOW + DAY_MS - 1)
    assert is_due(told, STORE, NOW + DAY_MS)
    assert not is_due(said(told, STORE, NOW + DAY_MS), WELL, NOW + DAY_MS)


def test_the_last_of_the_ten_says_until_when_it_is_silent() -> None:
    told, now = flapped(LIMIT - 1), NOW + LIMIT * MINUTE_MS
    assert iso((NOW + DAY_MS) / 1000) in of(told, WELL, now).summary
    assert "until" not in of(flapped(LIMIT - 2), WELL, now).summary
    assert silent_until(flapped(LIMIT - 2), now) is None


def test_a_clock_that_was_years_ahead_does_not_silence_it_for_years() -> None:
    told = flapped(LIMIT, NOW + 1000 * DAY_MS)
    assert is_due(told, STORE, NOW)


def test_what_the_owner_knows_survives_a_snapshot() -> None:
    told = said(flapped(3), {"disk": "fail"})
    assert ALERTS.load(json.loads(json.dumps(ALERTS.dump(told)))) == told


def weather(random: random.Random) -> Iterator[Bad]:
    """What looks find, minute by minute: calm, storms that flap at every pace, and a sky that is clear in the end."""
    while True:
        for _ in range(random.randrange(1, 200)):
            yield WELL
        pace = random.choice([1, 2, 3, 5, 30])
        for n in range(random.randrange(1, 300)):
            yield random.choice([STORE, {"wal": "fail"}, {**STORE, "git": "warn"}]) if n // pace % 2 else WELL


@pytest.mark.parametrize("voyage", range(count(5, 100)))
def test_however_it_flaps_there_are_ten_a_day_and_the_last_word_is_true(seed: int, voyage: int) -> None:
    rng = random.Random(f"{seed}-{voyage}")
    told, watch, sent, now = Told(), Watch(WELL), list[int](), NOW
    sky = weather(rng)

    def look(bad: Bad, lost: float) -> None:
        nonlocal told, watch
        watch = watch.seen(bad)
        if is_due(told, watch.held, now):
            told = said(told, watch.held, now)
            told = told if rng.random() < lost else arrived(told)
            sent.append(now)
        if rng.random() < 0.005:
            watch = Watch(told.bad)  # a restart

    for _ in range(6 * 24 * 60):
        now += MINUTE_MS
        look(next(sky), lost=0.02)
    end = rng.choice([WELL, STORE])
    for _ in range(24 * 60 + 5):
        now += MINUTE_MS
        look(end, lost=0.0)
    assert len(sent) > LIMIT
    assert all(later - first >= DAY_MS for first, later in zip(sent, sent[LIMIT:], strict=False))
    assert (told.bad, told.arrived) == (end, True)


# ---------------------------------------------------------------- what


def test_a_message_says_what_is_new_what_is_old_and_what_is_well_again() -> None:
    told = arrived(said(Told(), {"beads": "warn", "git": "warn"}))
    given = of(told, {"beads": "warn", "store": "warn"}, store_lastError="no answer", beads_file="torn")
    assert given.summary == "finn main needs a look: store. Still: beads. Well again: git."
    assert [one.name for one in given.problems] == ["beads:file", "store:lastError"]


def test_a_message_that_all_is_well_says_what_was_not() -> None:
    given = of(arrived(said(Told(), {"store": "warn", "git": "warn"})), WELL)
    assert (given.status, given.summary, given.problems) == ("pass", "finn main is well again: store, git.", ())


def test_the_worst_comes_first() -> None:
    bad: Bad = {"beads": "warn", "wal": "fail"}
    given = of(Told(), bad, beads_file="torn", wal_error="no space left")
    assert given.status == "fail"
    assert given.summary.startswith("finn main does not work:")
    assert [one.name for one in given.problems] == ["wal:error", "beads:file"]


def test_a_message_holds_no_secret_and_no_control_character() -> None:
    secret = "hunter2-hunter2"
    redact = Redactor({"KEY": secret}).text
    output = f"{'x' * 290}{secret}\x1b[2J\nLog: in\u2028here"
    given = message(Told(), STORE, report(store_lastError=output), SENDER, NOW, redact)
    for form in FORMS.values():
        headers, body = form(given)
        assert "hunter" not in f"{headers}{body.decode()}"
    assert len(given.problems[0].output) == 300
    assert not set("\x1b\n\u2028") & set(given.problems[0].output)


def test_the_plain_form_is_what_is_documented() -> None:
    headers, body = plain(of(Told(), STORE, store_lastError="no answer"))
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(body) == {
        "agent": "main",
        "status": "warn",
        "summary": "finn main needs a look: store.",
        "problems": [{"name": "store:lastError", "status": "warn", "output": "no answer"}],
        "url": "https://finn.example",
        "time": iso(NOW / 1000),
        "release": "1.2.3",
    }


def test_slack_gets_a_text_in_which_nothing_is_slacks() -> None:
    _, body = slack(of(Told(), STORE, store_lastError="<!channel> & <https://evil.example|click>"))
    text = json.loads(body)["text"]
    assert text.startswith("finn main needs a look: store.\nstore:lastError (warn): &lt;!channel&gt; &amp; &lt;https")
    assert not set("<>") & set(text)


@pytest.mark.parametrize(
    ("bad", "priority", "tag"),
    [
        (WELL, "default", "white_check_mark"),
        (STORE, "high", "warning"),
        ({"wal": "fail"}, "urgent", "rotating_light"),
    ],
)
def test_ntfy_gets_the_text_and_how_loud_it_is(bad: Bad, priority: str, tag: str) -> None:
    headers, body = ntfy(of(said(Told(), {"git": "warn"}), bad))
    assert headers["Title"] == f"finn main: {worst(bad)}"
    assert (headers["Priority"], headers["Tags"], headers["Click"]) == (priority, tag, "https://finn.example")
    assert body.decode().startswith("finn main ")


def test_a_message_is_short_whatever_is_wrong() -> None:
    names = [rule.name.replace("NAME", "x") for rule in RULES]
    facts = [Fact(name, "é" * 500, output="é" * 500) for name in names if name.endswith(("Error", "error", "file"))]
    many = judge([lambda: [*facts, *(Fact(f"task:{n}", "open", output="é" * 500) for n in range(30))]], 0)
    given = message(Told(), ailing(many), many, SENDER, NOW, as_is)
    for form in FORMS.values():
        assert len(form(given)[1]) < 3 * MAX_TEXT
    assert len(given.text.encode()) <= MAX_TEXT


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://HOOKS.slack.com/services/T/B/x", "slack"),
        ("https://hooks.slack.com.evil.example/services/T/B/x", "json"),
        ("https://ntfy.sh/topic", "ntfy"),
        ("https://ntfy.example/topic", "json"),
        ("https://ntfy.example/topic#ntfy", "ntfy"),
        ("https://chat.example/hooks/x#slack", "slack"),
        ("https://ntfy.sh/topic#json", "json"),
    ],
)
def test_the_form_is_known_from_the_url(url: str, form: str) -> None:
    assert form_of(url) == form
