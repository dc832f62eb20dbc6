"""What is looked at of: disk."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
