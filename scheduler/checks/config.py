"""What is looked at of: config."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
