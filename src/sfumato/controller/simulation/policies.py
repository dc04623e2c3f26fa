"""The policies that are compared, each as one object: asked every second, it says how many workers each model has.

Only the oracle may look at what is still to come.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sfumato.controller.autoscaler import Autoscaler, Bounds, Load, Rules
from sfumato.controller.simulation.fleet import COLD_START_S, WORK_S, Fleet, Station
from sfumato.controller.simulation.rivals import HPA_SYNC_S, Hpa, RayDelays, capped_lag, ray_desired
from sfumato.controller.simulation.traces import Trace

__all__ = ["OBJECTIVE_S", "Fixed", "Keda", "KedaSetting", "Ours", "Policy", "RayServe", "RaySetting"]

OBJECTIVE_S: Final = 60.0
"""Accept to result; three cold starts."""
TYPICAL_STEPS: Final = 30
FAST, SLOW = 1 - math.exp(-1 / 10), 1 - math.exp(-1 / 60)


class Policy(Protocol):
    """Called once a second, in virtual time."""

    def decide(self, fleet: Fleet, now: float) -> Sequence[int] | None:
        """Workers for each model, by its index; None when nothing changes."""
        ...


class Ours:
    """The service's own autoscaler, which sees what was true a second ago."""

    def __init__(self, trace: Trace, rules: Rules) -> None:
        self._models = trace.models
        self._autoscaler = Autoscaler(rules=rules)
        self._bounds = {model: Bounds(OBJECTIVE_S, 0, trace.places) for model in trace.models}
        self._gauges = [Gauge() for _ in trace.models]
        self._told: dict[str, Load] = {}

    def decide(self, fleet: Fleet, now: float) -> Sequence[int]:
        """What the autoscaler says to the loads of a second ago; those of now are for the next time."""
        decisions = self._autoscaler.decide(self._told, self._bounds, fleet.places, now)
        read = zip(self._models, self._gauges, fleet.stations, strict=True)
        self._told = {model: gauge.read(station, now) for model, gauge, station in read}
        return [decisions[model].replicas for model in self._models]


class Gauge:
    """Measures one model's load, asked every second."""

    def __init__(self) -> None:
        self._seen, self._fast, self._slow = 0, 0.0, 0.0

    def read(self, station: Station, now: float) -> Load:
        """The load at this moment."""
        arriving = (station.arrived_steps - self._seen) * WORK_S
        self._seen = station.arrived_steps
        self._fast += FAST * (arriving - self._fast)
        self._slow += SLOW * (arriving - self._slow)
        steps = station.arrived_steps / station.arrived if station.arrived else TYPICAL_STEPS
        return Load(
            waiting=len(station.queue),
            running=station.running,
            waiting_work_s=station.waiting_steps * WORK_S,
            arriving_fast=self._fast,
            arriving_slow=self._slow,
            oldest_wait_s=now - station.queue[0][0] if station.queue else 0.0,
            seconds_per_job=steps * WORK_S,
            cold_start_s=COLD_START_S,
            workers=station.ready,
        )


@dataclass(frozen=True, slots=True)
class KedaSetting:
    """KEDA's lagThreshold (messages), pollingInterval and cooldownPeriod, and its HPA's stabilization window."""

    threshold: int = 10
    polling_s: float = 30.0
    cooldown_s: float = 300.0
    stabilization_s: float = 300.0


class Keda:
    """A ScaledObject for each model, with as many partitions as there are GPUs."""

    def __init__(self, trace: Trace, setting: KedaSetting) -> None:
        self._setting = setting
        self._counts = [0] * len(trace.models)
        self._hpas = [Hpa(setting.stabilization_s) for _ in trace.models]
        self._active_at = [-math.inf] * len(trace.models)

    def decide(self, fleet: Fleet, now: float) -> Sequence[int] | None:
        """KEDA's own part when it polls, the HPA's every 15 s. Lag is what was not committed: running jobs count."""
        polls, syncs = now % self._setting.polling_s < 1.0, now % HPA_SYNC_S < 1.0
        if not polls and not syncs:
            return None
        for model, station in enumerate(fleet.stations):
            lag = len(station.queue) + station.running
            if polls:
                self._poll(model, lag, now)
            if syncs and self._counts[model]:
                threshold = self._setting.threshold
                metric = capped_lag(lag, threshold, fleet.places)
                hpa = self._hpas[model]
                self._counts[model] = hpa.decide(self._counts[model], metric, threshold, fleet.places, now)
        return self._counts

    def _poll(self, model: int, lag: int, now: float) -> None:
        if lag:
            self._active_at[model] = now
            self._counts[model] = max(self._counts[model], 1)
        elif self._counts[model] and now > self._active_at[model] + self._setting.cooldown_s:
            self._counts[model] = 0
            self._hpas[model].told.clear()


@dataclass(frozen=True, slots=True)
class RaySetting:
    """Ray Serve's target_ongoing_requests, upscale_delay_s, downscale_delay_s, and upscaling_factor with its twin."""

    target: float = 2.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    factor: float = 1.0


class RayServe:
    """A deployment for each model, min_replicas 0; requests averaged over look_back_period_s, 30 s."""

    LOOK_BACK_S: Final = 30

    def __init__(self, trace: Trace, setting: RaySetting) -> None:
        self._setting = setting
        self._factors = (setting.factor, setting.factor)
        self._counts = [0] * len(trace.models)
        self._delays = [RayDelays(setting.upscale_delay_s, setting.downscale_delay_s) for _ in trace.models]
        self._seen: list[deque[int]] = [deque(maxlen=self.LOOK_BACK_S) for _ in trace.models]
        self._sums = [0] * len(trace.models)

    def decide(self, fleet: Fleet, now: float) -> Sequence[int]:
        """Measured every second, which is more often than metrics_interval_s says."""
        for model, station in enumerate(fleet.stations):
            ongoing = len(station.queue) + station.running
            seen = self._seen[model]
            self._sums[model] += ongoing - (seen[0] if len(seen) == self.LOOK_BACK_S else 0)
            seen.append(ongoing)
            if not station.ready:
                if ongoing:
                    self._counts[model] = max(self._counts[model], 1)
                continue
            wanted = ray_desired(self._sums[model] / len(seen), station.ready, self._setting.target, *self._factors)
            wanted = max(0, min(wanted, fleet.places))
            self._counts[model] = self._delays[model].decide(self._counts[model], wanted, now)
        return self._counts


class Fixed:
    """So many workers for ever. Several models get them by their popularity, the first ones first."""

    def __init__(self, trace: Trace, replicas: int) -> None:
        replicas = min(replicas, trace.places)
        jobs = [0] * len(trace.models)
        for _, model, _ in trace.arrivals:
            jobs[model] += 1
        self._counts = [0] * len(trace.models)
        for _ in range(replicas):
            neediest = max(range(len(jobs)), key=lambda model: jobs[model] / (self._counts[model] + 1))
            self._counts[neediest] += 1

    def decide(self, fleet: Fleet, now: float) -> Sequence[int] | None:
        """The same always."""
        return self._counts
