"""`sfumato up`: the whole service as children of one parent, over SQLite and a folder.

The parent binds the listening socket and hands it down, so a gateway that restarts loses no connection.
"""

import asyncio
import socket

from sfumato.config import Settings, child_environment
from sfumato.process import begin_logging, stop_on_signals
from sfumato.supervisor.keeping import Role, Supervisor, lifeline, of_ours
from sfumato.supervisor.place import address_of, check_keys, listen, say_when_ready, taken
from sfumato.supervisor.pool import keep_pool, prepared

__all__ = ["up"]


def up(settings: Settings) -> int:
    """Run the embedded service until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the port is taken, the data folder can't be written, is full, another service runs on it, or
            others could reach it and there is no key.
    """
    begin_logging("up", settings)
    with taken(settings) as ours:
        return _up(ours)


def _up(ours: Settings) -> int:
    check_keys(ours)
    with listen(ours.host, ours.port) as listener:
        host, port = listener.getsockname()[:2]
        return asyncio.run(_run(ours.model_copy(update={"port": port}), listener, address_of(host, port)))


async def _run(settings: Settings, listener: socket.socket, address: str) -> int:
    settings, registry, room = prepared(settings)
    stop = stop_on_signals()
    with lifeline() as theirs:
        supervisor = Supervisor(child_environment(settings), theirs, settings.metrics_dir)
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
    return 0
