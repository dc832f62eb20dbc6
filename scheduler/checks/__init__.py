"""Everything that the doctor looks at, in the order in which it tells of it: one file a subject."""

from scheduler.check import Check
from scheduler.checks import (
    beads,
    config,
    deploy,
    dirs,
    disk,
    git,
    identity,
    model,
    runtime,
    sandbox,
    security,
    sessions,
    snapshots,
    store,
    wal,
)

CHECKS: tuple[Check, ...] = (
    *config.CHECKS,
    *runtime.CHECKS,
    *dirs.CHECKS,
    *wal.CHECKS,
    *snapshots.CHECKS,
    *store.CHECKS,
    *git.CHECKS,
    *sessions.CHECKS,
    *beads.CHECKS,
    *identity.CHECKS,
    *model.CHECKS,
    *sandbox.CHECKS,
    *security.CHECKS,
    *disk.CHECKS,
    *deploy.CHECKS,
)
