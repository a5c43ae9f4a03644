"""Rebuilds of read models from the log, for `bioscope rebuild` and `bioscope migrate`."""

from collections.abc import Callable
from contextlib import closing
from functools import partial

from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.eventstore.garbage_collection import infrequent_collection
from infrastructure.postgres.profiles import OWNER
from projections.engine import postgres_store
from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer
from projections.engine.postgres_store import PostgresReadModels
from projections.process.composition import projector_over
from projections.rebuild import rebuilding
from projections.rebuild.rebuilding import RebuildLimits, RebuildResult


def rebuild(
    settings: Settings,
    *,
    check: bool,
    progress: rebuilding.Progress = lambda *_: None,
    limits: RebuildLimits = rebuilding.DEFAULT_LIMITS,
) -> RebuildResult:
    """Rebuild the read models from the log; with `check`, only compare them with the live ones. Raises AlreadyRebuilding."""
    url = settings.postgres_owner_url or settings.postgres_url
    with open_event_store(settings) as log, OWNER.connect_unmonitored(url) as owner, infrequent_collection():
        over = partial(projector_over, url, log, exclusive=True)
        return rebuilding.rebuild(owner, projector_over=over, log=log, check=check, progress=progress, limits=limits)


def rebuild_if_folds_differ(settings: Settings, *, on_start: Callable[[str], object] = lambda _: None) -> bool:
    """Rebuild the read models if an older release made them with other fold versions; return whether that was done.

    `on_start` is called with the reason first. Raises UpgradeNeeded if the log has events of a newer release, and FoldsDiffer if a newer
    release made the read models. They stay unchanged then, since this process may have been restarted during an upgrade.
    """
    with closing(PostgresReadModels(postgres_store.connect(settings.postgres_owner_url or settings.postgres_url))) as models:
        try:
            models.read_checkpoint()
        except FoldsDiffer as difference:
            if difference.is_newer:
                raise
            on_start(difference.reason)
        except CheckpointUnfit:
            return False  # `/health/ready` reports it
        else:
            return False
    rebuild(settings, check=False)
    return True
