"""The controller role: follow every model's events, decide how many workers each has, write it where hosts read it.

Of several controllers one decides: who holds the lease. `Controller` awaits nothing but ports and is given the time;
the shell around it has the clock, the tasks and the signals.
"""

import asyncio
import contextlib
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import uuid4

from sfumato.broker.tail import tail
from sfumato.config import Settings
from sfumato.controller.autoscaler import Autoscaler, Bounds, Decision, Rules
from sfumato.controller.deaths import Deaths
from sfumato.controller.placing import placed
from sfumato.controller.sight import Sight
from sfumato.core.errors import Deposed, SfumatoError
from sfumato.core.events import Alive, Event, Standing, Unreadable
from sfumato.core.ports import Broker, EventLog
from sfumato.core.scaling import Board, Decided, Placement, Pool
from sfumato.models.registry import Model, Registry
from sfumato.observability import gauge
from sfumato.process import any_set, begin_role, run, stop_on_signals
from sfumato.wiring import check_logs, open_ports

__all__ = ["Controller", "serve"]

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
LEAST_S: Final = 0.2
"""Decisions are so far apart at least, though a first job should not wait for the next one."""
LEASE_S: Final = 6.0
RENEW_S: Final = 2.0
"""A leader that dies is replaced within LEASE_S and a turn of the other one: well below ten seconds."""
WRITTEN_EVERY_S: Final = 5.0
"""How often an unchanged decision is written all the same, with the sentence that goes with the latest figures."""
POOL_SILENT_S: Final = 6.0
SETTLE_S: Final = 4.0
"""A host offers itself every two seconds, and an offer may take as long."""
TOLD_EVERY_S: Final = 10.0
KEPT_S: Final = 300.0
HELD_S: Final = 10.0
"""A swap costs the drain of what runs besides the start, so a place is kept for so long though a start be short."""
OFF_S: Final = 60.0
"""Decisions so old are those of a service that was off since; it begins anew, with a worker ready for each model."""


