"""Runs a command under the system call filter of a unit: python unit.py 'NAME …' COMMAND …

All but the named calls fail with EPERM, as SystemCallErrorNumber says. libseccomp is what systemd itself uses.
"""

import ctypes
import errno
import os
import sys

ALLOW = 0x7FFF0000
FAIL = 0x00050000 | errno.EPERM

if __name__ == "__main__":
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(FAIL))
    numbers = (seccomp.seccomp_syscall_resolve_name(name.encode()) for name in sys.argv[1].split())
    for number in numbers:
        if number >= 0:  # a call of another architecture
            assert seccomp.seccomp_rule_add(context, ALLOW, number, 0) == 0
    assert seccomp.seccomp_load(context) == 0
    os.execvp(sys.argv[2], sys.argv[2:])
