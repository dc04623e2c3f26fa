"""A worker for each model, as the list of models says at the moment."""

import asyncio
import contextlib
import logging

from sfumato.config import Settings
from sfumato.models.registry import Registry
from sfumato.supervisor.keeping import STOP_WITHIN_S, Role, Supervisor, of_ours

__all__ = ["follow_models"]

log = logging.getLogger(__name__)

LOOK_S = 2.0
WORKERS_STOP = 2


async def follow_models(supervisor: Supervisor, registry: Registry, settings: Settings, stop: asyncio.Event) -> None:
    """Keep the workers that the list of models asks for, until `stop` is set."""
    await _adjust(supervisor, registry, settings)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)
        if registry.refresh():
            registry.keep(settings.last_models_file)
            log.info("the models are now: %s", ", ".join(registry.names()))
            await _adjust(supervisor, registry, settings)
    log.info("stopping; a second signal changes nothing")


async def _adjust(supervisor: Supervisor, registry: Registry, settings: Settings) -> None:
    """Start the workers of models that came, end those of models that went, and both for models that changed."""
    grace_s = settings.drain_s + 1.0
    wanted = {
        (name := f"worker {model.name} {n}"): Role(
            name, of_ours("worker", model.name), stops=WORKERS_STOP, grace_s=grace_s, model=model
        )
        for model in registry
        for n in range(settings.workers)
    }
    present = {name: child.role for name, child in supervisor.children.items() if child.role.model is not None}
    await supervisor.stop([name for name, role in present.items() if wanted.get(name) != role], STOP_WITHIN_S)
    for role in wanted.values():
        supervisor.start(role)
