"""Every check there is, by subject. Adding one is a line in its subject's tuple."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
