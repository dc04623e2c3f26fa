"""How many workers one model should have if no other model wanted any. Pure: it is given the time.

Work is counted in seconds of one fully used worker. A worker that is started now takes jobs one cold start later, so
what counts is the queue at that moment, not the queue now:

    Q = waiting + λ·c − what ready and starting workers do until then        (c cold start, λ arriving work)

A job that comes then waits Q / n on n workers, which should not exceed the planned wait L: a share of the objective,
less the time of the job itself. Hence n ≥ Q / L, and for who waits already n ≥ what is left of them after c, by L − c.
Since this is asked again every second, nothing has to be started earlier than one cold start before it is needed, and
no share of a worker has to be kept free: the queue takes the fluctuations. λ is the larger of a fast and a slow
average: the longer a cold start is, the more it costs to see a flood late.

Fewer are enough when they will do for so long that starting one again costs less than was saved. With n workers a
queue W makes a job wait (W + (λ − n)·H) / n after a horizon H of some cold starts; n will do if that is below a part
of L.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Self

from sfumato.controller.load import Bounds, Load, sane, whole

__all__ = ["Demand", "Memory", "Rules", "demand"]

JOB_S: Final = 1.0
COLD_START_S: Final = 20.0
"""Both assumed until they were measured."""
MOST_ROWS: Final = 64.0
BEARABLE: Final = 0.8
"""A cold start and a job may take so much of the objective; the rest is for noticing, and for who comes at once."""
KEPT_S: Final = 300.0
KEPT_COLD_STARTS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How eager the autoscaler is.

    `aim`: share of the objective that is planned to be used; all of it is not too much, for workers are whole and the
    plan is for the worst moment. `low`: share of the planned wait below which a worker may go. `horizon` (cold starts):
    how long fewer workers must be enough. `calm_s`: for how long that must have been so. `kept_s`: so long the last
    worker stays at least. `warm` (cold starts): how long it stays without a job, where the objective leaves time for a
    cold start. `held_s`: so long at least a ready worker keeps its place from other models.
    """

    aim: float = 1.0
    low: float = 0.5
    horizon: float = 3.0
    calm_s: float = 5.0
    warm: float = 0.25
    kept_s: float = 0.0
    held_s: float = 0.0


@dataclass(slots=True)
class Memory:
    """What is remembered of one model between two decisions; times in seconds of the autoscaler's own clock.

    `rows`: the most jobs that one worker was seen to run at once; `started`: when its last workers were; `raised_at`:
    when the last of them was; `ready_at`: when one was first seen ready since there was none; `surplus_at`: since when
    fewer would be enough; `busy_at`: when it last had a job; `unserved_at`: since when it has jobs and no place.
    """

    replicas: int = 0
    rows: float = 1.0
    started: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    raised_at: float = -math.inf
    ready_at: float = math.inf
    surplus_at: float = math.inf
    busy_at: float = -math.inf
    unserved_at: float = math.inf

    @classmethod
    def taken_over(cls, replicas: int) -> Self:
        """Of a model of which only the count is known: as if all had been started and had had a job just now."""
        count = max(replicas, 0)
        return cls(count, started=deque([0.0] * min(count, 64), maxlen=64), busy_at=0.0)


@dataclass(frozen=True, slots=True)
class Demand:
    """So many workers, why, and what the sharing of places asks: how many seconds of work wait per second planned."""

    replicas: int
    cause: str
    pressure: float
    busy: bool
    cold_start_s: float


def demand(load: Load, bound: Bounds, memory: Memory, rules: Rules, now: float) -> Demand:
    """What this model wants now, within its bounds. `memory` is brought up to date, but for what is decided."""
    most = max(bound.most, 0)
    least = min(max(bound.least, 0), most)
    if load.waiting > 0 or load.running > 0:
        memory.busy_at = now
        plan = _planned(load, bound, memory, rules, now)
        replicas, cause = _busy(plan, memory, rules, now)
        if load.broken:
            replicas, cause = min(replicas, max(load.workers, 1)), "a worker could not load the model, so one tries"
    else:
        plan = None
        replicas, cause = _idle(load, bound, memory, rules, now)
    if replicas > most:
        cause = f"it may have {most} at most" if most else "it may have none (max_workers, SFUMATO_WORKERS)"
    elif replicas < least:
        cause = f"it has {least} at least"
    replicas = max(least, min(replicas, most))
    cold_start_s = sane(load.cold_start_s) or COLD_START_S
    return Demand(replicas, cause, plan.pressure if plan else 0.0, plan is not None, cold_start_s)


