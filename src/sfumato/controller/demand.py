"""How many workers one model should have if no other model wanted any. Pure: it is given the time.

Work is counted in seconds of one fully used worker. A worker that is started now takes jobs one cold start later, so
what counts is the queue at that moment, not the queue now:

    Q = waiting + λ·c − what ready and starting workers do until then        (c cold start, λ arriving work)

A job that comes then waits Q / n on n workers, which should not exceed the planned wait L: a share of the objective,
less the time of the job itself. Hence n ≥ Q / L, and for who waits already n ≥ what is left of them after c, by L − c.
Since this is asked again every second, nothing has to be started earlier than one cold start before it is needed, and
no share of a worker has to be kept free: the queue takes the fluctuations.

Fewer are enough when they will do for so long that starting one again costs less than was saved. With n workers a
queue W makes a job wait (W + (λ − n)·H) / n after a horizon H of some cold starts; n will do if that is below a part
of L.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from sfumato.controller.load import Bounds, Load, sane, whole

__all__ = ["Demand", "Memory", "Rules", "demand"]

JOB_S: Final = 1.0
COLD_START_S: Final = 20.0
"""Both assumed until they were measured."""
KEPT_S: Final = 300.0
KEPT_COLD_STARTS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How eager the autoscaler is.

    `aim`: share of the objective that is planned to be used; the rest takes what nobody could foresee. `low`: share of
    the planned wait below which a worker may go. `horizon` (cold starts): how long fewer workers must be enough.
    `calm_s`: for how long that must have been so. `kept_s`: so long the last worker stays at least. `warm` (cold
    starts): how long it stays without a job, where the objective leaves time for a cold start.
    """

    aim: float = 1.0
    low: float = 0.5
    horizon: float = 3.0
    calm_s: float = 5.0
    warm: float = 0.25
    kept_s: float = 0.0


@dataclass(slots=True)
class Memory:
    """What is remembered of one model between two decisions: what it was given and when; seconds of our own clock.

    `rows`: the most jobs that one worker was seen to run at once; `surplus_at`: since when fewer would be enough;
    `busy_at`: when it last had a job; `unserved_at`: since when it has jobs and no place.
    """

    replicas: int = 0
    rows: float = 1.0
    raised_at: float = -math.inf
    surplus_at: float = math.inf
    busy_at: float = -math.inf
    unserved_at: float = math.inf
    started: deque[float] = field(default_factory=lambda: deque(maxlen=64))


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
    jobs = max(load.waiting, 0) + max(load.running, 0)
    cold_start_s = sane(load.cold_start_s) or COLD_START_S
    most = max(bound.most, 0)
    least = min(max(bound.least, 0), most)
    if not jobs:
        memory.surplus_at = math.inf
        warm_s = memory.busy_at + _kept_s(load, bound, memory, rules, cold_start_s) - now
        kept = min(memory.replicas, 1) if warm_s > 0 else 0
        cause = f"the last one stays warm for {warm_s:.0f} s more" if kept else "it may rest until the next job"
        return Demand(max(least, min(kept, most)), cause, 0.0, False, cold_start_s)
    memory.busy_at = now
    needed, enough, plan = _needed(load, bound, memory, rules, now)
    had = memory.replicas
    if needed > had:
        memory.surplus_at = math.inf
        replicas, cause = needed, plan.cause(had, needed)
    elif enough >= had:
        memory.surplus_at = math.inf
        replicas, cause = had, f"fewer would let the wait near the {plan.wait_s:.0f} s planned"
    elif now - memory.raised_at < cold_start_s:
        memory.surplus_at = math.inf
        replicas, cause = had, "what was started lately is not given up before it is ready"
    else:
        memory.surplus_at = min(memory.surplus_at, now)
        calm = now - memory.surplus_at >= rules.calm_s
        replicas = enough if calm else had
        cause = f"{enough} {_are(enough)} enough for the next {plan.horizon_s:.0f} s" + (
            "" if calm else ", if it stays so"
        )
    return Demand(max(least, min(replicas, most)), cause, plan.pressure, True, cold_start_s)


@dataclass(frozen=True, slots=True)
class _Plan:
    wait_s: float
    late_s: float
    cold_start_s: float
    horizon_s: float
    pressure: float

    def cause(self, had: int, needed: int) -> str:
        if not had:
            return "a first job starts one" if needed == 1 else f"one alone would let jobs wait {self.late_s:.0f} s"
        return (
            f"with {had} a wait of {self.late_s:.0f} s is ahead, {self.wait_s:.0f} s are planned, "
            f"and a new one takes {self.cold_start_s:.0f} s to start"
        )


def _needed(load: Load, bound: Bounds, memory: Memory, rules: Rules, now: float) -> tuple[int, int, _Plan]:
    """(as many as the queue ahead needs, as many as will do for a while, the numbers behind it)."""
    job_s = sane(load.seconds_per_job) or JOB_S
    cold_s = sane(load.cold_start_s) or COLD_START_S
    waiting_s = sane(load.waiting_work_s) or max(load.waiting, 0) * job_s
    arriving = max(sane(load.arriving_fast), sane(load.arriving_slow))
    ready = max(load.workers, 0)
    if ready:
        memory.rows = max(memory.rows, min(max(load.running, 0) / ready, 64.0))
    wait_s = max(rules.aim * sane(bound.objective_s) - memory.rows * job_s, job_s, 1e-3)
    starting = max(memory.replicas - ready, 0)
    recent = list(memory.started)[-starting:] if starting else []
    done_s = ready * cold_s + sum(min(now - at, cold_s) for at in recent)
    ahead_s = max(waiting_s + arriving * cold_s - done_s, 0.0)
    left_s = max(waiting_s - done_s, 0.0)
    spare_s = max(wait_s - cold_s, job_s, 1e-3)
    needed = max(1, whole(min(max(ahead_s / wait_s, left_s / spare_s), 1e9)))
    horizon_s = rules.horizon * cold_s
    enough = max(needed, whole(min((waiting_s + arriving * horizon_s) / (rules.low * wait_s + horizon_s), 1e9)))
    late_s = ahead_s / max(memory.replicas, 1)
    pressure = max(waiting_s / wait_s, arriving, job_s / wait_s)
    return needed, enough, _Plan(wait_s, late_s, cold_s, horizon_s, pressure)


def _kept_s(load: Load, bound: Bounds, memory: Memory, rules: Rules, cold_start_s: float) -> float:
    """How long the last worker stays without a job.

    Where the objective leaves time for a cold start, a stop costs no job its objective, and hardly any GPU time: the
    jobs that come during the start are then served as one full batch. Else it costs the next job its objective.
    """
    job_s = memory.rows * (sane(load.seconds_per_job) or JOB_S)
    if cold_start_s + job_s <= rules.aim * sane(bound.objective_s):
        return max(rules.kept_s, rules.warm * cold_start_s)
    return max(KEPT_S, rules.kept_s, KEPT_COLD_STARTS * cold_start_s)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
