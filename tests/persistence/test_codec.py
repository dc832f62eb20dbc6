import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from persistence.blobs import Blobs
from persistence.codec import BLOB_BYTES, _any, _plain, clean, decode, offload, place_of, rest
from persistence.disk import SystemDisk
from persistence.errors import TooLarge
from persistence.events import (
    AGENT,
    OWNER,
    AssistantMessage,
    Block,
    Event,
    Json,
    Record,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    Usage,
    UserMessage,
)
from persistence.frame import RECORD_BYTES
from persistence.redact import Redactor
from persistence.values import DEPTH
from tests.persistence.journals import STREAM, prompt

HEAD = b'{"seq":7,"id":"01K","ts":1795000000000,"epoch":3,"d":6,'
CLEAR = Redactor({})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(SystemDisk(), tmp_path / "blobs")


def called(**args: Json) -> ToolStarted:
    return ToolStarted(turn="t", call="c", name="write", args=args)


def message(*content: Block) -> AssistantMessage:
    return AssistantMessage(
        turn="t",
        parent=None,
        content=content,
        api="a",
        provider="p",
        model="m",
        usage=Usage(),
        stop_reason="tool_use",
    )


def read(data: bytes, blobs: Blobs) -> Record:
    lost: list[str] = []
    record = decode(HEAD + data, "aa", blobs, lost.append)
    assert lost == []
    return record


@given(text=st.text(), args=st.dictionaries(st.text(max_size=8), JSON, max_size=4), stream=st.none() | st.just(STREAM))
def test_an_event_comes_back_as_it_went(text: str, args: dict[str, Json], stream: str | None) -> None:
    nowhere = Blobs(SystemDisk(), Path("/nonexistent"))
    for event in (prompt(text), called(a=args)):
        kept, data = clean(event, stream, OWNER, CLEAR)
        assert read(data, nowhere) == Record(
            7, "01K", 1795000000000, 3, 6, stream, OWNER, event.kind, event.v, kept, "aa", HEAD + data
        )
        assert kept == event


def nested(depth: int) -> dict[str, Json]:
    """An object so deep, of lists."""
    inner: Json = 1
    for _ in range(depth - 1):
        inner = [inner]
    return {"path": inner}


def test_as_deep_as_an_event_may_be_its_record_can_be_read(blobs: Blobs) -> None:
    deep = nested(DEPTH)
    call = ToolCallBlock(id="c", name="write", arguments=deep)
    ended = ToolEnded(turn="t", parent=None, call="c", name="write", result="", is_error=False, details=deep)
    for event in (called(**deep), ended, message(call)):
        assert read(rest(event, STREAM, AGENT), blobs).event == event


@pytest.mark.parametrize("depth", [DEPTH + 1, 197, 300])
def test_deeper_data_is_no_event(depth: int) -> None:
    with pytest.raises(ValidationError, match="nested deeper than"):
        called(**nested(depth))
    with pytest.raises(ValidationError, match="nested deeper than"):
        ToolCallBlock(id="c", name="write", arguments=nested(depth))


def test_a_record_is_one_line_of_json_in_the_order_that_is_drawn() -> None:
    line = HEAD + rest(prompt("a\nb"), STREAM, OWNER)
    assert b"\n" not in line
    assert list(json.loads(line)) == ["seq", "id", "ts", "epoch", "d", "stream", "by", "type", "v", "data"]


