"""Times as beads have them: RFC 3339 in UTC, to the nanosecond.

    2026-02-26T04:23:04.550522163Z ◀─▶ 1772079784550522163       nanoseconds since 1970

Written with no, three, six or nine digits of a second, whichever is the fewest that lose nothing, as br does it.
"""

import re
from datetime import UTC, datetime, timedelta

SECOND = 1_000_000_000  #: in nanoseconds
MICROSECOND = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORM = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII)


def nanoseconds(text: str) -> int:
    """The instant that a text says, with any offset. Raises ValueError."""
    match = FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time like 2026-11-21T10:00:00Z")
    day, clock, fraction, sign, hours, minutes = match.groups()
    plain = datetime.fromisoformat(f"{day}T{clock}+00:00") - EPOCH
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if offset >= timedelta(days=1):
        raise ValueError(f"{text[:40]!r} is further from UTC than a day")
    whole = plain + offset if sign == "-" else plain - offset
    return (whole.days * 86_400 + whole.seconds) * SECOND + int((fraction or "").ljust(9, "0"))


def rfc3339(instant: int) -> str:
    """The text of an instant. Raises OverflowError outside of the years 1 to 9999."""
    seconds, rest = divmod(instant, SECOND)
    text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f"{rest:09}"
    while fraction.endswith("000"):
        fraction = fraction[:-3]
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
