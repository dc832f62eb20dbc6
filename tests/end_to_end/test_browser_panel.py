"""The status panel, in a real Chromium: what it says of a store that is away, what it mends, and who may do what."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from tests.end_to_end.finn import ECHO, Finn, finn, until
from tests.end_to_end.machines import Directory
from tests.end_to_end.test_browser import Tab, visiting

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAYLOADS: list[str] = json.loads((Path(__file__).parent / "payloads.json").read_text())
BEADS = Path("state") / ".beads" / "issues.jsonl"


def part(tab: Tab, name: str) -> Locator:
    return tab.page.get_by_test_id(f"part-{name}")


def bead(it: Finn, title: str) -> str:
    made = it.ask("POST", "/api/beads", {"title": title})
    assert made.status == 201, made
    return str(made.json["id"])


def reach(tab: Tab, wanted: Locator) -> None:
    """Presses Tab until that has the focus."""
    for _ in range(8):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        tab.page.keyboard.press("Tab")
    raise AssertionError("Tab never gets there")


def mode(it: Finn) -> int:
    return (it.data / BEADS).stat().st_mode & 0o777


def test_a_store_that_is_away_is_said_with_why_and_can_be_tried_at_once(tmp_path: Path, chromium: Browser) -> None:
    store = Directory(tmp_path)
    with finn(tmp_path, [ECHO], **store.settings) as it, visiting(chromium, it) as visit:
        until(lambda: it.ask("GET", "/api/storage").json["tiers"][1]["state"] == "saved")
        store.take_away()
        it.new_session()
        for _ in range(3):
            it.ask("POST", "/api/tasks/replicate/run", {})
        tab = visit.log_in()
        tab.status_line.click()
        task = part(tab, "tasks").locator('[data-task="replicate"]')
        expect(task).to_contain_text("Failed 3 times, so it is left alone")
        expect(part(tab, "storage")).to_contain_text("Fails")
        expect(part(tab, "tasks").locator('[data-task="health"]')).to_contain_text("Worked")

        store.bring_back()
        task.get_by_role("button", name="Try now").click()
        expect(task).to_contain_text("Worked")
        expect(task.get_by_role("button")).to_have_count(0)
        expect(part(tab, "storage")).to_contain_text("Has everything, as of")


def test_a_finding_is_mended_by_the_button_after_its_plan_was_shown_and_undone_by_another(
    tmp_path: Path, chromium: Browser
) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        bead(it, "Water the plants")
        until((it.data / BEADS).exists)
        (it.data / BEADS).chmod(0o644)
        tab = visit.log_in()
        tab.status_line.click()
        found = tab.findings.locator('[data-finding="beads.mode"]')
        expect(found).to_contain_text("Should be: the beads' file is for its owner alone")
        expect(tab.panel.get_by_role("button", name="1 thing needs a look")).to_be_visible()

        tab.mending.get_by_role("button", name="Fix what is safe").click()
        expect(tab.mending).to_contain_text("This is what finn will do")
        expect(tab.mending).to_contain_text("issues.jsonl")
        assert mode(it) == 0o644, "a plan changes nothing"
        tab.mending.get_by_role("button", name="Leave it").click()
        assert mode(it) == 0o644

        tab.mending.get_by_role("button", name="Fix what is safe").click()
        tab.mending.get_by_role("button", name="Do it").click()
        expect(tab.mending).to_contain_text("Mended")
        expect(tab.mending).to_contain_text("finn doctor --undo ")
        assert mode(it) == 0o600
        expect(found).to_have_count(0)
        expect(tab.doctor_line).to_contain_text("Nothing is wrong")

        tab.mending.get_by_role("button", name="Undo").click()
        expect(tab.mending).to_contain_text("As it was before")
        assert mode(it) == 0o644
        expect(found).to_be_visible()


def test_hostile_text_runs_nothing(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        for payload in PAYLOADS[:12]:
            bead(it, payload[:200].replace("\n", " "))
        tab = visit.log_in()
        tab.page.route("**/doctor", lambda route: examined(route, PAYLOADS))
        tab.page.route("**/api/tasks", lambda route: failing(route, PAYLOADS))
        tab.status_line.click()
        expect(part(tab, "beads")).to_contain_text("Ready to begin")
        expect(tab.findings.locator("li")).to_have_count(len(PAYLOADS))
        expect(tab.tasks.locator("li")).to_have_count(len(PAYLOADS))
        tab.mending.get_by_role("button", name="Fix what is safe").click()
        expect(tab.mending.locator(".plan")).to_have_count(len(PAYLOADS))
        assert tab.page.evaluate("window.pwned") is None
        strange = tab.panel.locator("script, img, iframe, object, embed, form, style, math, a")
        assert strange.count() == 0


def examined(route: Route, texts: list[str]) -> None:
    """A doctor who repeats what attackers said, wherever it says anything."""
    findings = [
        {
            "id": f"x.y{number}",
            "category": "x",
            "severity": "warn",
            "title": text,
            "detail": text,
            "remediation": text,
            "fixability": "autofixable",
            "data": {"plan": [text]},
        }
        for number, text in enumerate(texts)
    ]
    route.fulfill(json={"version": "0", "overall": "warn", "summary": {}, "findings": findings, "fix": None})


def failing(route: Route, texts: list[str]) -> None:
    at = "2026-11-20T10:00:00Z"
    task = {"every_s": 1, "state": "open", "failures": 3, "running": False, "last_run": at, "next_run": at}
    route.fulfill(json={"tasks": [{"name": text, "last_error": text, **task} for text in texts]})


def test_the_keys_alone_open_it_go_through_it_and_close_it(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        bead(it, "Water the plants")
        until((it.data / BEADS).exists)
        (it.data / BEADS).chmod(0o644)
        tab = visit.log_in()
        tab.composer.press("Control+.")
        expect(tab.panel).to_be_visible()
        expect(tab.mending.get_by_role("button")).to_be_visible()

        reach(tab, tab.mending.get_by_role("button"))
        tab.page.keyboard.press("Enter")
        expect(tab.mending.get_by_role("button", name="Do it")).to_be_focused()
        tab.page.keyboard.press("Enter")
        expect(tab.mending.get_by_role("button", name="Good")).to_be_focused()
        assert mode(it) == 0o600
        for _ in range(8):  # round and round, and never out of it
            tab.page.keyboard.press("Tab")
            assert tab.page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('.panel')"
            )

        tab.page.keyboard.press("Escape")
        expect(tab.panel).to_have_count(0)
        expect(tab.composer).to_be_focused()

        tab.page.keyboard.press("Control+k")
        tab.page.keyboard.type("how finn is")
        tab.page.keyboard.press("Enter")
        expect(tab.panel).to_be_visible()
        tab.page.keyboard.press("Control+.")
        expect(tab.panel).to_have_count(0)


def test_it_is_live_while_it_is_open_and_asks_nothing_when_it_is_not(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        visit.context.clock.install()
        tab = visit.log_in()
        tab.status_line.click()
        expect(part(tab, "beads")).to_contain_text("Nothing.")
        bead(it, "Water the plants")
        tab.page.clock.fast_forward(5_000)
        expect(part(tab, "beads")).to_contain_text("Water the plants")

        tab.page.keyboard.press("Escape")
        expect(tab.panel).to_have_count(0)
        asked = looks(visit.asked)
        with tab.page.expect_request("**/health"):  # the page itself goes on looking
            tab.page.clock.fast_forward(35_000)
        tab.say("hello")
        expect(tab.message_assistant).to_have_text("You said: hello")
        assert looks(visit.asked) == asked


def looks(asked: list[str]) -> int:
    """How often something was asked that only the panel shows."""
    return len([url for url in asked if re.search("/api/(tasks|beads|storage)|/doctor", url)])


def test_what_may_not_be_seen_or_is_not_answered_is_said_in_its_place(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        problem = {"type": "about:blank", "status": 403, "code": "forbidden_scope", "detail": "no", "hint": ""}
        tab.page.route("**/api/tasks", lambda route: route.fulfill(status=403, json=problem))
        broken = {**problem, "status": 503, "code": "starting", "detail": "finn is starting"}
        tab.page.route("**/api/beads*", lambda route: route.fulfill(status=503, json=broken))
        tab.status_line.click()
        expect(part(tab, "tasks")).to_contain_text("Your token may not see this")
        expect(part(tab, "beads")).to_contain_text("finn is starting")
        expect(part(tab, "storage")).to_contain_text("This machine")
        expect(tab.doctor_line).to_be_visible()
