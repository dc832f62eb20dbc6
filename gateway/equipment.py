"""What one process has for all its lives, made before the first of them and asked for nothing yet.

settings ─┬▶ means      disk, clock, ids, redactor: what a log works with
          ├▶ storage    the copies, where there are any to be
          ├▶ metrics    what is counted
          └▶ lobby      who is connected
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.model import Model
from gateway.auth import Auth
from gateway.lobby import Lobby
from gateway.metrics import Metrics
from gateway.routes.health import release_of
from gateway.settings import Entrance, Settings
from persistence.clock import Clock, Entropy, Ids
from persistence.disk import SystemDisk
from persistence.fold import Fold
from persistence.measure import Observe
from persistence.redact import Redactor
from persistence.replay import Means

if TYPE_CHECKING:
    from gateway.storage import Storage


@dataclass(frozen=True)
class Equipment:
    """The parts of a process that outlast a life."""

    settings: Settings
    entrance: Entrance
    folds: tuple[Fold[Any], ...]
    model: Model
    clock: Clock
    entropy: Entropy
    means: Means
    storage: "Storage | None"
    metrics: Metrics
    lobby: Lobby

    @property
    def about(self) -> dict[str, str | None]:
        """What an operator wants to know of a start. Nothing here is secret."""
        settings, release = self.settings, release_of(self.settings)
        return {
            "version": release["version"],
            "release": release["releaseId"],
            "data_dir": str(settings.data_dir),
            "store": settings.store_url,
            "git": settings.git_remote.url if settings.git_remote else None,
            "durability": settings.durability,
            "model": f"{self.model.about.provider}:{self.model.about.name}",
        }


def equip(
    settings: Settings,
    model: Model,
    auth: Auth,
    clock: Clock,
    entropy: Entropy,
    *,
    port: int,
    folds: tuple[Fold[Any], ...],
) -> Equipment:
    """Everything that these settings ask for. Raises UsageError for a URL that names no store."""
    redactor = Redactor({**settings.secrets, "FINN_TOKEN": auth.token.reveal()})
    ids, metrics, disk = Ids(clock, entropy), Metrics(), SystemDisk()
    storage = _storage(settings, disk, clock, entropy, ids, metrics.observe)
    means = Means(disk, clock, ids, redactor, replicated=bool(settings.store_url), observe=metrics.observe)
    if storage is not None:
        means = replace(means, fetch=storage.fetch, admit=storage.admit)
    return Equipment(
        settings=settings,
        entrance=settings.entrance(port),
        folds=folds,
        model=model,
        clock=clock,
        entropy=entropy,
        means=means,
        storage=storage,
        metrics=metrics,
        lobby=Lobby(auth),
    )


def _storage(
    settings: Settings, disk: SystemDisk, clock: Clock, entropy: Entropy, ids: Ids, observe: Observe
) -> "Storage | None":
    if not (settings.store_url or settings.git_remote):
        return None
    from gateway.storage import Storage  # imported on use: what is not set costs no import

    release = release_of(settings)["releaseId"]
    return Storage(settings, release, disk=disk, clock=clock, entropy=entropy, ids=ids, observe=observe)
