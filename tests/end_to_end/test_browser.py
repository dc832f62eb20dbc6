"""The page, in a real Chromium, against a real finn that is also killed under it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, expect

from tests.end_to_end.conftest import PATIENCE_MS
from tests.end_to_end.finn import ECHO, Finn, finn, slow, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STORY = " ".join(f"word{n}" for n in range(160))  #: with 4 characters each 20 ms: 6 s
WEATHER = {
    "when": "weather",
    "calls": [
        [{"text": "Let me look."}, {"tool": "read", "args": {"path": "weather.txt"}}],
        [slow(f"The file says sunny. {STORY} The end.")],
    ],
}


@dataclass
class Visit:
    """A browser of its own: what it asked for and what went wrong in it."""

    context: BrowserContext
    it: Finn
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def open(self, url: str) -> "Tab":
        tab = Tab(self.context.new_page(), self.it)
        tab.page.on("pageerror", lambda error: self.faults.append(str(error)))
        tab.page.on("dialog", self._surprised)
        tab.page.goto(url)
        return tab

    def _surprised(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def log_in(self) -> "Tab":
        """By the link that finn printed."""
        tab = self.open(self.it.login_link)
        tab.page.get_by_role("button").click()
        expect(tab.composer).to_be_visible()
        return tab


@dataclass
class Tab:
    """One page, in the words of its user."""

    page: Page
    it: Finn

    def __getattr__(self, name: str) -> Locator:
        """`tab.session_item` is what has the hook `session-item`."""
        return self.page.get_by_test_id(name.replace("_", "-"))

    def say(self, text: str) -> None:
        self.composer.fill(text)
        self.send.click()

    @property
    def title_field(self) -> Locator:
        return self.page.get_by_label("Title of the chat")

    @property
    def session(self) -> str:
        """The id of the session that is shown."""
        self.page.wait_for_url(re.compile("#/s/"))
        return self.page.url.rpartition("/")[2]

    def shown(self) -> list[str]:
        """Prompts and answers as they can be read, from top to bottom."""
        return [
            text.strip()
            for text in self.page.locator('[data-testid="message-user"], [data-testid="message-assistant"]')
            .all_inner_texts()
        ]  # fmt: skip

    def is_idle(self) -> None:
        expect(self.stop).to_have_count(0)


@contextmanager
def visiting(chromium: Browser, it: Finn) -> Iterator[Visit]:
    """A visit in which no script may fail and nothing may be asked of anybody else."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context, it)
    context.on("request", lambda request: visit.asked.append(request.url))
    try:
        yield visit
        assert visit.faults == []
        assert [url for url in visit.asked if not url.startswith((f"{it.url}/", "data:image/"))] == []
    finally:
        context.close()


# ---------------------------------------------------------------- the whole way


