"""`sfumato workers`: the workers of one host of a cluster, and nothing else."""

import asyncio
import os

from sfumato.config import Settings, child_environment
from sfumato.models.registry import Registry
from sfumato.observability import setup_logging
from sfumato.process import stop_on_signals
from sfumato.supervisor.keeping import Supervisor
from sfumato.supervisor.place import taken
from sfumato.supervisor.pool import keep_pool, room_for, with_room

__all__ = ["workers"]


def workers(settings: Settings) -> int:
    """Run this host's share of the workers until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the data folder can't be written, is full, or another service runs on it.
        SfumatoError: models.toml or the database can't be used; the message says why.
    """
    setup_logging("workers", settings.log_level, settings.log_format)
    with taken(settings) as ours:
        return asyncio.run(_run(ours))


async def _run(settings: Settings) -> int:
    registry = Registry.load(settings.models_file)
    registry.keep(settings.last_models_file)
    room = room_for(settings)
    settings = with_room(settings, room, list(registry))
    lifeline, ours = os.pipe()
    supervisor = Supervisor(child_environment(settings), lifeline, settings.metrics_dir)
    try:
        await keep_pool(supervisor, room, registry, settings, stop_on_signals())
        await supervisor.stop_all()
    finally:
        os.close(lifeline)
        os.close(ours)
    return 0
