"""Who works for a model: which workers live, what each has in hand, and where there is room. Pure.

A worker's load is what was handed out to it and has not come back, and what it tells as running besides: a job that a
new dispatcher does not know of, or one that was given to another worker meanwhile, takes a slot all the same.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sfumato.core.events import Alive

__all__ = ["Fleet", "Seat"]

AHEAD_S: Final = 0.1
"""A worker is given one job beyond its slots, so that it never waits for the next one, where a slot is freed so often
(seconds). Elsewhere the job would be stuck there while another worker is free, for a round trip of milliseconds."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Room for one job: the worker, and the lane through which to reach it."""

    worker: str
    lane: int


@dataclass(slots=True)
class _Worker:
    slots: int = 0
    lanes: tuple[int, ...] = ()
    draining: bool = False
    seen: float = 0.0
    tells: set[str] = field(default_factory=set)


class Fleet:
    """The workers of one model. One that was not heard for more than `silence_s` is taken for dead."""

    def __init__(self, silence_s: float) -> None:
        self.silence_s = silence_s
        self._workers: dict[str, _Worker] = {}
        self._lane_of: dict[int, str] = {}
        self._where: dict[str, str] = {}
        self._in_hand: dict[str, set[str]] = {}
        self._alone: dict[str, str] = {}

    @property
    def out(self) -> int:
        """How many jobs are handed out."""
        return len(self._where)

    def hear(self, alive: Alive, seen: float) -> None:
        """A worker's beat, heard at `seen` (Unix seconds)."""
        tells = {running.job_id for running in alive.running}
        self._workers[alive.worker] = _Worker(alive.slots, alive.lanes, alive.draining, seen, tells)
        for lane in alive.lanes:
            self._lane_of[lane] = alive.worker

    def hand(self, job_id: str, worker: str, alone: bool) -> None:
        """A job that is in nobody's hands is now in this worker's."""
        self._where[job_id] = worker
        self._in_hand.setdefault(worker, set()).add(job_id)
        if alone:
            self._alone[worker] = job_id

    def take(self, job_id: str) -> None:
        """A job is in nobody's hands any more."""
        worker = self._where.pop(job_id, None)
        if worker is None:
            return
        self._in_hand[worker].discard(job_id)
        if not self._in_hand[worker]:
            del self._in_hand[worker]
        if self._alone.get(worker) == job_id:
            del self._alone[worker]

    def stopped(self, job_id: str, worker: str | None = None) -> None:
        """The job does not run any more, on `worker` or (None) anywhere, whatever the last beat said."""
        for name in self._workers if worker is None else (worker,):
            if name in self._workers:
                self._workers[name].tells.discard(job_id)

    def lives(self, worker: str, now: float) -> bool:
        """Whether it was heard lately."""
        return worker in self._workers and now <= self._workers[worker].seen + self.silence_s

    def runs_somewhere(self, job_id: str, now: float) -> bool:
        """Whether a living worker tells the job as running."""
        return any(job_id in worker.tells and self.lives(name, now) for name, worker in self._workers.items())

    def bury(self, now: float) -> Sequence[str]:
        """Forget the dead, and say who. What they had in hand stays theirs until another worker finds it and returns
        it."""
        dead = [name for name in self._workers if not self.lives(name, now)]
        for name in dead:
            del self._workers[name]
        return dead

    def capacity(self) -> tuple[int, int]:
        """How many workers take jobs, and how many slots they have."""
        staying = [worker for worker in self._workers.values() if not worker.draining]
        return len(staying), sum(worker.slots for worker in staying)

    def load(self, worker: str) -> int:
        """How many jobs it has."""
        told = self._workers[worker].tells if worker in self._workers else frozenset()
        return len(self._in_hand.get(worker, set()) | told)

    def idle_seats(self) -> Iterator[Seat]:
        """One seat for each worker that has nothing at all."""
        return (seat for load, seat in self._open() if load == 0)

    def seats(self, seconds_per_job: float, keep_one_clear: bool) -> Iterator[Seat]:
        """Every seat, free slots first and those of the emptiest worker first of all, the jobs ahead last.

        `seconds_per_job` is 0 while unknown. With `keep_one_clear` the worker that will soonest have nothing left gets
        nothing more.
        """
        places = sorted((load, seat.worker, seat) for load, seat in self._open())
        room: list[tuple[int, int, str, Seat]] = []
        for load, name, seat in places[1:] if keep_one_clear else places:
            slots = self._workers[name].slots
            ahead = int(0 < seconds_per_job <= AHEAD_S * slots)
            heapq.heappush(room, (load - slots, ahead, name, seat))
        while room:
            excess, ahead, name, seat = heapq.heappop(room)
            if excess < ahead:
                heapq.heappush(room, (excess + 1, ahead, name, seat))
                yield seat

    def _open(self) -> Iterator[tuple[int, Seat]]:
        """Load and seat of every worker that may be given something."""
        for name, worker in self._workers.items():
            lane = next((lane for lane in worker.lanes if self._lane_of[lane] == name), None)
            if lane is not None and not worker.draining and name not in self._alone:
                yield self.load(name), Seat(name, lane)
