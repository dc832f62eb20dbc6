"""What is looked at of: identity."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
