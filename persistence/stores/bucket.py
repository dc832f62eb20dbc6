"""A bucket, and the way into it: what a URL and the keys say, and boto3's client made of them.

boto3 is loaded with the first call and costs 0.3 s. It adds no checksum to a request and asks for none in an answer, as
R2 takes none; it repeats nothing, for what it made of two attempts would hide what happened to the first.
"""

import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from persistence.errors import UsageError
from persistence.store import Access, is_key

CONNECT_S = 2.0
READ_S = 5.0  #: until an answer begins, and between two pieces of it
CONNECTIONS = 16

_PLACE = re.compile(r"(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{2,62})(?:/(?P<prefix>.*?)/?)?")
_TALKATIVE = ("boto3", "botocore", "s3transfer", "urllib3")  # at DEBUG they write signatures and session tokens

#: by the end of the endpoint's host: the region and the way to write a bucket's address that it wants
PECULIAR = (
    (".tigris.dev", "auto", "virtual"),
    (".storage.dev", "auto", "virtual"),
    (".r2.cloudflarestorage.com", "auto", "path"),
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Which bucket, which part of it, and how to get in."""

    name: str
    prefix: str
    access: Access


def parsed(place: str, access: Access) -> Bucket:
    """What `s3://` is followed by. Raises UsageError, which repeats neither URL: a key may have slipped in."""
    found = _PLACE.fullmatch(place)
    prefix = found["prefix"] or "" if found else ""
    if found is None or (prefix and not is_key(prefix)):
        raise UsageError("the store's URL names no bucket and prefix", hint="write it as s3://bucket/prefix")
    if access.endpoint and not _plain(access.endpoint):
        raise UsageError("the store's endpoint is no plain URL", hint="write it as https://host[:port]")
    if bool(access.key_id) != bool(access.secret):
        raise UsageError("half of the store's key is missing", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return Bucket(found["bucket"], prefix, access)


def _plain(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    clean = parts.username is None and parts.password is None and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and clean


def connect(access: Access) -> Any:
    """A client of its own: nothing of boto3's default session, which the model's SDKs may have set up otherwise."""
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.handlers import add_expect_header  # type: ignore[import-untyped]

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    region, style = peculiar(access)
    session = boto3.session.Session(
        aws_access_key_id=access.key_id or None,
        aws_secret_access_key=access.secret or None,
        aws_session_token=access.session_token or None,
        region_name=region,
    )
    client: Any = session.client(
        "s3",
        endpoint_url=access.endpoint or None,
        config=Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": 1},
            max_pool_connections=CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": style},
        ),
    )
    client.meta.events.register("before-call.s3", _ask_for_the_newest)
    client.meta.events.unregister("before-call.s3", add_expect_header)  # it costs a round trip, or 1 s of silence
    return client


def peculiar(access: Access) -> tuple[str | None, str]:
    """The region and the addressing style. us-east-1 is what a server without regions takes for its own."""
    host = urlsplit(access.endpoint).hostname or ""
    for end, region, style in PECULIAR:
        if f".{host}".endswith(end):
            return access.region or region, style
    return access.region or ("us-east-1" if access.endpoint else None), "auto"


def _ask_for_the_newest(params: dict[str, Any], **_: Any) -> None:
    """Tigris answers from the nearest copy, which may be old, unless it is asked not to. Others ignore the header."""
    params["headers"]["X-Tigris-Consistent"] = "true"
