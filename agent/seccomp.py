"""The system calls that a command in the sandbox does not get: a filter for the kernel, in its own bytes (classic BPF).

    foreign architecture ─▶ no such call         (32-bit calls have other numbers)
    CLOSED               ─▶ no such call         (keys of finn's user, and doors into the kernel that no shell needs)
    socket(family)       ─▶ only FAMILIES        (a network namespace holds back neither vsock nor the kernel's own)
    everything else      ─▶ allowed

An instruction is a code, how many to skip if true and if false, and a number.
"""

import errno
import platform
import struct
from dataclasses import dataclass

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, ERROR = 0x7FFF0000, 0x00050000
X32 = 0x40000000  # the bit of x86-64's third set of numbers

FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK


@dataclass(frozen=True)
class Machine:
    """What an architecture calls itself, and its numbers of the calls."""

    audit: int
    socket: int
    closed: tuple[int, ...]


# add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, io_uring_{setup,enter,register}
MACHINES = {
    "x86_64": Machine(0xC000003E, 41, (248, 249, 250, 321, 298, 323, 425, 426, 427)),
    "aarch64": Machine(0xC00000B7, 198, (217, 218, 219, 280, 241, 282, 425, 426, 427)),
}


def program(machine: str = "") -> bytes | None:
    """The filter for this machine, as `bwrap --seccomp` reads it; None for one whose numbers are not known here."""
    known = MACHINES.get(machine or platform.machine())
    return None if known is None else b"".join(_instructions(known))


def _instructions(machine: Machine) -> list[bytes]:
    none = ERROR | errno.ENOSYS
    return [
        _one(LOAD, ARCHITECTURE),
        *_unless(EQUAL, machine.audit, none),
        _one(LOAD, NUMBER),
        *_if(AT_LEAST, X32, none),
        *(step for number in machine.closed for step in _if(EQUAL, number, none)),
        *_unless(EQUAL, machine.socket, ALLOW),
        _one(LOAD, FIRST_ARGUMENT),
        *(step for family in FAMILIES for step in _if(EQUAL, family, ALLOW)),
        _one(RETURN, ERROR | errno.EAFNOSUPPORT),
    ]


def _one(code: int, number: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, number)


def _if(test: int, number: int, verdict: int) -> tuple[bytes, bytes]:
    return _one(test, number, 0, 1), _one(RETURN, verdict)


def _unless(test: int, number: int, verdict: int) -> tuple[bytes, bytes]:
    return _one(test, number, 1, 0), _one(RETURN, verdict)
