"""How many workers each model should have, from what its dispatcher tells. Pure: it is given the time.

Work is counted in seconds of one worker that is fully used, so that large and small jobs, and batches of any size, are
in one unit; what arrives per second is then the number of workers that it keeps busy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Autoscaler", "Bounds", "Decision", "Load"]

BUSY: Final = 0.8
"""Share of its time that a worker is planned to work; the rest takes the fluctuations."""
KEPT_S: Final = 300.0
KEPT_COLD_STARTS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """One model's load at a moment.

    `waiting` and `running` are jobs, `waiting_work_s` the work of the waiting ones; `arriving_fast` and `arriving_slow`
    the work that arrives per second, averaged over 10 and 60 s; `oldest_wait_s` how long the oldest has waited;
    `seconds_per_job` the work of one job and `cold_start_s` the time from starting a worker to its first job, both 0
    while unknown; `workers` how many take jobs now; `broken` that its last worker could not load the model.
    """

    waiting: int = 0
    running: int = 0
    waiting_work_s: float = 0.0
    arriving_fast: float = 0.0
    arriving_slow: float = 0.0
    oldest_wait_s: float = 0.0
    seconds_per_job: float = 0.0
    cold_start_s: float = 0.0
    workers: int = 0
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a model may have: `least` to `most` workers, its latency objective (accept to result, seconds), and how
    much its waiting jobs weigh beside those of other models."""

    objective_s: float = 30.0
    least: int = 0
    most: int = 1
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """So many workers, and one sentence that says why."""

    replicas: int
    why: str


class Autoscaler:
    """Call `decide` as often as something is known. `replicas` is what an earlier leader decided last."""

    def __init__(self, replicas: Mapping[str, int] | None = None, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._replicas = dict(replicas or {})
        self._needed_at: dict[str, float] = {}

    def decide(
        self, loads: Mapping[str, Load], bounds: Mapping[str, Bounds], places: int, now: float
    ) -> Mapping[str, Decision]:
        """Workers for each model in `bounds`, at most `places` in all; models without a load keep what they have."""
        decisions, left = {}, places
        for model, bound in bounds.items():
            load = loads.get(model)
            had = self._replicas.get(model, 0)
            wanted = max(had, bound.least) if load is None else self._wanted(model, load, bound, had, now)
            replicas = min(left, wanted)
            left -= replicas
            self._replicas[model] = replicas
            decisions[model] = Decision(replicas, f"{wanted} wanted, {places} places")
        return decisions

    def _wanted(self, model: str, load: Load, bound: Bounds, had: int, now: float) -> int:
        busy = load.waiting + load.running
        per_job = load.seconds_per_job or 1.0
        spare_s = max(bound.objective_s - (0.0 if load.workers else load.cold_start_s), per_job)
        arriving = max(load.arriving_fast, load.arriving_slow)
        needed = math.ceil(arriving / BUSY + load.waiting_work_s / spare_s) if busy else 0
        needed = max(bound.least, min(bound.most, max(needed, 1 if busy else 0)))
        if needed >= had:
            self._needed_at[model] = now
            return needed
        kept_s = max(self._kept_s, KEPT_COLD_STARTS * load.cold_start_s)
        return had if now < self._needed_at.setdefault(model, now) + kept_s else needed
