"""What is looked at of: wal."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
