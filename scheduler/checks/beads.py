"""What is looked at of: beads."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
