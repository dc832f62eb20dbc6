"""What is looked at of: sessions."""

from scheduler.check import Check

CHECKS: tuple[Check, ...] = ()
