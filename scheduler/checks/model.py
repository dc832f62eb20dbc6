"""What is looked at of: model."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
