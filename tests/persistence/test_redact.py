import base64
import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.codec import clean
from persistence.events import (
    AGENT,
    OWNER,
    TOOL,
    AssistantMessage,
    ThinkingBlock,
    ToolCallBlock,
    ToolStarted,
    Unknown,
    Usage,
    UserMessage,
)
from persistence.redact import MIN_SECRET, Redactor
from persistence.upcast import lift

SECRET = 'sk-"ä\\7/+ü0123'  # has to be escaped in JSON and in a URL, in more than one way
REDACTOR = Redactor({"KEY": SECRET})
MASK = "[REDACTED:KEY]"

SECRETS = st.text(st.characters().filter(str.isprintable), min_size=MIN_SECRET, max_size=40)


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(SECRET)[1:-1])[1:-1],
        json.dumps(json.dumps(SECRET, ensure_ascii=False)[1:-1], ensure_ascii=False)[1:-1],
        quote(SECRET, safe=""),
    ],
)
def test_every_spelling_of_a_secret_is_replaced_by_its_name(spelled: str) -> None:
    assert REDACTOR.text(f"key={spelled}; {spelled}.") == f"key={MASK}; {MASK}."


@given(before=st.binary(max_size=9), after=st.binary(max_size=9), secret=SECRETS)
def test_in_base64_a_secret_is_found_at_every_alignment(before: bytes, after: bytes, secret: str) -> None:
    redactor = Redactor({"KEY": secret})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret.encode() + after).decode()
        shown = redactor.text(encoded)
        assert MASK in shown
        hidden = len(encoded) - len(shown.replace(MASK, ""))
        assert hidden * 6 > len(secret.encode()) * 8 - 12  # but for the digit at each end, half of which is others'


@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_record_holds_a_secret_and_every_record_stays_one(secret: str, before: str, after: str) -> None:
    """Also where the text around the secret gives escapes that only look like a part of it, and in keys."""
    redactor = Redactor({"KEY": secret})
    text = f"{before}{secret}{after}"
    said = UserMessage(turn="t", parent=None, text=text, request_id="r")
    event, data = clean(said, None, OWNER, redactor)
    assert event == said.model_copy(update={"text": redactor.text(text)})
    assert secret not in json.loads(b"{" + data)["data"]["text"]
    called = ToolStarted(turn="t", call="c", name="bash", args={text: [text]})
    event, data = clean(called, None, AGENT, redactor)
    body = json.loads(b"{" + data)
    assert lift(body["type"], body["v"], body["data"]) == event
    assert not isinstance(event, Unknown)
    assert secret not in json.dumps(body["data"]["args"], ensure_ascii=False)


@pytest.mark.parametrize("text", ["a\tokens-are-here", 'it ends in"', "it ends in\n"])
def test_what_looks_like_a_secret_only_where_json_escapes_it_is_left_alone(text: str) -> None:
    """A tab and `okens-are-here` are `\\tokens-are-here` in JSON, a quote behind it is `it ends in\\"`."""
    said = UserMessage(turn="t", parent=None, text=text, request_id="r")
    event, data = clean(said, None, OWNER, Redactor({"A": "tokens-are-here", "B": "it ends in\\"}))
    assert event == said
    assert json.loads(b"{" + data)["data"]["text"] == text


def test_a_text_without_a_secret_is_the_same_object() -> None:
    data = b"nothing to hide"
    assert REDACTOR.bytes(data) is data
    assert Redactor({"SHORT": "1234567"}).text("1234567") == "1234567"


@pytest.mark.parametrize(
    "secret", ["request_id", "follow_up", "toolCall", "thinking", "untrusted", "assistant_message"]
)
def test_a_secret_that_is_one_of_finn_s_own_words_breaks_no_record(secret: str) -> None:
    redactor = Redactor({"KEY": secret})
    said = UserMessage(turn="t", parent=None, text=f"it is {secret}", request_id="r", mode="follow_up")
    answer = AssistantMessage(
        turn="t",
        parent=None,
        content=(ThinkingBlock(thinking=secret), ToolCallBlock(id="c", name="bash", arguments={secret: secret})),
        api="a",
        provider="p",
        model="m",
        usage=Usage(),
        stop_reason="tool_use",
    )
    for dirty in (said, answer):
        event, data = clean(dirty, None, TOOL, redactor)
        body = json.loads(b"{" + data)
        assert lift(body["type"], body["v"], body["data"]) == event
        assert body["by"] == {"actor": "tool", "trust": "untrusted"}
    assert clean(said, None, OWNER, redactor)[0] == said.model_copy(update={"text": f"it is {MASK}"})
    content = (ThinkingBlock(thinking=MASK), ToolCallBlock(id="c", name="bash", arguments={MASK: MASK}))
    assert clean(answer, None, OWNER, redactor)[0] == answer.model_copy(update={"content": content})


# ---------------------------------------------------------------- scoped tokens, which nobody knows by value

TOKENS = st.text(st.sampled_from(string.ascii_letters + string.digits + "-_"), min_size=43, max_size=43)


@given(rest=TOKENS, before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_what_has_the_shape_of_a_token_is_replaced_wherever_it_stands(rest: str, before: bytes, after: bytes) -> None:
    token = f"finn_{rest}"
    for spelled in (token, json.dumps(token)[1:-1], quote(token, safe="")):
        assert Redactor({}).text(f"token={spelled}.") == "token=[REDACTED:token]."
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + token.encode() + after).decode()
        shown = Redactor({}).text(encoded)
        assert "[REDACTED:token]" in shown
        assert len(encoded) - len(shown.replace("[REDACTED:token]", "")) >= 63


@pytest.mark.parametrize("text", ["finn_session=v1.1.ff", "finn_", f"finn_{'A' * 42}", f"Finn_{'A' * 43}", "Zmlubl8="])
def test_what_only_begins_like_a_token_is_left_as_it_is(text: str) -> None:
    data = text.encode()
    assert Redactor({}).bytes(data) is data
