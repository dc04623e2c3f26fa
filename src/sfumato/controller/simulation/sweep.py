"""Every policy with each of its settings on every trace: the same number of settings, the same seeds.

Some seeds are for choosing a policy's settings, others for judging them.
"""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from types import MappingProxyType
from typing import Final, NamedTuple

from sfumato.controller.autoscaler import Rules
from sfumato.controller.simulation.fleet import Fleet
from sfumato.controller.simulation.oracle import Oracle, OracleSetting
from sfumato.controller.simulation.policies import (
    OBJECTIVE_S,
    Fixed,
    Keda,
    KedaSetting,
    Ours,
    Policy,
    RayServe,
    RaySetting,
)
from sfumato.controller.simulation.traces import TRACES, Trace

__all__ = ["POLICIES", "Point", "Result", "Run", "Setting", "play", "run_all", "run_one", "runs"]


class Setting(NamedTuple):
    """How it is written, what makes the policy for a trace, and whether its delays are those it is shipped with."""

    words: str
    make: Callable[[Trace], Policy]
    shipped: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """What a policy came to: the share of jobs within the objective, and GPU-hours."""

    share: float
    gpu_hours: float


@dataclass(frozen=True, slots=True)
class Run:
    """One trace of one seed under one policy with one setting."""

    trace: str
    seed: int
    policy: str
    setting: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """A run and what came of it."""

    run: Run
    point: Point


def _ours(aim: float) -> Setting:
    return Setting(f"aim {aim:.2f}", lambda trace: Ours(trace, Rules(aim=aim)))


def _keda(threshold: int, polling_s: float, cooldown_s: float, stabilization_s: float) -> Setting:
    setting = KedaSetting(threshold, polling_s, cooldown_s, stabilization_s)
    words = f"threshold {threshold}, polling {polling_s:.0f}, cooldown {cooldown_s:.0f}, window {stabilization_s:.0f}"
    return Setting(words, lambda trace: Keda(trace, setting), stabilization_s == 300.0)


def _ray(target: float, up_s: float, down_s: float, factor: float) -> Setting:
    setting = RaySetting(target, up_s, down_s, factor)
    words = f"target {target:.0f}, up {up_s:.0f}, down {down_s:.0f}, factor {factor:.0f}"
    return Setting(words, lambda trace: RayServe(trace, setting), (up_s, down_s) == (30.0, 600.0))


def _fixed(replicas: int) -> Setting:
    return Setting(f"{replicas} workers", lambda trace: Fixed(trace, replicas))


def _oracle(aim: float) -> Setting:
    return Setting(f"aim {aim:.2f}", lambda trace: Oracle(trace, OracleSetting(aim)))


POLICIES: Final[Mapping[str, Sequence[Setting]]] = MappingProxyType(
    {
        "ours": [_ours(aim) for aim in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.45, 1.6)],
        "keda": [
            _keda(threshold, *times)
            for times in ((30.0, 300.0, 300.0), (5.0, 30.0, 300.0), (5.0, 20.0, 0.0))
            for threshold in (8, 14, 20, 26)
        ],
        "ray-serve": [
            _ray(target, *times)
            for times in ((30.0, 600.0, 1.0), (30.0, 600.0, 2.0), (0.0, 20.0, 1.0))
            for target in (6.0, 10.0, 15.0, 20.0)
        ],
        "fixed": [_fixed(replicas) for replicas in range(1, 13)],
        "oracle": [_oracle(aim) for aim in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)],
    }
)
"""Policy → its settings."""


def play(trace: Trace, policy: Policy) -> Point:
    """Run it in virtual time; jobs that have not ended one objective after the last arrival are late."""
    fleet = Fleet(trace)
    end_s = int(trace.length_s + OBJECTIVE_S)
    for second in range(1, end_s + 1):
        now = float(second)
        fleet.advance(now, 1.0)
        asked = policy.decide(fleet, now)
        if asked is not None:
            for model, replicas in enumerate(asked):
                fleet.ask(model, replicas, now)
    in_time = sum(latency <= OBJECTIVE_S for station in fleet.stations for latency in station.latencies)
    return Point(in_time / max(len(trace.arrivals), 1), fleet.place_s / 3600.0)


def run_one(run: Run) -> Result:
    """One run, for a process of its own."""
    trace = TRACES[run.trace](run.seed, run.scale)
    return Result(run, play(trace, POLICIES[run.policy][run.setting].make(trace)))


def runs(traces: Iterable[str], policies: Iterable[str], seeds: Iterable[int], scale: float = 1.0) -> list[Run]:
    """All of them."""
    policies, seeds = list(policies), list(seeds)
    return [
        Run(trace, seed, policy, setting, scale)
        for trace in traces
        for seed in seeds
        for policy in policies
        for setting in range(len(POLICIES[policy]))
    ]


def run_all(todo: Sequence[Run], processes: int) -> Iterator[Result]:
    """Each as it comes, in order, from so many processes."""
    if processes <= 1:
        yield from map(run_one, todo)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        # A terminal sends Ctrl-C to the children too, and each would show where it just was. They end what they play.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            results = pool.map(run_one, todo, chunksize=2)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from results
