"""The GPUs of a simulation and what runs on them: workers that start, batch step by step, drain and go.

A worker has `SLOTS` jobs at once. A step of n of them takes FIXED_S + n · ROW_S, the cost model of the benchmark's
simulated backend with a large model's numbers, so a job's speed is that of the batch it is in. Jobs of a model wait in
one queue and are served in order of arrival by the worker with the most free slots. A worker holds its GPU from the
moment it starts, for COLD_START_S before its first job, until the last job after it was told to go. What is asked for
beyond the GPUs waits for one, first asked first served.
"""

import heapq
import math
from collections import deque
from typing import Final

from sfumato.controller.simulation.traces import Trace

__all__ = ["COLD_START_S", "FIXED_S", "ROW_S", "SLOTS", "WORK_S", "Fleet", "Station"]

SLOTS: Final = 4
FIXED_S: Final = 0.1
ROW_S: Final = 0.05
COLD_START_S: Final = 20.0
WORK_S: Final = (FIXED_S + SLOTS * ROW_S) / SLOTS
"""What one step of one job takes of a fully used worker."""


class Worker:
    """`clock` counts the steps that a job here since the beginning would have done by `at_s`."""

    __slots__ = ("at_s", "clock", "draining", "ends", "ready_s")

    def __init__(self, ready_s: float) -> None:
        self.ready_s = ready_s
        self.at_s = ready_s
        self.clock = 0.0
        self.draining = False
        self.ends: list[tuple[float, float]] = []

    def advance(self, now: float) -> None:
        """Do the steps up to `now`."""
        if self.ends:
            self.clock += (now - self.at_s) / (FIXED_S + len(self.ends) * ROW_S)
        self.at_s = now

    @property
    def next_end_s(self) -> float:
        """When the next job ends if nobody joins."""
        if not self.ends:
            return math.inf
        return self.at_s + max(self.ends[0][0] - self.clock, 0.0) * (FIXED_S + len(self.ends) * ROW_S)


class Station:
    """One model: its queue of (arrival, steps), its workers, and what is counted of them."""

    def __init__(self) -> None:
        self.queue: deque[tuple[float, int]] = deque()
        self.workers: list[Worker] = []
        self.coming: deque[tuple[float, int]] = deque()
        self.asked = 0
        self.running = 0
        self.waiting_steps = 0
        self.arrived_steps = 0
        self.arrived = 0
        self.ready = 0
        self.latencies: list[float] = []

    def advance(self, until: float) -> None:
        """Let happen what happens before `until`."""
        if not self.running and not self.queue and (not self.coming or self.coming[0][0] >= until):
            return
        while True:
            ending, end_s = None, until
            for worker in self.workers:
                if worker.ends and (at := worker.next_end_s) < end_s:
                    ending, end_s = worker, at
            if self.coming and self.coming[0][0] < end_s:
                self._arrive()
            elif ending is not None:
                self._end(ending, end_s)
            else:
                break

    def _arrive(self) -> None:
        at, steps = self.coming.popleft()
        self.queue.append((at, steps))
        self.waiting_steps += steps
        self.arrived_steps += steps
        self.arrived += 1
        self.serve(at)

    def _end(self, worker: Worker, now: float) -> None:
        worker.advance(now)
        _, arrived_s = heapq.heappop(worker.ends)
        self.running -= 1
        self.latencies.append(now - arrived_s)
        self.serve(now)

    def serve(self, now: float) -> None:
        """Give waiting jobs to free slots."""
        while self.queue:
            free, fewest = None, SLOTS
            for worker in self.workers:
                if len(worker.ends) < fewest and worker.ready_s <= now and not worker.draining:
                    free, fewest = worker, len(worker.ends)
            if free is None:
                return
            at, steps = self.queue.popleft()
            self.waiting_steps -= steps
            self.running += 1
            free.advance(now)
            heapq.heappush(free.ends, (free.clock + steps, at))


class Fleet:
    """All models' stations on the trace's places."""

    def __init__(self, trace: Trace) -> None:
        self.places = trace.places
        self.stations = [Station() for _ in trace.models]
        for at, model, steps in trace.arrivals:
            self.stations[model].coming.append((at, steps))
        self.held = 0
        self.place_s = 0.0
        self._pending: deque[int] = deque()
        self._starting: list[tuple[float, int, Worker]] = []

    def advance(self, until: float, passed_s: float) -> None:
        """Everything up to `until`, `passed_s` after the last time; GPUs held by then are paid for that span."""
        self.place_s += self.held * passed_s
        for station in self.stations:
            station.advance(until)
        self._settle(until)

    def ask(self, model: int, replicas: int, now: float) -> None:
        """From now on this model should have so many workers."""
        station = self.stations[model]
        if replicas != station.asked:
            self._change(model, station, replicas, now)
            self._settle(now)

    def _change(self, model: int, station: Station, replicas: int, now: float) -> None:
        more = replicas - station.asked
        station.asked = replicas
        self._pending.extend([model] * more)
        for _ in range(-more):
            if model in self._pending:
                self._pending.remove(model)
                continue
            # The latest start is given up first; else the worker with the fewest jobs drains.
            staying = (worker for worker in station.workers if not worker.draining)
            going = max(staying, key=lambda worker: (max(worker.ready_s - now, 0.0), -len(worker.ends)))
            going.draining = True

    def _settle(self, now: float) -> None:
        """Workers that are done go, workers that are ready serve, and who waits for a GPU gets what is free."""
        for station in self.stations:
            if not station.workers:
                continue
            gone = [worker for worker in station.workers if worker.draining and not worker.ends]
            for worker in gone:
                station.workers.remove(worker)
                self.held -= 1
            station.ready = sum(not worker.draining and worker.ready_s <= now for worker in station.workers)
            if station.queue and station.ready:
                station.serve(now)
        while self._pending and self.held < self.places:
            self.stations[self._pending.popleft()].workers.append(Worker(now + COLD_START_S))
            self.held += 1
