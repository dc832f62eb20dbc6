"""Objects in a bucket that speaks S3: Amazon's, Cloudflare R2, Tigris, MinIO and their like, through boto3.

    412                                    Exists             404 NoSuchKey          NotFound
    409, 429, 5xx, no or half an answer    StoreUnreachable   anything else          StoreRefused

A 404 that does not say NoSuchKey comes from something that is not this bucket: an agent that took it for "absent" would
begin anew. What the server says beside a code is not repeated: it may hold what was sent to it.

Waiting is bounded: 2 s to connect, 5 s for an answer to begin or to go on, and a body must keep a modest pace.
"""

import base64
import contextlib
import io
import re
import threading
from collections.abc import Iterable, Iterator
from hashlib import md5
from typing import Any

from persistence.clock import Clock, SystemClock
from persistence.errors import FinnError, StoreRefused, StoreUnreachable
from persistence.store import OBJECT_MAX, Access, Found, absent, checked_key, checked_prefix, is_key, taken, too_large
from persistence.stores.bucket import Bucket, connect, parsed

BODY_S = 10.0  #: for any body; a large one has as long as SLOWEST takes, and not longer
SLOWEST = 128 << 10  #: bytes a second
PAGE = 1000  #: names in one answer, and the most that S3 gives
PIECE_BYTES = 1 << 20
SMALL_BYTES = 64 << 10  #: up to here a body goes out in one piece

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')

Pieces = list[bytes]  # within the class, `list` is the method

_COME_BACK = frozenset({"RequestTimeout", "SlowDown", "BadDigest", "OperationAborted", "InternalError"})
_HINTS = {
    "NoSuchBucket": "make the bucket, or correct FINN_STORE_URL",
    "AccessDenied": "let this key read, write, list and delete in the bucket",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew AWS_SESSION_TOKEN",
    "InvalidToken": "correct AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "NotImplemented": "this store cannot do what was asked; finn runs unfenced on it",
}
_CHECK = "check FINN_STORE_URL, AWS_ENDPOINT_URL_S3 and the keys"
_LATER = "nothing is lost: it is tried again"


