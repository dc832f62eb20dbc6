"""The doctor looks at the sessions: records, mirrors, chunks and blobs, each broken in its bytes."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.session import SESSIONS
from persistence.clock import FakeClock
from persistence.events import (
    AssistantMessage,
    Event,
    SessionCreated,
    TextBlock,
    ToolCallBlock,
    TurnEnded,
    TurnStarted,
    Usage,
    UserMessage,
)
from persistence.fold import Folded
from scheduler.checks.sessions import CHECKS, MOMENT_S
from scheduler.site import Running, Site
from tests.scheduler import wounds
from tests.scheduler.ward import Ward, new_ward

RUNNING = Running(1, "", 1, answers=True)


def answer(turn: str, parent: str | None, *calls: str) -> Event:
    blocks = (ToolCallBlock(id=call, name="read", arguments={}) for call in calls)
    return AssistantMessage(
        turn=turn,
        parent=parent,
        content=(TextBlock(text="so be it"), *blocks),
        api="x",
        provider="x",
        model="x",
        usage=Usage(),
        stop_reason="tool_use" if calls else "stop",
    )


def prompt(turn: str) -> Event:
    return UserMessage(turn=turn, parent=None, text="well?", request_id=turn)


def said(ward: Ward, session: str, *events: Event) -> list[str]:
    """Records of a session, and its mirror with them."""
    entries = wounds.appended(ward.root, *((event, session) for event in events))
    wounds.mirrored(ward)
    return entries


def begun(ward: Ward, session: str, turn: str) -> str:
    """A turn that runs: the entry of its prompt."""
    (entry,) = said(ward, session, prompt(turn))
    leaf = ward.site().sessions.states()[session].leaf
    said(ward, session, TurnStarted(turn=turn, entry=entry, parent=leaf))
    return entry


def test_sessions_tree() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[1]
    said(ward, session, answer("t", "1-9999"))
    finding = ward.broken("sessions.tree", "fail")
    assert finding.data["sessions"] == [session]


def test_sessions_calls() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[0]
    entry = begun(ward, session, "t")
    said(ward, session, answer("t", entry, "call_1", "call_2"), TurnEnded(turn="t", stop_reason="stop"))
    assert ward.broken("sessions.calls", "warn").detail.startswith("2 tool calls")


def test_sessions_turns() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[0]
    begun(ward, session, "t1")
    assert "interrupted" in ward.broken("sessions.turns", "info").detail
    begun(ward, session, "t2")
    assert ward.broken("sessions.turns", "warn").data["sessions"] == [session]


def test_sessions_state() -> None:
    ward = new_ward()
    one = wounds.snapshot(ward.root)
    states: dict[str, Any] = dict(one.folds["session"]["state"])
    name = next(iter(states))
    states[name] = {**states[name], "messages": states[name]["messages"] + 1}
    wounds.written(ward.root, replace(one, folds={**one.folds, "session": {**one.folds["session"], "state": states}}))
    assert ward.broken("sessions.state", "fail").data["sessions"] == [name]


def test_sessions_mirror_missing() -> None:
    ward = new_ward()
    for session in wounds.sessions(ward):
        wounds.mirror(ward, session).unlink()
    assert len(ward.broken("sessions.mirror_missing").data["sessions"]) == 2
    ward.cured("sessions.mirror_missing")
    assert ward.examine()["sessions.mirrors"].severity == "pass"


def test_sessions_mirrors() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[1]
    path = wounds.mirror(ward, session)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"tea is green", b"tea is black", 1))
    assert ward.broken("sessions.mirrors").data["sessions"] == {session: 2}
    ward.cured("sessions.mirrors")
    assert path.read_bytes() == whole


def test_any_line_of_a_mirror_that_is_changed_lost_doubled_or_torn_is_seen(seed: int) -> None:
    dice, ward = random.Random(seed), new_ward()
    session = wounds.sessions(ward)[0]
    path = wounds.mirror(ward, session)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        others = {
            "lost": [*lines[:number], *lines[number + 1 :]],
            "doubled": [*lines[:number], line, *lines[number:]],
            "changed": [*lines[:number], line.replace(b'": "', b'": "?', 1 + dice.randrange(2)), *lines[number + 1 :]],
            "torn": [*lines[:number], line[: dice.randrange(1, len(line))]],
        }
        for how, broken in others.items():
            path.write_bytes(b"".join(broken))
            (found,) = (one for one in ward.site().conversations if one.session == session)
            last = how == "lost" and number == len(lines) - 1
            assert found.mirror.kept == ("behind" if last else "other"), (how, number)


def test_a_mirror_that_ends_early_is_behind_and_a_start_goes_on_from_there() -> None:
    ward = new_ward()
    path = wounds.mirror(ward, wounds.sessions(ward)[0])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert "goes on from there" in ward.broken("sessions.mirrors", "info").remediation


def test_lines_of_records_that_the_log_lost_are_never_written_over() -> None:
    ward = new_ward()
    one = next(one for one in wounds.records(ward.root) if b'"type":"assistant_message"' in one.line)
    wounds.garbled(ward.root, one)
    found = ward.examine()
    assert found["sessions.mirrors"].severity == "info"
    assert found["sessions.mirrors"].data["lines_of_lost_records"] == 1
    assert found["sessions.mirrors"].fixability == "notfixable"


def test_with_a_finn_that_runs_a_mirror_is_taken_away_and_drawn_by_that_one() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[0]
    path = wounds.mirror(ward, session)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"tea", b"sea", 1))
    ward.changed["running"] = RUNNING
    ward.changed["acts"] = {"mirrors": lambda: wounds.mirrored(ward)}
    done = ward.fix("sessions.mirrors")
    assert [finding.fixability for finding in done.findings] == ["fixed"]
    assert path.read_bytes() == whole


def test_sessions_foreign() -> None:
    ward = new_ward()
    folder = wounds.mirror(ward, "x").parent
    (folder / "x.jsonl").write_text(json.dumps({"type": "session", "version": 3, "id": "x"}) + "\n")
    (folder / "notes.txt").write_text("mine")
    assert ward.broken("sessions.foreign").data["found"] == ["notes.txt", "x.jsonl"]
    ward.cured("sessions.foreign")


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_sessions_chunks(how: str) -> None:
    ward = new_ward()
    path = next(iter(wounds.sealed(ward).values()))
    whole = path.read_bytes()
    hurt(path, how)
    ward.broken("sessions.chunks", "warn")
    ward.cured("sessions.chunks")
    assert path.read_bytes() == whole


def hurt(path: Path, how: str) -> None:
    if how == "flip":
        wounds.flipped(path, path.stat().st_size // 2)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()


def test_a_chunk_that_nothing_can_make_again_stays_where_it_is() -> None:
    ward = new_ward()
    session, path = next(iter(wounds.sealed(ward).items()))
    hurt(path, "flip")
    one = next(one for one in wounds.records(ward.root) if session.encode() in one.line and b"user_message" in one.line)
    wounds.garbled(ward.root, one)
    finding = ward.examine()["sessions.chunks"]
    assert (finding.severity, finding.fixability) == ("fail", "notfixable")


def test_a_damaged_chunk_goes_out_of_the_way_where_the_store_has_it() -> None:
    ward = new_ward(store=True)
    session, path = next(iter(wounds.sealed(ward).items()))
    hurt(path, "flip")
    one = next(one for one in wounds.records(ward.root) if session.encode() in one.line and b"user_message" in one.line)
    wounds.garbled(ward.root, one)
    done = {finding.id: finding for finding in ward.fix("sessions.chunks").findings}
    assert done["sessions.chunks"].severity == "info"
    assert not path.exists()
    assert list((ward.root / "quarantine").glob(f"{path.parent.name}-{path.name}-*"))


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_sessions_blobs(how: str) -> None:
    ward = new_ward()
    bodies = ward.site().bodies
    sha = next(iter(bodies.files))
    path = bodies.blobs.path(sha)
    whole = path.read_bytes()
    hurt(path, how)
    ward.broken("sessions.blobs", "warn")
    ward.cured("sessions.blobs")
    assert path.read_bytes() == whole


def test_a_session_of_which_a_chunk_is_lost_is_not_called_broken_in_other_ways() -> None:
    ward = new_ward()
    session, path = next(iter(wounds.sealed(ward).items()))
    path.unlink()
    (found,) = (one for one in ward.site().conversations if one.session == session)
    assert not found.whole


def test_sealed_sessions_are_as_sound_as_others() -> None:
    ward = new_ward()
    assert len(wounds.sealed(ward)) == 2
    site: Site = ward.site()
    assert [one.mirror.kept for one in site.conversations] == ["same", "same"]
    assert all(check.look(site).severity == "pass" for check in CHECKS)


def test_a_directory_whose_sessions_are_not_folded_has_none() -> None:
    ward = new_ward()
    ward.changed["folds"] = ()
    assert ward.site().conversations == ()
    assert SESSIONS.name not in Folded(()).dump()


def test_what_a_finn_says_while_it_is_looked_at_is_no_fault_of_a_mirror() -> None:
    ward = new_ward()
    ward.changed["running"] = RUNNING
    session, site = wounds.sessions(ward)[0], ward.site()
    assert site.past.head.seq
    said(ward, session, answer("t", site.past.folded.streams(SESSIONS)[session].leaf))
    assert [one.mirror.kept for one in site.conversations] == ["same", "same"]


def test_a_session_that_has_just_begun_may_be_without_its_file_where_finn_runs() -> None:
    ward = new_ward()
    session = wounds.sessions(ward)[0]
    wounds.mirror(ward, session).unlink()
    begun = ward.site().sessions.states()[session].created_at / 1000
    ward.changed |= {"running": RUNNING, "clock": FakeClock(begun)}
    assert ward.examine()["sessions.mirror_missing"].severity == "pass"
    ward.changed["clock"] = FakeClock(begun + MOMENT_S + 1)
    assert ward.examine()["sessions.mirror_missing"].severity == "warn"


def test_the_file_of_a_session_that_has_begun_meanwhile_is_no_stranger() -> None:
    ward = new_ward()
    ward.changed["running"] = RUNNING
    site, new = ward.site(), "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert site.sessions.states()
    wounds.appended(ward.root, (SessionCreated(title="new"), new))
    wounds.mirror(ward, new).write_text("{}")
    look = next(check for check in CHECKS if check.id == "sessions.foreign").look
    assert look(site).severity == "pass"
    wounds.mirror(ward, "stranger").write_text("{}")
    assert look(site).data["found"] == ["stranger.jsonl"]
