"""What is folded from the log: FOLDS, whoever opens it. A fold that is not named here is not in the state."""

from typing import Any

from agent.session import SESSIONS
from gateway.tokens import TOKENS
from persistence.beads import BEADS
from persistence.breaker import BREAKERS
from persistence.files import FILES
from persistence.fold import Fold
from persistence.orphans import ORPHANS
from scheduler.alerts import ALERTS

FOLDS: tuple[Fold[Any], ...] = (SESSIONS, FILES, ORPHANS, BEADS, BREAKERS, TOKENS, ALERTS)
