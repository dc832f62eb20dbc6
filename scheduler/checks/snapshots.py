"""What is looked at of: snapshots."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
