"""The secret values that never get into a record or a log.

A Redactor knows secrets by value and finds them in the forms in which they travel: plain, escaped in JSON, URL-encoded,
and base64 at each of its three alignments. Of scoped tokens nobody knows the value, so they are known by their shape,
which escaping leaves as it is. It works on bytes, before they are written; what was written is never searched again.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

MIN_SECRET = 8  #: bytes; a shorter value would blank ordinary words
PREFIX = "finn_"  #: of the text of a scoped token
TOKEN = re.compile(rb"finn_[A-Za-z0-9_-]{43}")  #: all of it
TOKEN_MASK = b"[REDACTED:token]"


def _encoded(shift: int) -> tuple[bytes, re.Pattern[bytes]]:
    """How the text of a token begins in base64 at one alignment, and what of it is no neighbour's."""
    prefix = PREFIX.encode()
    begin = base64.b64encode(bytes(shift) + prefix)[(0, 2, 3)[shift] : (shift + len(prefix)) * 8 // 6]
    rest = (shift + len(prefix) + 43) * 8 // 6 - (shift + len(prefix)) * 8 // 6
    return begin, re.compile(rb"%b[A-Za-z0-9+/_-]{%d}" % (begin, rest))


#: How a token begins, which a search finds fastest, and its whole shape.
TOKEN_SHAPES = ((PREFIX.encode(), TOKEN), *(_encoded(shift) for shift in range(3)))


def forms(value: str) -> Iterable[bytes]:
    """Every spelling of a secret that may stand in a text."""
    raw = value.encode()
    yield raw
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield once.encode()
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1].encode()
    yield quote(value, safe="").encode()
    for shift in range(3):
        # The characters at both ends also hold bits of the neighbours: only those in between belong to the secret.
        encoded = base64.b64encode(bytes(shift) + raw)
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(raw)) % 3]]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


class Redactor:
    """Replaces known secrets by `[REDACTED:name]`, and scoped tokens by `[REDACTED:token]`."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """`secrets` maps the name that is shown to the value that is hidden; values under 8 bytes are left alone."""
        known = {
            form: name
            for name, value in secrets.items()
            if len(value.encode()) >= MIN_SECRET
            for form in forms(value)
            if len(form) >= MIN_SECRET
        }
        # Longest first, so that an encoded form is not cut in two by a shorter one inside it.
        self._forms = tuple(
            (form, f"[REDACTED:{known[form]}]".encode()) for form in sorted(known, key=len, reverse=True)
        )

    def bytes(self, data: bytes) -> bytes:
        """`data` without the secrets; the same object where there were none."""
        for form, mask in self._forms:
            if data.find(form) >= 0:  # `in` tries each form as a number first, which takes longer than the search
                data = data.replace(form, mask)
        for beginning, shape in TOKEN_SHAPES:
            if data.find(beginning) >= 0 and shape.search(data):
                data = shape.sub(TOKEN_MASK, data)
        return data

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self.bytes(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")
