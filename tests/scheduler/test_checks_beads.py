"""Beads that are out of order, each in one way: seen, put right by a record, and put back by another."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.folds import FOLDS
from persistence.bead import Bead
from persistence.bead_file import BeadFile
from persistence.beads import Beads
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.errors import Conflict
from persistence.events import BeadsChanged
from persistence.journal import Journal
from persistence.own_beads import trip
from persistence.redact import Redactor
from persistence.replay import Means
from persistence.rfc3339 import SECOND, rfc3339
from scheduler.check import Change
from scheduler.checks.beads import CHECKS, cycles
from tests.persistence.beads import bead, by_id
from tests.persistence.journals import logged
from tests.scheduler.ward import Ward, new_ward

HOUR = 3600 * SECOND
NOW = int(SystemClock().now()) * SECOND  #: the ward is looked at by the machine's own clock


@pytest.fixture
def ward() -> Ward:
    return new_ward()


def hold(ward: Ward, *beads: Bead) -> None:
    """The log and the file hold these beads as well, whoever let that happen."""

    async def held() -> None:
        clock = SystemClock()
        means = Means(SystemDisk(), clock, Ids(clock, system_entropy), Redactor({}))
        journal = await Journal.open(ward.root, FOLDS, means)
        try:
            desk = Beads(journal, clock)
            await desk.change("made", lambda board: beads)
            await BeadFile(desk, SystemDisk(), _file(ward).parent, journal.paths.quarantine, clock).look()
        finally:
            await journal.close()

    asyncio.run(held())


def _file(ward: Ward) -> Path:
    return ward.root / "state" / ".beads" / "issues.jsonl"


def board(ward: Ward) -> Mapping[str, Bead]:
    """The beads as the log has them."""
    found: dict[str, Bead] = {}
    for record in logged(ward.root):
        if isinstance(record.event, BeadsChanged):
            found |= {one.id: Bead(one.line) for one in record.event.beads}
    return found


def said(ward: Ward) -> dict[str, dict[str, object]]:
    """What the beads say, but for when they were changed."""
    return {name: {**one.data, "updated_at": ""} for name, one in board(ward).items()}


def put_right(ward: Ward, name: str) -> None:
    """Plan, fix, a second fix that finds nothing, the file like the log, the undo, and broken as before."""
    finding, before = ward.broken(name), said(ward)
    assert finding.fixability == "autofixable"
    assert finding.data["plan"]
    done = ward.fix(name)
    assert [(one.severity, one.fixability) for one in done.findings] == [("pass", "fixed")], done
    after = said(ward)
    assert after != before
    assert {json.loads(line)["id"]: json.loads(line)["labels"] for line in _lines(ward) if '"labels"' in line} == {
        key: one["labels"] for key, one in after.items() if "labels" in one
    }
    assert ward.fix(name).applied == ()
    assert said(ward) == after
    ward.undo(done.id)
    assert said(ward) == before
    assert ward.broken(name).data["count"] == finding.data["count"]


def _lines(ward: Ward) -> list[str]:
    return [line for line in _file(ward).read_text().splitlines() if "sync:" not in line]


def at(name: str, hours: int = 1, **fields: object) -> Bead:
    """A bead that was changed so many hours ago."""
    return bead(name, NOW - hours * HOUR, **fields)


# ---------------------------------------------------------------- the file


def test_beads_file(ward: Ward) -> None:
    text = _file(ward).read_text()
    _file(ward).write_text(f'{text}{{"id":"bd-1"}}\nno json; touch /tmp/pwn\n')
    finding = ward.broken("beads.file")
    assert [line.split(" ")[1] for line in finding.data["found"]] == ["3", "4"]
    assert "has no title" in finding.detail


def test_beads_file_with_one_id_twice(ward: Ward) -> None:
    lines = _file(ward).read_text().splitlines(keepends=True)
    _file(ward).write_text("".join([*lines, lines[0]]))
    assert "once more; the last one counts" in ward.broken("beads.file").detail


def test_beads_conflict(ward: Ward) -> None:
    text = _file(ward).read_text()
    _file(ward).write_text(f"<<<<<<< ours\n{text}=======\n>>>>>>> theirs\n")
    assert "line 1 is a mark of a merge" in ward.broken("beads.conflict").detail


def test_beads_pending(ward: Ward) -> None:
    _file(ward).write_text(_file(ward).read_text().replace('"title":"water', '"title":"do water'))
    finding = ward.broken("beads.pending", severity="info")
    assert finding.data["count"] == 2


def test_beads_mode(ward: Ward) -> None:
    _file(ward).chmod(0o644)
    assert "issues.jsonl (0644)" in ward.examine()["beads.mode"].detail
    ward.cured("beads.mode")


# ---------------------------------------------------------------- what contradicts itself


def test_beads_current_run(ward: Ward) -> None:
    both = {"issue_type": "epic", "status": "in_progress", "labels": ["run:current"]}
    hold(ward, at("bd-1", 2, **both), at("bd-2", 1, **both))
    assert ward.broken("beads.current_run").data["found"] == ["bd-1"]
    put_right(ward, "beads.current_run")


def test_beads_sprint(ward: Ward) -> None:
    hold(ward, *(at(f"bd-{n}", n, status="in_progress", labels=["sprint:in_progress"]) for n in (1, 2, 3)))
    assert ward.broken("beads.sprint").data["found"] == ["bd-2", "bd-3"]
    put_right(ward, "beads.sprint")


def test_beads_two_states(ward: Ward) -> None:
    hold(ward, at("bd-1", labels=["task:ready", "task:blocked"]))
    put_right(ward, "beads.two_states")


def test_beads_labels(ward: Ward) -> None:
    hold(ward, at("bd-1", labels=["for:bd-4k2.1", "$(touch /tmp/pwn)"]))
    assert ward.broken("beads.labels").data["labels"] == ["$(touch /tmp/pwn)", "for:bd-4k2.1"]
    put_right(ward, "beads.labels")


def test_beads_closed_at(ward: Ward) -> None:
    hold(ward, at("bd-1", status="closed"), at("bd-2", closed_at=rfc3339(NOW - HOUR)))
    assert ward.broken("beads.closed_at").data["found"] == ["bd-1", "bd-2"]
    put_right(ward, "beads.closed_at")


def test_beads_external_ref(ward: Ward) -> None:
    hold(ward, at("bd-1", 2, external_ref="tracker:1"), at("bd-2", 1, external_ref="tracker:1"))
    assert ward.broken("beads.external_ref").data["found"] == ["bd-2"]
    put_right(ward, "beads.external_ref")


def test_beads_session_owner(ward: Ward) -> None:
    hold(ward, at("bd-1", status="in_progress", labels=["session:active"]))
    put_right(ward, "beads.session_owner")


def test_beads_breakers(ward: Ward) -> None:
    hold(ward, *trip({}, "archive", "no answer", NOW - HOUR))
    finding = ward.broken("beads.breakers")
    assert "(archive)" in finding.detail
    put_right(ward, "beads.breakers")


def test_a_bead_that_was_changed_since_it_was_looked_at_is_left_as_it_is(ward: Ward) -> None:
    hold(ward, at("bd-1", status="closed"))
    site = ward.site()
    (closing,) = [check for check in CHECKS if check.id == "beads.closed_at"]
    assert closing.mend is not None and site.change is not None
    (step,) = closing.mend(site)
    assert isinstance(step, Change)
    hold(ward, at("bd-1", 0, status="closed", title="another"))
    with pytest.raises(Conflict, match="bd-1 was changed meanwhile"):
        site.change(step.edits)
    assert board(ward)["bd-1"].title == "another"


def test_what_stands_in_a_bead_is_data_in_every_finding_and_every_fix(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T9: titles, references and labels that a shell, git or a program's options would act on."""
    monkeypatch.chdir(tmp_path)
    evil = ("x; touch pwn", "$(touch pwn)", "`touch pwn`", "a\ntouch pwn", "--upload-pack=touch pwn", "-rf")
    hold(
        ward,
        *(
            at(f"bd-{n}", n, title=text, labels=[text, "session:active"], status="closed", external_ref="one:ref")
            for n, text in enumerate(evil)
        ),
    )
    found = ward.fix("beads.labels", "beads.closed_at", "beads.external_ref").findings
    assert {one.fixability for one in found} == {"fixed"}
    assert sorted(one.title for name, one in board(ward).items() if name[3:].isdigit()) == sorted(evil)
    assert not list(tmp_path.rglob("pwn")) and not list(ward.root.rglob("pwn"))