def _busy(plan: "_Plan", memory: Memory, rules: Rules, now: float) -> tuple[int, str]:
    """(workers, cause) for a model with jobs."""
    had = memory.replicas
    if plan.needed > had:
        memory.surplus_at = math.inf
        return plan.needed, plan.cause(had)
    if plan.enough >= had:
        memory.surplus_at = math.inf
        return had, f"fewer would let the wait near the {plan.wait_s:.0f} s planned"
    if plan.starting:
        memory.surplus_at = math.inf
        return had, "what is starting is not given up before it is ready"
    cause = f"{plan.enough} {'is' if plan.enough == 1 else 'are'} enough for the next {plan.horizon_s:.0f} s"
    if _calm(memory, rules, now):
        return plan.enough, cause
    return had, f"{cause}, if it stays so"


def _idle(load: Load, bound: Bounds, memory: Memory, rules: Rules, now: float) -> tuple[int, str]:
    """(workers, cause) for a model without jobs: one for a while, then none."""
    warm_s = memory.busy_at + _kept_s(load, bound, memory, rules) - now
    if memory.replicas > 1:
        return (1 if _calm(memory, rules, now) else memory.replicas), "one is enough if no job comes"
    memory.surplus_at = math.inf
    if memory.replicas and warm_s > 0:
        return 1, f"it stays warm for {warm_s:.0f} s more"
    return 0, "it may rest until the next job"


def _calm(memory: Memory, rules: Rules, now: float) -> bool:
    """Whether fewer have been enough for a while, this moment included."""
    memory.surplus_at = min(memory.surplus_at, now)
    return now - memory.surplus_at >= rules.calm_s


@dataclass(frozen=True, slots=True)
class _Plan:
    """`needed` workers for the queue ahead, `enough` that will do for a while, and the numbers behind them.

    `starting` workers are not ready yet and not overdue.
    """

    needed: int
    enough: int
    starting: int
    pressure: float
    wait_s: float
    late_s: float
    cold_start_s: float
    horizon_s: float

    def cause(self, had: int) -> str:
        """Why there must be more than `had`."""
        if not had:
            return "jobs start one" if self.needed == 1 else f"with one a wait of {self.late_s:.0f} s is ahead"
        return (
            f"with {had} a wait of {self.late_s:.0f} s is ahead, {self.wait_s:.0f} s are planned, "
            f"and a new one takes {self.cold_start_s:.0f} s to start"
        )


def _planned(load: Load, bound: Bounds, memory: Memory, rules: Rules, now: float) -> _Plan:
    job_s = sane(load.seconds_per_job) or JOB_S
    cold_s = sane(load.cold_start_s) or COLD_START_S
    waiting_s = sane(load.waiting_work_s) or max(load.waiting, 0) * job_s
    arriving = max(sane(load.arriving_fast), sane(load.arriving_slow))
    ready = max(load.workers, 0)
    if ready:
        memory.rows = max(memory.rows, min(max(load.running, 0) / ready, MOST_ROWS))
    wait_s = max(rules.aim * sane(bound.objective_s) - memory.rows * job_s, job_s, 1e-3)
    due = _due(memory, ready, cold_s, now)
    done_s = ready * cold_s + sum(min(now - at, cold_s) for at in due)
    ahead_s = max(waiting_s + arriving * cold_s - done_s, 0.0)
    left_s = max(waiting_s - done_s, 0.0)
    needed = max(1, whole(max(ahead_s / wait_s, left_s / max(wait_s - cold_s, job_s, 1e-3))))
    horizon_s = rules.horizon * cold_s
    enough = max(needed, whole((waiting_s + arriving * horizon_s) / (rules.low * wait_s + horizon_s)))
    return _Plan(
        needed=needed,
        enough=enough,
        starting=len(due),
        pressure=max(waiting_s / wait_s, arriving),
        wait_s=wait_s,
        late_s=ahead_s / max(memory.replicas, 1),
        cold_start_s=cold_s,
        horizon_s=horizon_s,
    )


def _due(memory: Memory, ready: int, cold_s: float, now: float) -> list[float]:
    """When those workers were started that are not ready and are still counted on.

    One that should have been ready a whole cold start ago is not.
    """
    starting = max(memory.replicas - ready, 0)
    recent = list(memory.started)[-starting:] if starting else []
    return [at for at in recent if now - at < 2 * cold_s]


def _kept_s(load: Load, bound: Bounds, memory: Memory, rules: Rules) -> float:
    """How long the last worker stays without a job.

    Where the objective leaves time for a cold start, a stop costs no job its objective, and hardly any GPU time: the
    jobs that come during the start are then served as one full batch. Else it costs the next job its objective.
    """
    cold_s = sane(load.cold_start_s) or COLD_START_S
    job_s = memory.rows * (sane(load.seconds_per_job) or JOB_S)
    if cold_s + job_s <= BEARABLE * sane(bound.objective_s):
        return max(rules.kept_s, rules.warm * cold_s)
    return max(KEPT_S, rules.kept_s, KEPT_COLD_STARTS * cold_s)
