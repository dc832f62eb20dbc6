"""What is looked at of: deploy."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
