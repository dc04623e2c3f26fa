"""The workers of one host: as many of each model as the controller decided, and no more at once than there are places.

The decisions are read from the database of the rows. While that is away, what was read last stays.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sfumato.config import Settings
from sfumato.core.errors import SfumatoError
from sfumato.core.scaling import Ends, Offers, Placement
from sfumato.models.registry import Model, Registry, Scaling
from sfumato.process import NOT_NEEDED, any_set
from sfumato.supervisor.keeping import STOP_WITHIN_S, Role, Supervisor, of_ours

__all__ = ["Offer", "Pool", "Room", "gpus_of_driver", "keep_pool", "prepared", "room_for", "takes_gpu"]

log = logging.getLogger(__name__)

ADJUST_EVERY_S: Final = 0.2
ASK_EVERY_S: Final = 0.5
OFFER_EVERY_S: Final = 2.0
"""An offer is a write, and what is not heard of for six seconds is gone (POOL_SILENT_S of the controller)."""
LOOK_EVERY_S: Final = 2.0
WORKERS_STOP: Final = 2
GPUS: Final = Path("/proc/driver/nvidia/gpus")


class Room:
    """How many workers a host may run at once, and on which GPUs (as CUDA names them; none: on the CPU).

    `places` 0 is one for each GPU, or without any `workers` for each model.
    """

    def __init__(self, places: int, workers: int, gpus: Sequence[str]) -> None:
        self._places, self.workers, self.gpus = places, workers, tuple(gpus)

    def places(self, models: Sequence[Model]) -> int:
        """Places for these models; GPUs count where one of them could use one."""
        gpus = len(self.gpus) if any(takes_gpu(model) for model in models) else 0
        return self._places or gpus or self.workers * len(models)

    def device(self, place: int) -> tuple[tuple[str, str], ...]:
        """What the worker at this place (counted from 0) is told of its device, as environment."""
        return (("CUDA_VISIBLE_DEVICES", self.gpus[place % len(self.gpus)]),) if self.gpus else ()


def room_for(settings: Settings, gpus_of: Path | None = None) -> Room:
    """What this host has for workers, as the settings say or the NVIDIA driver tells in `gpus_of`."""
    if settings.gpus is None:
        gpus = gpus_of_driver(gpus_of)
    else:
        # As CUDA reads it: what is no device ends the list.
        named = [each.strip() for each in settings.gpus.split(",")]
        gpus = list(itertools.takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), named))
    workers = settings.workers if settings.workers is not None else max(1, len(gpus))
    return Room(settings.places, workers, gpus)


def gpus_of_driver(folder: Path | None = None) -> list[str]:
    """The GPUs that the NVIDIA driver tells in its folder, as CUDA numbers them."""
    folder = folder or GPUS
    return [str(number) for number, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


def takes_gpu(model: Model) -> bool:
    """Whether a worker of this model works on a GPU where there is one."""
    return model.backend == "diffusers" and model.device != "cpu"


def prepared(settings: Settings) -> tuple[Settings, Registry, Room]:
    """What a parent of workers begins with: the settings for its roles, with what this host has for workers written
    out, the models, which are kept for a start with a broken models.toml, and that room itself.

    Raises:
        BadModels: models.toml is not right, or no model in it can be served.
    """
    registry = Registry.load(settings.models_file)
    registry.keep(settings.last_models_file)
    room = room_for(settings)
    places = max(1, room.places(list(registry)))
    return settings.model_copy(update={"workers": room.workers, "live_workers": places}), registry, room


class Pool:
    """Starts and ends workers; call `adjust` whenever something may have changed.

    A worker that is told to stop may take `grace_s`, one that is not needed any more `patience_s`.
    """

    def __init__(self, supervisor: Supervisor, room: Room, grace_s: float, patience_s: float) -> None:
        self._supervisor, self._room = supervisor, room
        self._grace_s, self._patience_s = grace_s, patience_s
        self._leaving: dict[asyncio.Task[None], int] = {}
        self._places: dict[str, int] = {}

    def adjust(self, models: Sequence[Model], wanted: Mapping[str, Placement]) -> None:
        """One step towards what is wanted (by slug) of these models; what has to leave first is waited for."""
        self._reap()
        current = {model.slug: _plain(model) for model in models}
        running: dict[str, list[str]] = {}
        for name, child in list(self._supervisor.children.items()):
            model = child.role.model
            if model is None:
                continue
            if current.get(model.slug) != model:
                self._leave(name, self._supervisor.stop([name], STOP_WITHIN_S))
            else:
                running.setdefault(model.slug, []).append(name)
        for slug, names in running.items():
            placement = wanted.get(slug, Placement(0))
            for name in self._to_end(names, len(names) - placement.replicas, placement.idlest):
                self._leave(name, self._supervisor.release(name, NOT_NEEDED, self._patience_s))
                names.remove(name)
        self._start(models, {slug: len(names) for slug, names in running.items()}, wanted)

    def ends(self) -> Mapping[str, Ends]:
        """Slug → how often its present workers have ended by themselves."""
        found: dict[str, Ends] = {}
        for child in self._supervisor.children.values():
            if (model := child.role.model) is not None and child.ends:
                found[model.slug] = Ends(child.ends, child.how).after(found.get(model.slug))
        return found

    def _start(self, models: Sequence[Model], running: Mapping[str, int], wanted: Mapping[str, Placement]) -> None:
        """Start what is missing, one of each model in turn, while there is a free place."""
        missing = Counter(
            {m.slug: wanted[m.slug].replicas - running.get(m.slug, 0) for m in models if m.slug in wanted}
        )
        taken = {*self._places.values(), *self._leaving.values()}
        free = [place for place in range(self._room.places(models)) if place not in taken]
        while free and any(count > 0 for count in missing.values()):
            for model in models:
                if missing[model.slug] > 0 and free:
                    missing[model.slug] -= 1
                    self._start_one(model, free.pop(0))

    def _start_one(self, model: Model, place: int) -> None:
        used = {name for name in self._supervisor.children if name.startswith(f"worker {model.name} ")}
        number = next(n for n in range(len(used) + 1) if f"worker {model.name} {n}" not in used)
        name = f"worker {model.name} {number}"
        self._places[name] = place
        role = Role(
            name,
            of_ours("worker", model.name),
            stops=WORKERS_STOP,
            grace_s=self._grace_s,
            environment=self._room.device(place),
            model=_plain(model),
        )
        self._supervisor.start(role)

    def _leave(self, name: str, leaving: Coroutine[Any, Any, None]) -> None:
        # Its place stays taken until it has left: the memory of its device is its own until then.
        self._leaving[asyncio.create_task(leaving)] = self._places.pop(name, -1)

    def _to_end(self, names: Sequence[str], surplus: int, idlest: Sequence[str]) -> Sequence[str]:
        """Which `surplus` workers to end: those that never got ready, then those with the least to do."""
        if surplus <= 0:
            return ()
        return sorted(names, key=lambda name: self._rank(name, idlest))[:surplus]

    def _rank(self, name: str, idlest: Sequence[str]) -> tuple[int, str]:
        process = self._supervisor.children[name].process
        own = f"{socket.gethostname()}-{process.pid if process else 0}-"
        return next((n for n, worker in enumerate(idlest) if worker.startswith(own)), -1), name

    def _reap(self) -> None:
        for task in [task for task in self._leaving if task.done()]:
            del self._leaving[task]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a worker could not be ended: %s", error)


def _plain(model: Model) -> Model:
    """The model without what is the controller's alone: a change of that restarts nobody."""
    return replace(model, scaling=Scaling())


