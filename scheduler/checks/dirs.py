"""What is looked at of: dirs."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