class S3Store:
    """The objects below a prefix of a bucket. Calls wait for the network; boto3's client is safe in many threads."""

    def __init__(self, bucket: Bucket, *, clock: Clock | None = None, page: int = PAGE) -> None:
        self._bucket = bucket
        self._page = page
        self._prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._connected: Any = None

    @property
    def url(self) -> str:
        return f"s3://{self._bucket.name}/{self._bucket.prefix}".rstrip("/")

    def create(self, key: str, data: bytes) -> None:
        self._write(key, data, IfNoneMatch="*")

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data)

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        wanted = _range(first, count)
        with self._errors(key, missing=True):
            try:
                answer = self._client().get_object(**self._named(key), **wanted)
            except self._client().exceptions.ClientError as error:
                if _status(error) == 416:  # the object ends before `first`
                    return b""
                raise
            data = self._body(answer, key)
        if wanted and "ContentRange" not in answer:
            data = data[first:]  # a store that knows no ranges sent the whole object
        return data if count is None else data[:count]

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        asked: dict[str, Any] = {"Bucket": self._bucket.name, "Prefix": self._prefix + checked_prefix(prefix)}
        asked["MaxKeys"] = self._page
        if after:
            asked["StartAfter"] = self._prefix + after
        while True:
            with self._errors(prefix):
                page = self._client().list_objects_v2(**asked)
            yield from self._found(page.get("Contents", ()), after)
            if not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken") or page["NextContinuationToken"] == asked.get("ContinuationToken"):
                raise StoreUnreachable(f"{self.url} broke off a listing", hint=_LATER)
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        with self._errors(key):
            try:
                self._client().delete_object(**self._named(key))
            except self._client().exceptions.NoSuchKey:
                return

    def close(self) -> None:
        """Lets go of the connections; a later call makes new ones."""
        with self._lock:
            client, self._connected = self._connected, None
        if client is not None:
            client.close()

    def _write(self, key: str, data: bytes, **condition: str) -> None:
        digest = md5(data, usedforsecurity=False)
        body = data if len(data) <= SMALL_BYTES else _Upload(data, self._clock)
        with self._errors(key):
            answer = self._client().put_object(
                **self._named(key),
                **condition,
                Body=body,
                ContentLength=len(data),
                ContentMD5=base64.b64encode(digest.digest()).decode(),
            )
        if _kept_other_bytes(answer, digest.hexdigest()):
            raise StoreUnreachable(f"{self.url} did not keep the bytes of {key} as they were sent", hint=_LATER)

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket.name, "Key": self._prefix + checked_key(key)}

    def _found(self, rows: Iterable[dict[str, Any]], after: str) -> Iterator[Found]:
        """What is an object of ours. Others may keep things in the bucket too, under names that finn never gives."""
        for row in rows:
            key = row["Key"].removeprefix(self._prefix)
            if row["Key"].startswith(self._prefix) and is_key(key) and key > after:
                yield Found(key, row["Size"], row["LastModified"].timestamp())

    def _body(self, answer: dict[str, Any], key: str) -> bytes:
        """The whole body, if it is of a size that can be ours and comes in time."""
        size = answer.get("ContentLength", 0)
        deadline = self._clock.monotonic() + _allowed_s(size)
        pieces: Pieces = []
        taken_in = 0
        with contextlib.closing(answer["Body"]) as stream:
            while taken_in <= OBJECT_MAX and size <= OBJECT_MAX:
                piece = stream.read(PIECE_BYTES)  # an empty one has checked that all that was announced has come
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
                taken_in += len(piece)
                if self._clock.monotonic() > deadline:
                    raise StoreUnreachable(f"{self.url} sends {key} too slowly", hint=_LATER)
        raise too_large(key, self.url)

    def _client(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = connect(self._bucket.access)
            return self._connected

    @contextlib.contextmanager
    def _errors(self, key: str, *, missing: bool = False) -> Iterator[None]:
        """What boto3 raises, in our words. The cause is left out on purpose: it holds the request and its signature."""
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            raise self._answered(error, key, missing) from None
        except (HTTPError, OSError, BotoCoreError) as error:
            raise self._unanswered(error, key) from None

    def _answered(self, error: Any, key: str, missing: bool) -> FinnError:
        """The error for an answer that is none of success."""
        status, code = _status(error), _code(error, self._bucket.access.key_id)
        if status == 412:
            return taken(key, self.url)
        if status == 404 and code == "NoSuchKey" and missing:
            return absent(key, self.url)
        what = f"{self.url} answered {status} {code} to {key or 'a listing'}"
        if status in (409, 429) or (status >= 500 and status != 501) or code in _COME_BACK:
            return StoreUnreachable(what, hint=_LATER)
        return StoreRefused(what, hint=_HINTS.get(code, _CHECK))

    def _unanswered(self, error: Exception, key: str) -> FinnError:
        """The error for no answer, or half of one; or for a request that boto3 would not even send."""
        kind = type(error).__name__
        if kind in _NEVER_SENT:
            return StoreRefused(f"{self.url} cannot be asked: {kind}", hint=_CHECK)
        return StoreUnreachable(f"{self.url} gave no whole answer to {key or 'a listing'}: {kind}", hint=_LATER)


_NEVER_SENT = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        *("ParamValidationError", "NoRegionError", "InvalidRegionError", "ConfigParseError", "InvalidConfigError"),
    }
)


class _Upload(io.BytesIO):
    """A body that is sent piece by piece, each within the time-out. In one piece all of it would have to go in 2 s."""

    def __init__(self, data: bytes, clock: Clock) -> None:
        super().__init__(data)
        self._clock = clock
        self._deadline = clock.monotonic() + _allowed_s(len(data))

    def read(self, size: int | None = -1) -> bytes:
        if self._clock.monotonic() > self._deadline:
            raise TimeoutError("the store takes the bytes too slowly")
        return super().read(size)


def _allowed_s(size: int) -> float:
    return BODY_S + size / SLOWEST


def _range(first: int, count: int | None) -> dict[str, str]:
    """No header for the whole object: an empty one has no range that could be asked for."""
    if not first and count is None:
        return {}
    last = "" if count is None else str(first + max(count, 1) - 1)
    return {"Range": f"bytes={first}-{last}"}


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any, key_id: str) -> str:
    """The error's name, unless the server made it of what it was sent."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    plain = _CODE.fullmatch(code) and not (key_id and key_id in code)
    return code if plain else "without a code"


def _kept_other_bytes(answer: dict[str, Any], digest: str) -> bool:
    """Whether the ETag is the MD5 of other bytes. Of an encrypted object it is no MD5 at all."""
    etag = _MD5.fullmatch(answer.get("ETag", ""))
    encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    return etag is not None and not encrypted and etag[1] != digest


def opened(place: str, access: Access) -> S3Store:
    """The store for `s3://bucket/prefix`. Raises UsageError."""
    return S3Store(parsed(place, access))
