"""What is looked at of: runtime."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
