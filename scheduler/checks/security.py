"""What is looked at of: security."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