class Controller:
    """Decides for `models`; call `turn` for ever, and `sight.apply` with what the logs tell.

    `troubles` says of which models (slugs) workers end before they were heard of, and how, as the last leading turn
    saw it. `most` workers for a model whose entry doesn't say, and `lanes` for any: beyond its lanes none is given
    anything. A worker that is not needed any more stays for `kept_s`. `external`: others start the workers, as many as
    decided, so that no host's places bound them.
    """

    def __init__(
        self,
        name: str,
        board: Board,
        sight: Sight,
        *,
        most: int,
        lanes: int = sys.maxsize,
        kept_s: float | None = None,
        external: bool = False,
    ) -> None:
        self._name, self._board, self.sight = name, board, sight
        self._most, self._lanes, self._external = most, lanes, external
        self._rules = _rules(kept_s, external)
        self._autoscaler: Autoscaler | None = None
        self._led_at = self._written_at = self._answered_at = self._settled_at = float("-inf")
        self.troubles: Mapping[str, str] = {}
        self._deaths = Deaths()
        self._written: dict[str, int] = {}
        self._known: dict[str, float] = {}
        self._placed: Mapping[str, Mapping[str, Placement]] = {}

    async def turn(self, models: Sequence[Model], now: float) -> bool:
        """Decide once, if it is this one's to decide; whether it is.

        Raises:
            TransientError: the store did not answer; what was decided last stays.
        """
        try:
            autoscaler = await self._lead(now)
            self._answered(now)
            if autoscaler is None:
                return False
            pools = () if self._external else await self._board.pools(POOL_SILENT_S)
            if self._external or (pools and now >= self._settled_at):
                await self._decide(autoscaler, models, pools, now)
            heard = [model.slug for model in models if self.sight.workers(model.slug, now)]
            self.troubles = self._deaths.troubles(pools, heard)
        except Deposed as error:
            self._lose(error.detail)
            return False
        return True

    def _answered(self, now: float) -> None:
        """Once the store answers again, give every host time to offer itself, whoever leads then."""
        if not 0 <= now - self._answered_at < SETTLE_S:
            # Nobody could while it was away; who moves their workers at once would move them back a second later.
            self._settled_at = now + SETTLE_S if self._written else now
        self._answered_at = now

    def _lose(self, why: str) -> None:
        log.info("decides no more: %s", why)
        self._autoscaler = None
        # What another decides now is for that one to show.
        _unknown(self._written)

    async def resign(self) -> None:
        """Let another decide at once."""
        if self._autoscaler is not None:
            await self._board.resign(self._name)

    async def _lead(self, now: float) -> Autoscaler | None:
        """What decides, while the lease is ours."""
        if self._autoscaler is not None and 0 <= now - self._led_at < RENEW_S:
            return self._autoscaler
        if not await self._board.lead(self._name, LEASE_S):
            if self._autoscaler is not None:
                self._lose("another does")
            return None
        self._led_at = now
        if self._autoscaler is None:
            before = await self._board.decisions()
            lately = {model: each.replicas for model, each in before.items() if 0 <= now - each.at < OFF_S}
            self._autoscaler = Autoscaler(lately, self._rules)
            self._known = dict.fromkeys(lately, float("-inf"))
            self._written, self._written_at = lately, float("-inf")
            self._deaths = Deaths()
            log.info("decides how many workers there are")
        return self._autoscaler

    async def _decide(self, autoscaler: Autoscaler, models: Sequence[Model], pools: Sequence[Pool], now: float) -> None:
        bounds = {model.slug: self._bounds(model) for model in models}
        loads = {slug: load for slug in bounds if (load := self.sight.load(slug, now)) is not None}
        places = sum(bound.most for bound in bounds.values()) if self._external else sum(p.places for p in pools)
        if not self._external and sum(max(1, bound.least) for bound in bounds.values()) <= places:
            bounds = {slug: self._welcomed(slug, bound, now) for slug, bound in bounds.items()}
        decisions = autoscaler.decide(loads, bounds, places, now)
        self._tell(decisions, now)
        where = {} if self._external else self._placements(decisions, pools, now)
        counts = {slug: decision.replicas for slug, decision in decisions.items()}
        fresh = 0 <= now - self._written_at < WRITTEN_EVERY_S
        if fresh and counts == self._written and _counts(where) == _counts(self._placed):
            return
        decided = {slug: Decided(each.replicas, each.why, now) for slug, each in decisions.items()}
        await self._board.decide(self._name, decided, where)
        self._written, self._placed, self._written_at = counts, where, now

    def _bounds(self, model: Model) -> Bounds:
        its = model.scaling
        most = max(its.least, self._most) if its.most is None else its.most
        return Bounds(its.objective_s, min(its.least, self._lanes), min(most, self._lanes), its.weight)

    def _welcomed(self, model: str, bound: Bounds, now: float) -> Bounds:
        """A model that is new here has a worker for a while: its first picture needs no start, and what is wrong with
        its weights shows at once."""
        welcome = now < self._known.setdefault(model, now) + self._rules.kept_s and bound.most > 0
        return replace(bound, least=max(bound.least, 1)) if welcome else bound

    def _placements(
        self, decisions: Mapping[str, Decision], pools: Sequence[Pool], now: float
    ) -> Mapping[str, Mapping[str, Placement]]:
        idlest = {slug: tuple(alive.worker for alive in self.sight.workers(slug, now)) for slug in decisions}
        where = placed({slug: decision.replicas for slug, decision in decisions.items()}, pools)
        return {
            pool: {slug: Placement(count, idlest[slug]) for slug, count in counts.items()}
            for pool, counts in where.items()
        }

    def _tell(self, decisions: Mapping[str, Decision], now: float) -> None:
        _unknown(self._written.keys() - decisions.keys())
        for slug, decision in decisions.items():
            before = self._written.get(slug)
            if before is not None and before != decision.replicas:
                log.info("%s had %d: %s", slug, before, decision.why)
            gauge("sfumato_desired_replicas", decision.replicas, model=slug)
            gauge("sfumato_replicas", len(self.sight.workers(slug, now)), model=slug)


