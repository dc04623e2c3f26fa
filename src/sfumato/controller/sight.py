"""What the controller sees of each model in its event log, as the autoscaler wants it told. Pure."""

from collections.abc import Sequence
from typing import Final

from sfumato.controller.autoscaler import Load
from sfumato.core.events import Alive, Event, Unreadable
from sfumato.core.seen import Seen

__all__ = ["Sight"]

STALE_S: Final = 30.0
"""A dispatcher tells its standing every 10 s at least; after so long nothing is known of its model any more."""


class Sight:
    """The latest of every model. A worker silent for `silent_s` is gone. Times are this process's, Unix seconds."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._models: dict[str, Seen] = {}

    def apply(self, model: str, event: Event | Unreadable, now: float) -> None:
        """Take in one event of the model's log."""
        self._seen(model).apply(event, now)

    def workers(self, model: str, now: float) -> Sequence[Alive]:
        """The workers that live and stay, those with the least to do first."""
        return sorted(self._seen(model).workers(now), key=lambda alive: (len(alive.running), alive.worker))

    def load(self, model: str, now: float) -> Load | None:
        """The model's load; None while no dispatcher tells of it."""
        seen = self._seen(model)
        standing = seen.standing
        if standing is None or abs(now - seen.told_at) > STALE_S:
            return None
        workers = seen.workers(now)
        pace = standing.worker_cost_per_s
        fast, slow = standing.arriving
        oldest = standing.oldest_created_at
        return Load(
            waiting=standing.waiting,
            running=standing.running,
            waiting_work_s=standing.waiting_cost / pace if pace else 0.0,
            arriving_fast=fast / pace if pace else 0.0,
            arriving_slow=slow / pace if pace else 0.0,
            oldest_wait_s=0.0 if oldest is None else max(0.0, now - oldest),
            seconds_per_job=standing.mean_cost / pace if pace else 0.0,
            cold_start_s=standing.cold_start_s,
            workers=len(workers),
            broken=bool(seen.trouble) and not workers,
        )

    def _seen(self, model: str) -> Seen:
        return self._models.get(model) or self._models.setdefault(model, Seen(self._silent_s))