async def keep_pool(
    supervisor: Supervisor, room: Room, registry: Registry, settings: Settings, stop: asyncio.Event
) -> None:
    """Keep the workers that the controller wants here of the models of the list, until `stop` is set.

    Raises:
        SfumatoError: the database of the decisions can't be used.
    """
    # Only now: the children that are starting need the cores more than this does.
    from sfumato.wiring import open_scaling

    pool = Pool(supervisor, room, settings.drain_s + 1.0, settings.scale_drain_s + settings.drain_s)
    async with open_scaling(settings) as offers:
        offer = Offer(offers, f"{socket.gethostname()}-{_pool_id(settings.data_dir / 'pool-id')}")
        looked_at, clock = float("-inf"), asyncio.get_running_loop().time
        try:
            while not stop.is_set():
                if clock() - looked_at >= LOOK_EVERY_S:
                    looked_at = clock()
                    if registry.refresh():
                        registry.keep(settings.last_models_file)
                        log.info("the models are now: %s", ", ".join(registry.names()))
                offer.renew(room.places(list(registry)), pool.ends(), clock())
                pool.adjust(list(registry), offer.wanted)
                await any_set(ADJUST_EVERY_S, stop)
            log.info("stopping; a second signal changes nothing")
        finally:
            await offer.withdraw()


def _pool_id(file: Path) -> str:
    """What tells this host from another of its name, kept in its data folder."""
    if not file.exists():
        file.write_text(uuid4().hex[:8])
    return file.read_text().strip()


class Offer:
    """This host's places, offered again and again without waiting; `wanted` is the latest answer."""

    def __init__(self, offers: Offers, host: str) -> None:
        self._offers, self._host = offers, host
        self._asked: asyncio.Task[Mapping[str, Placement]] | None = None
        self._asked_at = self._offered_at = float("-inf")
        self.wanted: Mapping[str, Placement] = {}

    def renew(self, places: int, ends: Mapping[str, Ends], now: float) -> None:
        """Take in what was read, and ask again when it is time (`now` in seconds of any clock)."""
        if self._asked is not None and self._asked.done():
            try:
                self.wanted = self._asked.result()
            except Exception as error:
                # Whatever is wrong with the database, this process is the parent of all others.
                foreseen = isinstance(error, SfumatoError)
                log.warning("the workers stay as they are: %s", error, exc_info=not foreseen)
            self._asked = None
        if self._asked is None and now - self._asked_at >= ASK_EVERY_S:
            self._asked_at = now
            self._asked = asyncio.create_task(self._ask(places, ends, now))

    async def _ask(self, places: int, ends: Mapping[str, Ends], now: float) -> Mapping[str, Placement]:
        if now - self._offered_at >= OFFER_EVERY_S:
            await self._offers.offer(self._host, places, ends)
            self._offered_at = now
        return await self._offers.placed(self._host)

    async def withdraw(self) -> None:
        """Offer nothing more."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
        with contextlib.suppress(Exception):  # it is missed within seconds all the same
            await self._offers.withdraw(self._host)