def test_an_answer_streams_survives_a_reload_and_a_kill_and_goes_on_with_all_the_context(
    tmp_path: Path, chromium: Browser
) -> None:
    with finn(tmp_path, [WEATHER, ECHO]) as it, visiting(chromium, it) as visit:
        (it.data / "workspace" / "weather.txt").write_text("sunny\n")
        tab = visit.log_in()
        assert "once" not in tab.page.url

        tab.say("How is the weather?")
        expect(tab.tool_card.or_(tab.steps).first).to_contain_text("weather.txt")
        answer = tab.message_assistant.last
        expect(answer).to_contain_text("word3")
        assert answer.get_attribute("data-state") == "streaming"
        expect(tab.stop).to_be_visible()

        tab.page.reload()
        expect(tab.message_assistant.last).to_contain_text("The file says sunny. word0 ")
        expect(tab.message_assistant.last).to_contain_text("The end.")
        tab.is_idle()
        said = ["How is the weather?", "Let me look.", f"The file says sunny. {STORY} The end."]
        assert tab.shown() == said

        before = checkpoints(it)
        tab.say("And the weather tomorrow?")
        expect(tab.message_assistant.last).to_contain_text("word3")
        until(lambda: checkpoints(it) > before)
        it.kill()
        expect(tab.reconnect_bar).to_be_visible()
        it.start()

        expect(tab.turn_end).to_have_attribute("data-reason", "interrupted")
        expect(tab.reconnect_bar).to_have_count(0)
        expect(tab.login_form).to_have_count(0)
        kept = tab.message_assistant.last.inner_text().strip()
        assert STORY.startswith(kept.removeprefix("The file says sunny. "))
        assert tab.shown() == [*said, "And the weather tomorrow?", "Let me look.", kept]
        tab.is_idle()

        tab.say("go on")
        expect(tab.message_assistant.last).to_have_text("You said: go on")
        request = it.sent()[-1]["messages"]
        heard = [one["text"] for one in request if one["role"] == "user"]
        assert heard[:2] == ["How is the weather?", "And the weather tomorrow?"]
        assert heard[-1] == "go on"
        assert any("stopped while you were answering" in text for text in heard[2:-1])
        told = [block.get("text") for one in request if one["role"] == "assistant" for block in one["content"]]
        assert told == ["Let me look.", None, said[-1], "Let me look.", None, kept]
        assert [one["text"] for one in request if one["role"] == "result"] == ["sunny\n", "sunny\n"]
        assert len(it.sent()) == 5, "nothing was asked twice"

        tab.page.reload()
        expect(tab.message_assistant).to_have_count(5)
        assert tab.shown()[-2:] == ["go on", "You said: go on"]
        expect(tab.turn_end).to_have_attribute("data-reason", "interrupted")


def checkpoints(it: Finn) -> int:
    return sum(path.read_bytes().count(b'"type":"message_checkpointed"') for path in (it.data / "wal").glob("*.wal"))


