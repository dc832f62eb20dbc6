"""The names of new beads, made as br makes them.

    sha256("title|description||created, in ns|nonce") ─▶ first 8 bytes ─▶ base 36 ─▶ its first 3 to 8 characters

As few characters as keep the odds of two beads with one name below a quarter. A name that is taken gets another nonce,
and after ten of them one character more. A bead below another is PARENT.1, PARENT.2, … Between the two bars br has a
place for the creator and leaves it empty: only so do its own names come out again.
"""

from collections import Counter
from collections.abc import Collection
from hashlib import sha256
from itertools import count
from math import exp

PREFIX = "bd"  #: where no bead says another one
SHORTEST, LONGEST = 3, 8
ODDS = 0.25
NONCES = 10
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def name(title: str, description: str, created: int, taken: Collection[str], prefix: str) -> str:
    """A name that is not taken. `created` is in nanoseconds since 1970."""
    for size in range(length(len(taken)), 14):  # 13 characters are all of a hash
        for nonce in range(NONCES):
            found = f"{prefix}-{hashed(f'{title}|{description}||{created}|{nonce}', size)}"
            if found not in taken:
                return found
    return next(one for number in count() if (one := f"{prefix}-{hashed(title, 8)}{number}") not in taken)


def child(parent: str, taken: Collection[str]) -> str:
    """The next name below a bead."""
    return next(one for number in count(1) if (one := f"{parent}.{number}") not in taken)


def prefix_of(taken: Collection[str]) -> str:
    """What most names begin with: one file has one prefix, or br does not read it."""
    counted = Counter(one.rpartition("-")[0] for one in taken)
    return min(counted, key=lambda one: (-counted[one], one)) if counted else PREFIX


def length(beads: int) -> int:
    """How many characters a name needs among so many."""
    return next(
        (size for size in range(SHORTEST, LONGEST) if 1 - exp(-(beads**2) / (2 * 36**size)) < ODDS),
        LONGEST,
    )


def hashed(seed: str, size: int) -> str:
    """The first characters of a seed's hash."""
    number, text = int.from_bytes(sha256(seed.encode(errors="surrogatepass")).digest()[:8], "big"), ""
    while number:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text.rjust(size, "0")[:size]
