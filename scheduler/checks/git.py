"""What is looked at of: git."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