# ---------------------------------------------------------------- what a person decides


def test_beads_targets(ward: Ward) -> None:
    hold(ward, at("bd-1", blocks=["bd-gone", "external:elsewhere"], edges=[("related", "bd-lost")]))
    finding = ward.broken("beads.targets")
    assert finding.data["found"] == ["bd-1 → bd-gone", "bd-1 → bd-lost"]
    assert finding.data["holding"] == 1


def test_beads_cycles(ward: Ward) -> None:
    hold(ward, at("bd-1", blocks=["bd-2"]), at("bd-2", edges=[("parent-child", "bd-3")]), at("bd-3", blocks=["bd-1"]))
    assert ward.broken("beads.cycles").data["found"] == ["bd-1 → bd-2 → bd-3 → bd-1"]


def test_a_long_chain_is_no_circle_and_two_circles_are_two() -> None:
    chain = by_id(*(at(f"bd-{n}", blocks=[f"bd-{n + 1}"]) for n in range(5000)))
    assert cycles(chain) == []
    rings = by_id(*(at(f"bd-{n}", blocks=[f"bd-{n ^ 1}"]) for n in range(4)), at("bd-9", blocks=["bd-9", "bd-0"]))
    assert cycles(rings) == [["bd-0", "bd-1"], ["bd-2", "bd-3"], ["bd-9"]]


def test_beads_stale(ward: Ward) -> None:
    old, young = (at(f"bd-{n}", n, status="in_progress") for n in (25, 23))
    hold(ward, old, young)
    assert ward.broken("beads.stale").data["found"] == ["bd-25 (25 h)"]
