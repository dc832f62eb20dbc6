"""The secret values that never get into a record or a log.

A Redactor knows secrets by value and finds them in the forms in which they travel: plain, escaped in JSON, URL-encoded,
and base64 at each of its three alignments. It works on bytes, before they are written; what was written is never
searched again.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote

MIN_SECRET = 8  #: bytes; a shorter value would blank ordinary words


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
    """Replaces known secrets by `[REDACTED:name]`."""

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
        return data

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self.bytes(text.encode(errors="surrogatepass")).decode(errors="surrogatepass") if self._forms else text
