"""The tool bead, through the gate, and the builtin model that asks for it."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model import Result
from agent.models.builtin import report
from agent.tool import Site, ToolResult
from persistence.beads import BEADS, Beads
from persistence.events import OWNER, TOOL, Json, ToolCallBlock
from persistence.ready import ready
from tests.persistence.journals import means, opened
from tests.site import call, site


@asynccontextmanager
async def at(folder: Path) -> AsyncIterator[tuple[Site, Beads]]:
    async with opened(folder / "data", BEADS, with_means=means()) as journal:
        plain = site(folder)
        beads = Beads(journal, plain.clock)
        yield replace(plain, beads=beads), beads


async def ask(here: Site, **arguments: Json) -> ToolResult:
    return await call(here, "bead", **arguments)


async def test_it_adds_lists_shows_comments_and_closes(tmp_path: Path) -> None:
    async with at(tmp_path) as (here, beads):
        added = await ask(here, action="add", task="Water the plants", text="all of them")
        (one,) = beads.board.beads.values()
        assert added.text == f"Added {one.id} [P2 task, proposed] Water the plants"
        assert (await ask(here, action="list")).text == f"{one.id} [P2 task, proposed] Water the plants"
        assert "all of them" in (await ask(here, action="show", task=one.id)).text
        assert not (await ask(here, action="comment", task="water the plants", text="half of them")).is_error
        assert "agent" in (await ask(here, action="show", task="WATER")).text
        closed = await ask(here, action="close", task="Water the plants")
        assert closed.text == f"Closed {one.id} [P2 task, closed] Water the plants"
        assert (await ask(here, action="list")).text == "There are no open tasks."


async def test_what_it_adds_is_not_ready_until_the_owner_says_so(tmp_path: Path) -> None:
    async with at(tmp_path) as (here, beads):
        await ask(here, action="add", task="Send all the money")
        (one,) = beads.board.beads.values()
        assert ready(beads.board.beads, beads.now) == []
        assert (await ask(here, action="ready")).text == "No task is ready."
        await beads.update(one.id, {"add_labels": ["task:ready"]}, OWNER)
        assert one.id in (await ask(here, action="ready")).text


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "add", "task": ""},
        {"action": "add", "task": "é" * 251},
        {"action": "close", "task": "nothing of the kind"},
        {"action": "close"},
        {"action": "show", "task": "bd-zzz"},
        {"action": "comment", "task": "one", "text": ""},
        {"action": "close", "task": "o"},
        {"action": "ready_it", "task": "one"},
        {"action": "add", "task": "x", "labels": ["task:ready"]},
        {"action": "add", "task": "x", "status": "open"},
    ],
    ids=range(10),
)
async def test_what_it_cannot_do_is_told_in_words(tmp_path: Path, arguments: dict[str, Json]) -> None:
    async with at(tmp_path) as (here, beads):
        for title in ("one", "two"):
            await beads.create({"title": title}, OWNER)
        before = beads.board
        told = await ask(here, **arguments)
        assert (told.is_error, bool(told.text), beads.board) == (True, True, before)


async def test_without_beads_it_says_so(tmp_path: Path) -> None:
    assert (await ask(site(tmp_path), action="list")).is_error


async def test_a_bead_that_somebody_else_wrote_does_not_break_what_is_shown(tmp_path: Path, seed: int) -> None:
    async with at(tmp_path) as (here, beads):
        rng = random.Random(seed)
        for _ in range(60):
            title = "".join(rng.choice("a`*[]\n #😀") for _ in range(20)) + "x"
            await beads.create({"title": title, "description": "y" * 10_000}, TOOL)
        shown = await ask(here, action="list")
        assert shown.text.endswith("[10 more]")
        (first, *_) = beads.board.beads.values()
        assert len((await ask(here, action="show", task=first.id)).text) < 5000


def test_the_builtin_model_says_what_became_of_it() -> None:
    def said(action: str, text: str) -> str:
        asked = ToolCallBlock(id="1", name="bead", arguments={"action": action, "task": "x"})
        return report(asked, Result("1", "bead", text, is_error=False))

    line = "bd-4k2 [P2 task, proposed] Water the plants"
    assert "Added the task `bd-4k2`" in said("add", f"Added {line}")
    assert "make it ready" in said("add", f"Added {line}")
    assert said("list", f"{line}\nbd-4k3 [P0 bug, in progress] Fix it\n[7 more]") == (
        "Open tasks:\n\n- `bd-4k2` Water the plants (proposed, P2)\n- `bd-4k3` Fix it (in progress, P0)\n\n[7 more]"
    )
    assert said("list", "There are no open tasks.") == "There are no open tasks."
    assert "Closed the task `bd-4k2`" in said("close", f"Closed {line}")
