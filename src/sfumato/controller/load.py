"""What an autoscaler is told and what it answers. Pure values."""

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["Bounds", "Decision", "Load"]

LARGEST: Final = 1e9
"""Beyond this a number is a mistake of whoever measured it; thirty years are fewer seconds."""


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


def sane(number: float, otherwise: float = 0.0) -> float:
    """The number if it is one and not negative, at most `LARGEST`; else `otherwise`."""
    return min(number, LARGEST) if number >= 0.0 else otherwise  # false for nan too


def whole(number: float) -> int:
    """At least so many, as a whole number; what is a rounding error above one is that one; at most `LARGEST`."""
    return math.ceil(min(number, LARGEST) - 1e-9)
