"""`sfumato up`: the whole service as children of one parent, over SQLite and a folder.

The parent binds the listening socket and hands it down, so a gateway that restarts loses no connection.
"""

import asyncio
import os
import socket

from sfumato.config import Settings, child_environment
from sfumato.models.registry import Registry
from sfumato.observability import setup_logging
from sfumato.process import stop_on_signals
from sfumato.supervisor.keeping import Role, Supervisor, of_ours
from sfumato.supervisor.place import address_of, check_keys, listen, say_when_ready, taken
from sfumato.supervisor.pool import keep_pool, room_for, with_room

__all__ = ["up"]


def up(settings: Settings) -> int:
    """Run the embedded service until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the port is taken, the data folder can't be written, is full, another service runs on it, or
            others could reach it and there is no key.
    """
    setup_logging("up", settings.log_level, settings.log_format)
    with taken(settings) as ours:
        return _up(ours)


def _up(ours: Settings) -> int:
    check_keys(ours)
    with listen(ours.host, ours.port) as listener:
        host, port = listener.getsockname()[:2]
        return asyncio.run(_run(ours.model_copy(update={"port": port}), listener, address_of(host, port)))


async def _run(settings: Settings, listener: socket.socket, address: str) -> int:
    registry = Registry.load(settings.models_file)
    registry.keep(settings.last_models_file)
    room = room_for(settings)
    settings = with_room(settings, room, list(registry))
    lifeline, ours = os.pipe()
    stop = stop_on_signals()
    supervisor = Supervisor(child_environment(settings), lifeline, settings.metrics_dir)
    try:
        fd = listener.fileno()
        supervisor.start(Role("gateway", of_ours("gateway", "--fd", str(fd)), stops=0, grace_s=3.0, fds=(fd,)))
        supervisor.start(Role("dispatcher", of_ours("dispatcher"), stops=1, grace_s=2.0))
        supervisor.start(Role("recorder", of_ours("recorder"), stops=3, grace_s=2.0))
        supervisor.start(Role("controller", of_ours("controller"), stops=1, grace_s=2.0))
        ready = asyncio.create_task(say_when_ready(address))
        try:
            await keep_pool(supervisor, room, registry, settings, stop)
        finally:
            ready.cancel()
            await supervisor.stop_all()
    finally:
        os.close(lifeline)
        os.close(ours)
    return 0
