"""Records as JSON, and back.

    {"seq":1042,"id":"01K…","ts":1795167350115,"epoch":3,"d":1040,           written by the log's thread
     "stream":"01J…","by":{…},"type":"user_message","v":1,"data":{…},        written here: the record's rest
     "blobs":{"/text":"<sha256>"}}                                           only where a long string lives in a blob

A string over 256 KiB leaves `data` for a blob; `blobs` says where it belongs, as a JSON pointer. Where such a blob
cannot be read, the record is served with a sentence in the string's place.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_origin

from pydantic_core import PydanticSerializationError, ValidationError, from_json, to_json

from persistence import upcast
from persistence.blobs import Blobs
from persistence.errors import Damaged, NotFound, TooLarge
from persistence.events import By, Event, FileChanged, Json, Record, Value
from persistence.frame import RECORD_BYTES
from persistence.redact import Redactor
from persistence.upcast import lift
from persistence.values import mended

BLOB_BYTES = 256 * 1024  #: a longer string leaves the record for a blob

HEAD = (  #: how a record's line begins, as this program writes it: the seq, the stream, the type
    rb'\{"seq":(\d+),"id":"[^"]*","ts":\d+,"epoch":\d+,"d":\d+,'
    rb'"stream":(?:null|"([^"\\]*)"),"by":\{"actor":"[^"\\]*","trust":"[^"\\]*"\},"type":"([^"\\]*)"'
)
_HEAD = re.compile(HEAD)
_WHOLE = re.compile(
    rb'\{"seq":(\d+),"id":"([^"\\]*)","ts":(\d+),"epoch":(\d+),"d":(\d+),'
    rb'"stream":(?:null|"([^"\\]*)"),"by":(\{"actor":"[^"\\]*","trust":"[^"\\]*"\}),'
    rb'("type":"[^"\\]*","v":\d+,)"data":'
)
_KNOWN = {b'"type":"%b","v":%d,' % (name.encode(), event.v): event for name, event in upcast.KINDS.items()}
_VERSIONS = {name: event.v for name, event in upcast.KINDS.items()}

Lost = Callable[[str], None]  #: is told, in a sentence, what cannot be read any more


@lru_cache(maxsize=256)
def _head(stream: str | None, by: By, kind: str, v: int) -> bytes:
    return b'"stream":%b,"by":%b,"type":"%b","v":%d,"data":' % (to_json(stream), to_json(by), kind.encode(), v)


def rest(event: Event, stream: str | None, by: By) -> bytes:
    """The record of an event from `stream` on, to its closing brace."""
    return _head(stream, by, event.kind, event.v) + event.__pydantic_serializer__.to_json(event) + b"}"


def clean(event: Event, stream: str | None, by: By, redactor: Redactor) -> tuple[Event, bytes]:
    """The event as it may be recorded, without secrets and half characters, and its rest."""
    try:
        data = rest(event, stream, by)
    except PydanticSerializationError:
        return clean(_changed(event, mended), stream, by, redactor)
    if redactor.bytes(data) is data:
        return event, data
    # Replaced string by string: in the JSON itself a secret may begin or end in the middle of an escape.
    event = _changed(event, redactor.text)
    return event, rest(event, stream, by)


def offload(data: bytes, blobs: Blobs) -> bytes:
    """The rest with every long string in a blob of its own, durable before this returns. Raises TooLarge."""
    body = from_json(b"{" + data)
    places = {pointer: blobs.put(text.encode()) for pointer, text in _long_strings(body["data"], "")}
    for pointer in places:
        _set(body["data"], pointer, "")
    data = to_json({**body, "blobs": places})[1:] if places else data
    if len(data) > RECORD_BYTES:
        raise TooLarge(
            f"{body['type']}: {len(data)} bytes are more than a record of {RECORD_BYTES} bytes holds",
            hint="say it in smaller parts",
        )
    return data


def decode(line: bytes, checksum: str, blobs: Blobs, lost: Lost) -> Record:
    """The record in a verified line. `lost` is told of a blob that cannot be read."""
    return _plain(line, checksum) or _any(line, checksum, blobs, lost)


def _plain(line: bytes, checksum: str) -> Record | None:
    """The record, if it is spelled as this program spells it, of a version it knows, and whole without a blob.

    That is nearly every record, and nearly every moment of a start: its event is made straight from the bytes.
    """
    said = _WHOLE.match(line)
    if said is None:
        return None
    seq, name, time, epoch, durable, stream, by, kind = said.groups()
    known = _KNOWN.get(kind)
    if known is None:
        return None
    try:
        event = known.__pydantic_validator__.validate_json(line[said.end() : -1])
    except ValidationError:
        return None
    return Record(
        int(seq),
        name.decode(),
        int(time),
        int(epoch),
        int(durable),
        None if stream is None else stream.decode(),
        _said_by(by),
        known.kind,
        known.v,
        event,
        checksum,
        line,
    )


def _any(line: bytes, checksum: str, blobs: Blobs, lost: Lost) -> Record:
    body = from_json(line)
    for pointer, sha in body.get("blobs", {}).items():
        _set(body["data"], pointer, _long_string(body["seq"], sha, blobs, lost))
    return Record(
        body["seq"],
        body["id"],
        body["ts"],
        body["epoch"],
        body["d"],
        body["stream"],
        _by(body["by"]["actor"], body["by"]["trust"]),
        body["type"],
        body["v"],
        _event(body),
        checksum,
        line,
    )


class Fact(NamedTuple):
    """A record as its JSON says it: `data` are the fields of its event, of the version that this program writes."""

    entry: str
    seq: int
    time: int
    kind: str
    data: Json


def said(line: bytes) -> Fact | None:
    """What a verified line says, if it is of the version that this program writes, and without a blob."""
    body = from_json(line, cache_strings="keys")
    kind, seq = body["type"], body["seq"]
    if _VERSIONS.get(kind) != body["v"] or "blobs" in body:
        return None
    return Fact(f"{body['epoch']}-{seq}", seq, body["ts"], kind, body["data"])


def named_blobs(line: bytes) -> list[str]:
    """The blobs that a record needs: of its long strings, and of the file that it tells of."""
    if b'"blobs":' not in line and b'"sha256":' not in line:  # a look that costs nothing; the record then says it
        return []
    body = from_json(line)
    named = list(body.get("blobs", {}).values())
    file = body["data"].get("sha256") if body["type"] == FileChanged.kind else None
    return [*named, file] if file else named


def blobs_in(lines: Iterable[bytes]) -> tuple[str, ...]:
    """The blobs that these records need, each once."""
    return tuple(dict.fromkeys(sha for line in lines for sha in named_blobs(line)))


def place_of(line: bytes) -> tuple[str | None, str]:
    """The stream and the type of a record, by a look at the beginning of its line."""
    said = _HEAD.match(line)
    if said is None:  # spelled in another way, by another program
        body = from_json(line)
        return body["stream"], body["type"]
    return said[2].decode() if said[2] is not None else None, said[3].decode()


def _event(body: dict[str, Json]) -> Event:
    return lift(body["type"], body["v"], body["data"])


def _changed(data: Any, change: Callable[[str], str]) -> Any:
    """A value with every string of it changed, but for what finn itself calls things: fields, kinds, reasons."""
    if isinstance(data, str):
        return change(data)
    if isinstance(data, Value):
        free = (name for name, field in type(data).model_fields.items() if get_origin(field.annotation) is not Literal)
        return data.model_copy(update={name: _changed(getattr(data, name), change) for name in free})
    if isinstance(data, dict):
        return {_changed(key, change): _changed(value, change) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_changed(value, change) for value in data)
    return data


def _long_string(seq: int, sha: str, blobs: Blobs, lost: Lost) -> str:
    try:
        return blobs.get(sha).decode()
    except (NotFound, Damaged) as error:
        lost(f"a text of record {seq}: {error}")
        return f"[finn cannot read this text any more: it was in the blob {sha}, which is missing or damaged]"


@lru_cache(maxsize=256)
def _by(actor: str, trust: str) -> By:
    return By.model_validate({"actor": actor, "trust": trust})


@lru_cache(maxsize=256)
def _said_by(data: bytes) -> By:
    return By.model_validate_json(data)


def _long_strings(data: Json, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(data, str):
        if len(data.encode()) > BLOB_BYTES:
            yield pointer, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _long_strings(value, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _long_strings(value, f"{pointer}/{index}")


def _set(data: Json, pointer: str, value: str) -> None:
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for part in path:
        data = data[int(part)] if isinstance(data, list) else data[part]
    data[int(last) if isinstance(data, list) else last] = value
