"""The status line of the page, in a real Chromium, over a store that fails, comes back and is taken by another."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.end_to_end.finn import ECHO, Finn, finn
from tests.end_to_end.test_browser import visiting

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A store in a folder."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def test_the_line_says_where_it_is_kept_and_for_how_long_the_store_has_been_away(
    tmp_path: Path, bucket: Path, chromium: Browser
) -> None:
    with finn(tmp_path, [ECHO], FINN_STORE_URL=f"file://{bucket}") as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        expect(tab.page.get_by_text("a copy is in the store you gave me")).to_be_visible()
        tab.say("one")
        tab.is_idle()
        expect(tab.status_line).to_have_text("Saved here and in store")

        (it.data / "workspace" / "film.mkv").write_bytes(bytes(9 << 20))
        away = bucket.rename(tmp_path / "away")
        tab.say("two")
        tab.is_idle()
        expect(tab.message_assistant.last).to_have_text("You said: two")  # nobody waits for a store that is away
        expect(tab.status_line).to_contain_text("Store unreachable for ")
        tab.status_line.click()
        expect(tab.tiers).to_contain_text("Has everything")
        expect(tab.tiers).to_contain_text("lacks")
        tab.page.get_by_role("button", name="Close").click()

        away.rename(bucket)
        expect(tab.status_line).to_have_text("Saved here and in store")


def test_the_page_of_an_instance_that_was_replaced_says_so_and_goes_on_after_the_other_has_stopped(
    tmp_path: Path, bucket: Path, chromium: Browser
) -> None:
    store = {"FINN_STORE_URL": f"file://{bucket}"}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with finn(tmp_path / "one", [ECHO], **store) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("one")
        expect(tab.status_line).to_have_text("Saved here and in store")
        with finn(tmp_path / "two", [ECHO], **store) as other:
            said_elsewhere(other, tab.session)
            tab.say("two")
            expect(tab.status_line).to_have_text("Another instance took over")
            assert other.stop() == 0
        expect(tab.status_line).to_have_text("Saved here and in store")
        tab.say("three")
        expect(tab.message_assistant.last).to_have_text("You said: three")
        tab.page.reload()
        expect(tab.message_user.get_by_text("elsewhere")).to_be_visible()


def said_elsewhere(other: Finn, session: str) -> None:
    """The other instance has the session, and goes on with it."""
    assert other.say(session, "elsewhere")["reply"] == "You said: elsewhere"


def test_on_an_empty_disk_without_its_store_the_page_waits_and_goes_on_by_itself(
    tmp_path: Path, bucket: Path, chromium: Browser
) -> None:
    away = bucket.rename(tmp_path / "away")
    with finn(tmp_path, [ECHO], FINN_STORE_URL=f"file://{bucket}") as it, visiting(chromium, it) as visit:
        tab = visit.open(it.url)
        expect(tab.trouble).to_contain_text("finn waits for its memory")
        away.rename(bucket)
        expect(tab.page.get_by_text("Log in to finn")).to_be_visible()