LONG = "é" * (BLOB_BYTES // 2) + "x"  # one byte over the limit, in far fewer characters


@pytest.mark.parametrize(
    ("event", "pointers"),
    [
        (prompt(LONG), ["/text"]),
        (prompt(LONG[:-1]), []),
        (called(**{"a/b": LONG, "c~d": {"": [1, LONG]}, "short": "s"}), ["/args/a~1b", "/args/c~0d//1"]),
    ],
)
def test_a_string_over_the_limit_leaves_the_record_for_a_blob(
    tmp_path: Path, blobs: Blobs, event: Event, pointers: list[str]
) -> None:
    data = offload(rest(event, STREAM, AGENT), blobs)
    assert list(json.loads(HEAD + data).get("blobs", {})) == pointers
    assert len(list((tmp_path / "blobs").glob("*/*"))) == (1 if pointers else 0)
    if pointers:
        assert len(data) < 1000
    assert read(data, blobs).event == event


def test_what_no_blob_can_shorten_is_too_large(blobs: Blobs) -> None:
    event = called(**{str(n): "x" * BLOB_BYTES for n in range(RECORD_BYTES // BLOB_BYTES + 1)})
    with pytest.raises(TooLarge, match=r"tool_started: 865\d{4} bytes"):
        offload(rest(event, STREAM, AGENT), blobs)


def test_a_record_whose_blob_is_lost_is_served_with_a_sentence_in_its_place(tmp_path: Path, blobs: Blobs) -> None:
    data = offload(rest(prompt(LONG), STREAM, OWNER), blobs)
    (blob,) = (tmp_path / "blobs").glob("*/*")
    blob.write_bytes(b"damaged")
    lost: list[str] = []
    event = decode(HEAD + data, "", blobs, lost.append).event
    assert isinstance(event, UserMessage)
    assert event.request_id == LONG[:20]
    assert "cannot read this text" in event.text
    assert blob.parent.name + blob.name in event.text
    assert len(lost) == 1
    assert "record 7" in lost[0]


def test_half_a_character_is_recorded_as_one_that_cannot_be_shown() -> None:
    event, data = clean(called(text="a\ud800b", ok="🙂"), STREAM, AGENT, CLEAR)
    assert event == called(text="a\ufffdb", ok="🙂")
    assert json.loads(HEAD + data)["data"]["args"] == {"text": "a\ufffdb", "ok": "🙂"}


@given(
    args=st.dictionaries(st.text(max_size=8), JSON | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    text=st.text(),
    details=st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)
def test_the_short_way_to_a_record_gives_what_the_long_one_gives(
    args: dict[str, Json], text: str, details: dict[str, Json] | None
) -> None:
    nowhere = Blobs(SystemDisk(), Path("/nonexistent"))
    ended = ToolEnded(turn="t", parent=None, call="c", name="n", result=text, details=details)
    for event in (called(**args), prompt(text), ended, message(ToolCallBlock(id="c", name="n", arguments=args))):
        line = HEAD + clean(event, STREAM, OWNER, CLEAR)[1]
        short = _plain(line, "aa")
        assert short is not None
        assert short == _any(line, "aa", nowhere, pytest.fail)


@pytest.mark.parametrize(
    "rest",
    [
        b'"stream":null,"by":{"actor":"owner","trust":"user"},"type":"dreamed","v":1,"data":{}}',
        b'"stream":null,"by":{"actor":"owner","trust":"user"},"type":"session_created","v":99,"data":{"title":"a"}}',
        b'"stream":null,"by":{"actor":"owner","trust":"user"},"type":"session_created","v":1,"data":{"name":"a"}}',
        b'"stream":null,"by":{"actor":"o\\u0077","trust":"user"},"type":"session_created","v":1,"data":{"title":"a"}}',
        b'"stream":"a\\"b","by":{"actor":"owner","trust":"user"},"type":"session_created","v":1,"data":{"title":"a"}}',
        b'"by":{"actor":"owner","trust":"user"},"stream":null,"type":"session_created","v":1,"data":{"title":"a"}}',
        b'"stream":null,"by":{"actor":"owner","trust":"user"},"type":"log_recovered","v":1,'
        b'"data":{"source":"local","last_seq":1}}',
    ],
    ids=["unknown kind", "newer", "does not fit", "escaped actor", "escaped stream", "other order", "older"],
)
def test_what_is_spelled_in_another_way_takes_the_long_one(rest: bytes, blobs: Blobs) -> None:
    assert _plain(HEAD + rest, "aa") is None
    assert read(rest, blobs).seq == 7
    assert place_of(HEAD + rest) == (read(rest, blobs).stream, read(rest, blobs).type)
