"""`sfumato cluster up`: Kafka, an object store, PostgreSQL, nginx, two gateways and the other roles on one host.

Everything is a child of this one parent, the servers too, and started again when it dies. Servers come first and are
asked until they are ready; then the roles, over the settings that name them; the door last.
"""

import asyncio
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from sfumato.cluster.nginx import nginx
from sfumato.cluster.server import Recipe, ServerSilent, free_ports
from sfumato.cluster.servers import Servers, Store, planned
from sfumato.config import Settings, child_environment, inherited_environment
from sfumato.process import begin_logging, stop_on_signals
from sfumato.storage import schema
from sfumato.supervisor.keeping import Role, Supervisor, lifeline, of_ours
from sfumato.supervisor.place import address_of, listen, say_when_ready, taken
from sfumato.supervisor.pool import keep_pool, prepared

__all__ = ["up"]

log = logging.getLogger(__name__)

GATEWAYS: Final = 2
ASK_EVERY_S: Final = 0.05
TAIL_CHARS: Final = 2_000


def up(settings: Settings, store: Store, brokers: Literal[1, 3]) -> int:
    """Run the whole cluster until SIGINT or SIGTERM; gives the exit status.

    Raises:
        CannotStart: the port is taken, the data folder can't be written, is full, or another service runs on it.
        ServerMissing: a server is not on this machine; the message says how to get it.
        ServerSilent: a server did not start; the message holds the end of its log.
    """
    begin_logging("cluster", settings)
    with taken(settings) as ours:
        with listen(settings.host, settings.port) as door:
            port = door.getsockname()[1]
        return asyncio.run(_run(ours.model_copy(update={"port": port}), store, brokers))


async def _run(settings: Settings, store: Store, brokers: Literal[1, 3]) -> int:
    began, folder = time.monotonic(), settings.data_dir / "cluster"
    stop = stop_on_signals()
    with lifeline() as theirs:
        servers = Supervisor(inherited_environment(), theirs)
        roles: Supervisor | None = None
        try:
            plan = await asyncio.to_thread(planned, folder, store, brokers)
            await asyncio.to_thread(_write_environment, folder / "env", plan)
            await _start(servers, plan.recipes, folder, stops=0)
            settings = _named(settings, plan)
            await schema.upgrade(settings.rows_address)
            settings, registry, room = prepared(settings)
            roles = Supervisor(child_environment(settings), theirs, settings.metrics_dir)
            gateways = [_start_gateway(roles, *each) for each in enumerate(free_ports(GATEWAYS))]
            roles.start(Role("dispatcher", of_ours("dispatcher"), stops=1, grace_s=2.0))
            roles.start(Role("recorder", of_ours("recorder"), stops=3, grace_s=2.0))
            roles.start(Role("controller", of_ours("controller"), stops=1, grace_s=2.0))
            following = asyncio.create_task(keep_pool(roles, room, registry, settings, stop))
            door = await asyncio.to_thread(
                nginx, folder, settings.port, gateways, max_upload_bytes=settings.max_upload_bytes
            )
            await _start(servers, [door], folder, stops=0)
            await say_when_ready(address_of("127.0.0.1", settings.port))
            for name, address in plan.addresses.items():
                log.info("%s is at %s", name, address)
            log.info("other verbs reach it with: set -a; . %s; set +a", folder / "env")
            log.info("the whole took %.1f s; logs of the servers are in %s", time.monotonic() - began, folder / "logs")
            await following
            await servers.stop(["nginx"], within_s=3.0)
        finally:
            if roles is not None:
                await roles.stop_all()
            await servers.stop_all()
    return 0


def _write_environment(file: Path, plan: Servers) -> None:
    """The settings with which `sfumato db`, `storage` and roles started by hand find the servers; passwords in it."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    values = {f"SFUMATO_{name.upper()}": value for name, value in plan.settings.items()}
    file.write_text("".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items()))


def _named(settings: Settings, plan: Servers) -> Settings:
    """Our settings with the plan's in them, checked as if they came from the environment."""
    return Settings.model_validate(settings.model_dump() | plan.settings)


async def _start(servers: Supervisor, recipes: Sequence[Recipe], folder: Path, stops: int) -> None:
    """Start these and wait until each says that it is ready.

    Raises:
        ServerSilent: one did not in time; the message holds the end of its log.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        environment = tuple(recipe.environment.items())
        role = Role(
            recipe.name,
            recipe.command,
            stops=stops,
            grace_s=recipe.grace_s,
            environment=environment,
            ours=False,
            log=logs / f"{recipe.name.replace(' ', '-')}.log",
            stop_signal=recipe.stop_signal,
        )
        servers.start(role)
    await asyncio.gather(*(_wait(recipe, logs / f"{recipe.name.replace(' ', '-')}.log") for recipe in recipes))


async def _wait(recipe: Recipe, log_file: Path) -> None:
    deadline = time.monotonic() + recipe.ready_within_s
    while not await asyncio.to_thread(recipe.is_ready):
        if time.monotonic() > deadline:
            raise ServerSilent(f"{recipe.name} is not ready; its log {log_file} ends:\n{_end_of(log_file)}")
        await asyncio.sleep(ASK_EVERY_S)
    log.info("%s is ready", recipe.name)


def _end_of(log_file: Path) -> str:
    return log_file.read_text("utf-8", "replace")[-TAIL_CHARS:] if log_file.exists() else ""


def _start_gateway(roles: Supervisor, number: int, port: int) -> str:
    """Start a gateway on a port of its own; its host:port.

    It opens the port itself: while it restarts, nginx is refused there and asks the other one at once. Held open by
    this parent, requests would wait for it to come back.
    """
    place = (("SFUMATO_HOST", "127.0.0.1"), ("SFUMATO_PORT", str(port)), ("SFUMATO_GATEWAYS", str(GATEWAYS)))
    roles.start(Role(f"gateway {number}", of_ours("gateway"), stops=0, grace_s=3.0, environment=place))
    return f"127.0.0.1:{port}"
