"""What is looked at of: store."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