def _unknown(models: Iterable[str]) -> None:
    """Show nothing more of these (slugs)."""
    for slug in models:
        gauge("sfumato_desired_replicas", math.nan, model=slug)
        gauge("sfumato_replicas", math.nan, model=slug)


def _rules(kept_s: float | None, external: bool) -> Rules:
    """On one's own hosts a worker that nobody needs costs nothing and spares the next job its start; where something
    else starts workers, it is paid for."""
    if kept_s is None and external:
        return Rules()
    kept = KEPT_S if kept_s is None else kept_s
    return Rules(calm_s=kept, kept_s=kept, held_s=HELD_S)


def _counts(where: Mapping[str, Mapping[str, Placement]]) -> Mapping[str, Mapping[str, int]]:
    return {pool: {slug: each.replicas for slug, each in models.items()} for pool, models in where.items()}


# The shell: clock, tasks and signals


def serve(settings: Settings) -> int:
    """Decide until SIGTERM or SIGINT; gives the exit status.

    Raises:
        SfumatoError: the data folder or models.toml can't be used; the message says why.
    """
    begin_role("controller", settings)
    run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = stop_on_signals()
    registry = Registry.load(settings.models_file, settings.last_models_file)
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    async with open_ports(settings) as ports:
        await check_logs(ports.broker, settings, [model.slug for model in registry])
        sight = Sight(silent_s=settings.takeover_s + settings.beat_s)
        controller = Controller(
            name,
            ports.scaling,
            sight,
            most=1 if settings.workers is None else settings.workers,
            lanes=settings.kafka_work_partitions if settings.kafka_servers else sys.maxsize,
            kept_s=settings.scale_down_s,
            external=settings.scale_driver == "external",
        )
        followed = _Followed(ports.broker, sight)
        try:
            while not stop.is_set():
                registry.refresh()
                followed.follow(registry)
                try:
                    if await controller.turn(list(registry), time.time()):
                        await followed.tell(controller.troubles, name)
                except Exception as error:
                    # A controller that ends is started again and meets it again; hosts keep their workers meanwhile.
                    log.warning("what was decided last stays: %s", error, exc_info=not isinstance(error, SfumatoError))
                await any_set(LEAST_S, stop)
                await any_set(EVERY_S - LEAST_S, stop, followed.urgent)
                followed.urgent.clear()
        finally:
            await followed.close()
            with contextlib.suppress(Exception):
                await controller.resign()


class _Followed:
    """A task per model that feeds the sight from the model's event log."""

    def __init__(self, broker: Broker, sight: Sight) -> None:
        self._broker, self._sight = broker, sight
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._events: dict[str, EventLog] = {}
        self._told_at: dict[str, float] = {}
        self.urgent = asyncio.Event()

    def follow(self, registry: Registry) -> None:
        """See the models of the registry from now on; `urgent` is set when a job waits and there is no worker."""
        for slug in {model.slug for model in registry} - self._tasks.keys():
            self._events[slug] = self._broker.events(slug)
            self._tasks[slug] = asyncio.create_task(tail(slug, self._events[slug], partial(self._take, slug)))

    def _take(self, model: str, _position: int, event: Event | Unreadable) -> None:
        self._sight.apply(model, event, time.time())
        if isinstance(event, Standing) and event.waiting and not event.workers:
            self.urgent.set()

    async def tell(self, troubles: Mapping[str, str], by: str) -> None:
        """Tell of workers that can't do so themselves, because something kills them: as of ones that can't load."""
        now = time.time()
        for model, trouble in troubles.items():
            due = now - self._told_at.get(model, 0.0) >= TOLD_EVERY_S
            if due and model in self._events and not self._sight.workers(model, now):
                self._told_at[model] = now
                last = Alive(at=now, worker=by, slots=0, lanes=(), draining=True, trouble=trouble)
                await self._events[model].append([last])

    async def close(self) -> None:
        """See nothing more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
