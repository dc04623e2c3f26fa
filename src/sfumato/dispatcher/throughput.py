"""How much work one worker does in a second, by how many jobs it has in hand. Pure.

A worker with several jobs does more in all than with one, since a model call takes a row of each. While a worker has
little to do, its pace says little of what it could do; so paces are kept apart by how many jobs it had.
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["Throughput"]

MEMORY_S: Final = 600.0
"""Older measurements fade as new time at the same number of jobs is added."""
CERTAIN_JOBS: Final = 3.0
"""So many jobs must have been seen at a number of jobs before its pace is believed over what a predecessor told."""


@dataclass(slots=True)
class _Level:
    cost: float = 0.0
    seconds: float = 0.0
    jobs: float = 0.0


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds at a level, and how much of the worker they were: with k jobs side by side each had a k-th of it."""

    seconds: float = 0.0
    worker_s: float = 0.0


@dataclass(slots=True)
class _Desk:
    """A worker: what it spent so far at each level, and for each job in hand what it had spent when that began."""

    at: float
    spent: dict[int, _Spent] = field(default_factory=dict)
    began: dict[str, dict[int, _Spent]] = field(default_factory=dict)

    def advance(self, at: float) -> None:
        passed_s, jobs = at - self.at, len(self.began)
        if jobs and passed_s > 0:
            level = jobs.bit_length()  # 1, 2–3, 4–7, 8–15, …
            before = self.spent.get(level, _Spent())
            self.spent[level] = _Spent(before.seconds + passed_s, before.worker_s + passed_s / jobs)
        self.at = max(self.at, at)


class Throughput:
    """Work done per second of a worker. Times are the worker's own, Unix seconds."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}
        self._desks: dict[str, _Desk] = {}
        self._learned = 0.0

    @property
    def cost_per_s(self) -> float:
        """The best pace that is certain, which is that of a full worker; 0 while nothing was measured or learned."""
        certain = [_pace(level) for level in self._levels.values() if level.jobs >= CERTAIN_JOBS]
        uncertain = [self._learned] if self._learned else [_pace(level) for level in self._levels.values()]
        return float(f"{max(certain or uncertain, default=0.0):.4g}")

    def learn(self, cost_per_s: float) -> None:
        """Take over what a predecessor measured; it holds until something certain is measured here."""
        self._learned = cost_per_s or self._learned

    def began(self, worker: str, job_id: str, at: float) -> None:
        """The worker has this job in hand from now on."""
        desk = self._desks.setdefault(worker, _Desk(at))
        desk.advance(at)
        desk.began[job_id] = dict(desk.spent)

    def left(self, worker: str, job_id: str, at: float, cost_done: float) -> None:
        """It has it no more; `cost_done` is the job's cost when it was done, 0 when it failed or went back."""
        desk = self._desks.get(worker)
        if desk is None or job_id not in desk.began:
            return
        desk.advance(at)
        began = desk.began.pop(job_id)
        whole_s = sum(spent.seconds - began.get(number, _Spent()).seconds for number, spent in desk.spent.items())
        if cost_done <= 0 or whole_s <= 0:
            return
        for number, spent in desk.spent.items():
            before = began.get(number, _Spent())
            if (share := (spent.seconds - before.seconds) / whole_s) > 0:
                self._count(number, cost_done * share, spent.worker_s - before.worker_s, share)

    def forget(self, worker: str) -> None:
        """The worker is gone; what it had in hand tells nothing."""
        self._desks.pop(worker, None)

    def _count(self, number: int, cost: float, worker_s: float, jobs: float) -> None:
        level = self._levels.setdefault(number, _Level())
        kept = MEMORY_S / (MEMORY_S + worker_s)
        level.cost = level.cost * kept + cost
        level.seconds = level.seconds * kept + worker_s
        level.jobs += jobs


def _pace(level: _Level) -> float:
    return level.cost / level.seconds
