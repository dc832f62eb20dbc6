"""What is looked at of: sandbox."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