def test_what_is_written_while_finn_is_away_is_sent_once_when_it_is_back(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("before")
        expect(tab.message_assistant).to_have_text("You said: before")
        it.kill()
        expect(tab.reconnect_bar).to_be_visible()
        tab.say("meanwhile")
        it.start()
        expect(tab.message_assistant).to_have_text(["You said: before", "You said: meanwhile"])
        assert [one["text"] for one in it.messages(tab.session) if one["role"] == "user"] == ["before", "meanwhile"]


def test_a_clean_stop_and_start_is_lived_through(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("one")
        expect(tab.message_assistant).to_have_text("You said: one")
        assert it.stop() == 0
        expect(tab.reconnect_bar).to_be_visible()
        it.start()
        expect(tab.reconnect_bar).to_have_count(0)
        tab.say("two")
        expect(tab.message_assistant).to_have_text(["You said: one", "You said: two"])


# ---------------------------------------------------------------- sessions


def test_a_session_is_renamed_deleted_and_brought_back(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        for text in ("first", "second"):
            tab.new_chat.click()
            tab.say(text)
            expect(tab.message_assistant).to_have_text(f"You said: {text}")
        expect(tab.session_item).to_have_text(["second", "first"])

        row = tab.session_item.nth(1)
        row.hover()
        row.get_by_test_id("rename").click()
        tab.title_field.fill("The very first")
        tab.title_field.press("Enter")
        expect(tab.session_item).to_contain_text(["second", "The very first"])
        until(lambda: "The very first" in titles(it))

        row = tab.session_item.filter(has_text="second")
        row.hover()
        row.get_by_test_id("delete").click()
        expect(tab.session_item).to_have_text(["The very first"])
        assert titles(it) == ["The very first"]
        tab.undo.click()
        expect(tab.session_item).to_contain_text(["second", "The very first"])
        expect(tab.message_assistant).to_have_text("You said: second")
        assert sorted(titles(it)) == ["The very first", "second"]

        tab.page.reload()
        expect(tab.session_item).to_have_count(2)
        expect(tab.message_assistant).to_have_text("You said: second")


def titles(it: Finn) -> list[str]:
    return [one["title"] for one in it.ask("GET", "/api/sessions").json["sessions"]]


# ---------------------------------------------------------------- turns


def test_stop_ends_the_answer_and_keeps_its_beginning(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [WEATHER, ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("weather")
        expect(tab.message_assistant.last).to_contain_text("word3")
        tab.stop.click()
        expect(tab.turn_end).to_have_attribute("data-reason", "abort")
        tab.is_idle()
        kept = it.messages(tab.session)[-1]
        assert (kept["role"], kept["stop_reason"]) == ("assistant", "abort")
        assert tab.message_assistant.last.inner_text().strip() == kept["text"].strip()
        tab.say("and now?")
        expect(tab.message_assistant.last).to_have_text("You said: and now?")


def test_an_error_is_said_in_words_and_tried_again(tmp_path: Path, chromium: Browser) -> None:
    replies = [
        {
            "when": "fails",
            "calls": [{"attempts": [[{"error": "denied", "message": "no key"}], [{"text": "Now it does."}]]}],
        },
        ECHO,
    ]
    with finn(tmp_path, replies) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("this fails")
        expect(tab.turn_end).to_have_attribute("data-reason", "error")
        expect(tab.turn_end).to_contain_text("no key")
        tab.retry.click()
        expect(tab.message_user).to_have_text(["this fails", "this fails"])
        tab.is_idle()


def test_two_tabs_show_the_same_while_it_happens(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [WEATHER, ECHO]) as it, visiting(chromium, it) as visit:
        one = visit.log_in()
        one.say("hello")
        expect(one.message_assistant).to_have_text("You said: hello")
        two = visit.open(f"{it.url}/#/s/{one.session}")
        expect(two.message_assistant).to_have_text("You said: hello")

        one.say("weather")
        expect(two.message_user.last).to_have_text("weather")
        expect(two.message_assistant.last).to_contain_text("word3")
        two.stop.click()
        expect(one.turn_end).to_have_attribute("data-reason", "abort")
        expect(two.turn_end).to_have_attribute("data-reason", "abort")
        two.say("from two")
        expect(one.message_assistant.last).to_have_text("You said: from two")
        assert one.shown() == two.shown()


def test_a_prompt_said_while_another_runs_waits_and_is_answered(tmp_path: Path, chromium: Browser) -> None:
    replies = [{"when": "slowly", "calls": [[slow("a b c d e f g h", 2, 0.1)]]}, ECHO]
    with finn(tmp_path, replies) as it, visiting(chromium, it) as visit:
        tab = visit.log_in()
        tab.say("slowly")
        expect(tab.stop).to_be_visible()
        tab.say("next")
        expect(tab.message_assistant).to_have_text(["a b c d e f g h", "You said: next"])
        assert tab.shown() == ["slowly", "a b c d e f g h", "next", "You said: next"]


# ---------------------------------------------------------------- who may come in


def test_a_stranger_gets_the_login_form_and_the_token_opens_it(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it, visiting(chromium, it) as visit:
        tab = visit.open(it.url)
        expect(tab.login_form).to_be_visible()
        tab.login_form.locator("input").fill("not the token")
        tab.login_form.get_by_role("button").click()
        expect(tab.page.get_by_role("alert")).to_contain_text("not the token")
        tab.login_form.locator("input").fill(it.token)
        tab.login_form.get_by_role("button").click()
        expect(tab.composer).to_be_visible()
        cookies = visit.context.cookies()
        assert [(each["name"], each["httpOnly"], each["sameSite"]) for each in cookies] == [
            ("finn_session", True, "Strict")
        ]
        assert tab.page.evaluate("document.cookie") == ""
        storage = tab.page.evaluate("JSON.stringify([localStorage, sessionStorage])")
        assert it.token not in storage


def test_a_login_link_works_once(tmp_path: Path, chromium: Browser) -> None:
    with finn(tmp_path, [ECHO]) as it:
        with visiting(chromium, it) as visit:
            visit.log_in()
        with visiting(chromium, it) as visit:
            tab = visit.open(it.login_link)
            tab.page.get_by_role("button").click()
            expect(tab.page.locator("body")).to_contain_text(re.compile("not valid", re.I))
            expect(tab.composer).to_have_count(0)


@pytest.mark.parametrize("place", ["?gatewayUrl={}", "#gatewayUrl={}", "?url={}&token=x#/s/{}", "?ws={}"])
def test_no_address_makes_the_page_talk_to_somebody_else(tmp_path: Path, chromium: Browser, place: str) -> None:
    with finn(tmp_path / "other", [ECHO]) as other, finn(tmp_path / "ours", [ECHO]) as it:
        before = other.log
        with visiting(chromium, it) as visit:
            visit.log_in()
            tab = visit.open(f"{it.url}/{place.replace('{}', f'ws://127.0.0.1:{other.port}')}")
            expect(tab.composer).to_be_visible()
            tab.say("hello")
            expect(tab.message_assistant).to_have_text("You said: hello")
        assert other.log == before


# ---------------------------------------------------------------- hostile text

PAYLOADS = tuple(json.loads((Path(__file__).parent / "payloads.json").read_text()))


def test_no_hostile_text_runs_a_script_or_asks_for_anything(tmp_path: Path, chromium: Browser) -> None:
    """As prompt, answer, thought, title, tool output and file name: shown as text, whole page after whole page."""
    everything = "\n\n".join(PAYLOADS)
    names = [payload.replace("/", "∕")[:60] for payload in PAYLOADS if "\n" not in payload][:40]
    replies = [
        {
            "when": "<script",
            "calls": [
                [
                    {"thinking": everything},
                    {"tool": "read", "args": {"path": "hostile.txt"}},
                    {"tool": "read", "args": {"path": "folder"}},
                    {"tool": "bash", "args": {"command": everything}},
                    {"tool": "<img src=x onerror=pwned()>", "args": {"<b>": everything}},
                ],
                [{"text": everything, "chunk": 400, "delay": 0.005}],
            ],
        },
        ECHO,
    ]
    with finn(tmp_path, replies) as it, visiting(chromium, it) as visit:
        workspace = it.data / "workspace"
        (workspace / "folder").mkdir()
        (workspace / "hostile.txt").write_text(everything)
        for name in names:
            (workspace / "folder" / name).write_text("x")
        for payload in PAYLOADS[:40]:
            it.new_session(payload[:200])
        session = it.new_session("<script>pwned()</script>")
        visit.context.add_init_script("window.ran = []; window.pwned = (...args) => ran.push(args);")
        visit.log_in()
        tab = visit.open(f"{it.url}/#/s/{session}")
        expect(tab.composer).to_be_visible()
        tab.say(everything)
        expect(tab.message_assistant).to_have_attribute("data-state", "done")
        tab.is_idle()
        unfold(tab)
        clean(tab)
        tab.page.reload()
        expect(tab.message_assistant).to_have_attribute("data-state", "done")
        unfold(tab)
        clean(tab)
        assert len(tab.shown()[0]) > len(everything) // 2, "it is shown, not left out"


def unfold(tab: Tab) -> None:
    """Opens everything that can be opened."""
    folded = tab.page.locator('[role="log"] [aria-expanded="false"]:visible')
    while folds := folded.element_handles():
        fold = folds[0]
        fold.click()
        # The page draws after the click: asked too early, it still counts this one.
        tab.page.wait_for_function("(fold) => fold.ariaExpanded === 'true' || !fold.isConnected", arg=fold)


#: Elements and attributes of the document that could run something or ask for something.
DANGEROUS = r"""() => [...document.querySelectorAll("#app *")].flatMap((node) => [
    ...(/^(script|iframe|object|embed|link|meta|base|style|img|video|audio|source|math)$/i.test(node.tagName)
        ? [node.outerHTML.slice(0, 200)] : []),
    ...[...node.attributes]
        .filter(({ name, value }) => /^on/i.test(name) || /^\s*(javascript|data|vbscript):/i.test(value))
        .map(({ name, value }) => `${node.tagName} ${name}=${value.slice(0, 100)}`)])"""
LINKS = "[...document.querySelectorAll('.prose a[href]')].map((a) => [a.protocol, a.rel, a.target])"
TAME = {(scheme, "noopener noreferrer nofollow", "_blank") for scheme in ("http:", "https:", "mailto:")}


def clean(tab: Tab) -> None:
    """Nothing ran, and nothing that could is part of the document."""
    assert tab.page.evaluate("window.ran") == []
    assert tab.page.evaluate(DANGEROUS) == []
    assert {tuple(link) for link in tab.page.evaluate(LINKS)} <= TAME
