"""How many workers each model should have, from what its dispatcher tells. Pure: it is given the time.

`demand` says what each model wants, `sharing` who gets it when the places do not suffice; this adds what must hold
whatever the numbers say: the bounds, the places, and how fast a count may change.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from sfumato.controller.demand import Demand, Memory, Rules, demand
from sfumato.controller.load import Bounds, Decision, Load, sane
from sfumato.controller.sharing import Claim, share

__all__ = ["RAMP", "RAMP_S", "Autoscaler", "Bounds", "Decision", "Load", "Rules"]

RAMP_S: Final = 10.0
RAMP: Final = 4
"""In any RAMP_S seconds a count rises at most to twice what it was or by RAMP, and falls at most to half of it."""
LONGEST_S: Final = 60.0
"""More than this between two decisions counts as this: so far may a jump of the clock carry us."""
HELD_COLD_STARTS: Final = 2.0
"""For so long a worker that is ready keeps its place; one that starts keeps it until it is, but for STUCK_S."""
STUCK_S: Final = 900.0
SERVED_LITTLE: Final = 0.5
"""A model with a job presses at least so much, else one job would wait for long beside many."""


class Ramp:
    """The counts that a model had in the last RAMP_S seconds."""

    def __init__(self, count: int) -> None:
        self._since = deque([(-math.inf, count)])

    def note(self, count: int, now: float) -> None:
        """From now on it has this many."""
        if count != self._since[-1][1]:
            self._since.append((now, count))

    def seen(self, now: float) -> tuple[int, int]:
        """(lowest, highest)"""
        while len(self._since) > 1 and self._since[1][0] <= now - RAMP_S:
            self._since.popleft()
        if len(self._since) == 1:
            return self._since[0][1], self._since[0][1]
        counts = [count for _, count in self._since]
        return min(counts), max(counts)


class Autoscaler:
    """Call `decide` as often as something is known. `replicas` is what an earlier leader decided last."""

    def __init__(self, replicas: Mapping[str, int] | None = None, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._memories = {model: Memory.taken_over(count) for model, count in (replicas or {}).items()}
        self._ramps = {model: Ramp(memory.replicas) for model, memory in self._memories.items()}
        self._told_at = math.nan
        self._now = 0.0

    def decide(
        self, loads: Mapping[str, Load], bounds: Mapping[str, Bounds], places: int, now: float
    ) -> Mapping[str, Decision]:
        """Workers for each model in `bounds`, at most `places` in all; models without a load keep what they have."""
        self._tick(now)
        for gone in self._memories.keys() - bounds.keys():
            del self._memories[gone]
            self._ramps.pop(gone, None)
        demands = {model: self._demand(model, loads.get(model), bound) for model, bound in bounds.items()}
        wanted = {model: self._ramped(model, bounds[model], each.replicas) for model, each in demands.items()}
        if sum(wanted.values()) <= places:
            given = wanted
        else:
            claims = [
                self._claim(model, wanted[model], demands[model], loads.get(model), bounds[model], places)
                for model in bounds
            ]
            given = share(claims, places)
        decisions = {}
        for model, each in demands.items():
            self._remember(model, given[model], each, loads.get(model))
            decisions[model] = Decision(given[model], self._why(model, loads.get(model), each, wanted, given, places))
        return decisions

    def _tick(self, now: float) -> None:
        """Our own clock: it never goes back, and a jump of the given one moves it by no more than LONGEST_S."""
        if math.isfinite(now):
            passed_s = now - self._told_at
            self._told_at = now
            if passed_s > 0:
                self._now += min(passed_s, LONGEST_S)

    def _demand(self, model: str, load: Load | None, bound: Bounds) -> Demand:
        memory = self._memories.setdefault(model, Memory())
        if load is None:
            most = max(bound.most, 0)
            replicas = max(min(max(bound.least, 0), most), min(memory.replicas, most))
            return Demand(replicas, "nothing is known of its load, so it keeps what it has", 0.0, True, 0.0)
        return demand(load, bound, memory, self._rules, self._now)

    def _ramped(self, model: str, bound: Bounds, wanted: int) -> int:
        """No more and no less than the ramp allows, but for the bounds."""
        lowest, highest = self._ramps.setdefault(model, Ramp(0)).seen(self._now)
        most = max(bound.most, 0)
        up = max(lowest + RAMP, 2 * lowest, min(bound.least, most))
        return min(max(wanted, highest // 2), up, most)

    def _claim(self, model: str, wanted: int, each: Demand, load: Load | None, bound: Bounds, places: int) -> Claim:
        memory = self._memories[model]
        objective_s = max(sane(bound.objective_s), 1.0)
        unserved_s = max(self._now - memory.unserved_at, 0.0)
        late = min((sane(load.oldest_wait_s) if load else 0.0) / objective_s, 1.0)
        # What it could not use does not count, so that what a model presses has a limit.
        pressure = max(SERVED_LITTLE, min(each.pressure, wanted, places))
        return Claim(
            model=model,
            wanted=wanted,
            had=memory.replicas,
            least=max(bound.least, 0),
            cost=sane(bound.weight) * pressure * (1.0 + late + (4.0 * unserved_s / objective_s) ** 2),
            busy=each.busy,
            held=load is None or self._held(memory, each.cold_start_s),
            broken=load is not None and load.broken,
            rested_s=self._now - memory.busy_at,
        )

    def _held(self, memory: Memory, cold_start_s: float) -> bool:
        """Whether it was given its places, or became ready, too lately to lose them to another model."""
        if memory.ready_at > self._now:
            return self._now - memory.raised_at < STUCK_S
        ready_s = self._now - max(memory.raised_at + cold_start_s, memory.ready_at)
        return ready_s < max(HELD_COLD_STARTS * cold_start_s, self._rules.held_s)

    def _remember(self, model: str, given: int, each: Demand, load: Load | None) -> None:
        memory = self._memories[model]
        if not given:
            memory.ready_at = math.inf
        elif memory.replicas and load is not None and load.workers > 0:
            memory.ready_at = min(memory.ready_at, self._now)
        if given > memory.replicas:
            memory.raised_at = self._now
            memory.started.extend([self._now] * min(given - memory.replicas, 64))
        waits = each.busy and load is not None and not given
        memory.unserved_at = min(memory.unserved_at, self._now) if waits else math.inf
        memory.replicas = given
        self._ramps[model].note(given, self._now)

    def _why(
        self,
        model: str,
        load: Load | None,
        each: Demand,
        wanted: Mapping[str, int],
        given: Mapping[str, int],
        places: int,
    ) -> str:
        replicas, asked = given[model], wanted[model]
        said = f"{replicas} worker{'' if replicas == 1 else 's'}: {_facts(load)}"
        if replicas < asked and load is not None and load.broken:
            return said + "its worker could not load the model, so it holds no place that others wait for"
        if replicas < asked:
            holders = ", ".join(f"{other} {count}" for other, count in given.items() if count and other != model)
            of = f"of {places} place{'' if places == 1 else 's'} "
            return said + f"{asked} wanted, but {of}" + (f"others hold: {holders}" if holders else "no more is left")
        if asked < each.replicas:
            return said + f"{each.replicas} wanted, but at most {RAMP} more or twice as many in {RAMP_S:.0f} s"
        if asked > each.replicas:
            return said + f"{each.replicas} wanted, but no fewer than half in {RAMP_S:.0f} s"
        return said + each.cause


def _facts(load: Load | None) -> str:
    if load is None:
        return ""
    if not load.waiting and not load.running:
        return "no job waits or runs; "
    jobs = f"{load.waiting} job{' waits' if load.waiting == 1 else 's wait'}"
    running = f"{load.running} run{'s' if load.running == 1 else ''}"
    if not sane(load.seconds_per_job):
        return f"{jobs}, {running}, how long one takes is not known yet; "
    arriving = max(sane(load.arriving_fast), sane(load.arriving_slow))
    return f"{jobs} ({sane(load.waiting_work_s):.0f} s of work), {running}, {arriving:.1f} workers' worth arrives; "
