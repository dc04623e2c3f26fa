"""`sfumato workers`: the workers of one host of a cluster, and nothing else."""

import asyncio

from sfumato.config import Settings, child_environment
from sfumato.process import begin_logging, stop_on_signals
from sfumato.supervisor.keeping import Supervisor, lifeline
from sfumato.supervisor.place import taken
from sfumato.supervisor.pool import keep_pool, prepared

__all__ = ["workers"]


def workers(settings: Settings) -> int:
    """Run this host's share of the workers until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the data folder can't be written, is full, or another service runs on it.
        SfumatoError: models.toml or the database can't be used; the message says why.
    """
    begin_logging("workers", settings)
    with taken(settings) as ours:
        return asyncio.run(_run(ours))


async def _run(settings: Settings) -> int:
    settings, registry, room = prepared(settings)
    stop = stop_on_signals()
    with lifeline() as theirs:
        supervisor = Supervisor(child_environment(settings), theirs, settings.metrics_dir)
        try:
            await keep_pool(supervisor, room, registry, settings, stop)
        finally:
            await supervisor.stop_all()
    return 0
