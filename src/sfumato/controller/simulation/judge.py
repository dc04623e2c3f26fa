"""One figure for each policy and trace: the GPU-hours it takes for so many of the jobs to be within the objective.

A policy with all of its settings is a curve of shares and GPU-hours. Which settings are worth having, the Pareto front,
is decided on some seeds; what they give is taken from others, as the mean over them, and between two settings it is
interpolated. A policy whose best share is below the one asked for has no figure.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from sfumato.controller.simulation.sweep import POLICIES, Point, Result

__all__ = ["CHOOSING", "JUDGING", "RIVALS", "TARGETS", "Row", "Verdict", "front", "hours_at", "judge", "rows", "write"]

CHOOSING: Final = (1, 2)
JUDGING: Final = (11, 12, 13)
"""Seeds."""
TARGETS: Final = (0.99, 0.95)
RIVALS: Final = ("keda", "ray-serve", "fixed")

Curve = Mapping[int, Point]
"""Setting → what it came to."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of a policy on a trace, the mean over the seeds for judging."""

    trace: str
    policy: str
    setting: str
    share_within_objective: float
    gpu_hours: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """GPU-hours of each policy for a share of a trace's jobs, and of each with the delays it is shipped with."""

    trace: str
    target: float
    hours: Mapping[str, float | None]
    shipped: Mapping[str, float | None]

    def ratio(self, others: Sequence[str], shipped: bool = False) -> float | None:
        """Ours by the best of the others; None where ours or all of them have no figure."""
        ours, hours = self.hours.get("ours"), self.shipped if shipped else self.hours
        known = [best for other in others if (best := hours.get(other)) is not None]
        return None if ours is None or not known else ours / min(known)


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Every trace at every target."""
    choosing, judging = _curves(results, CHOOSING), _curves(results, JUDGING)
    verdicts = []
    for trace in dict.fromkeys(trace for trace, _ in judging):
        policies = [policy for of, policy in judging if of == trace]
        for target in TARGETS:
            found = {}
            for shipped in (False, True):
                found[shipped] = {
                    policy: _figure(policy, choosing[trace, policy], judging[trace, policy], target, shipped)
                    for policy in policies
                }
            verdicts.append(Verdict(trace, target, found[False], found[True]))
    return verdicts


def rows(results: Iterable[Result]) -> list[Row]:
    """What every setting came to on the seeds for judging."""
    return [
        Row(trace, policy, POLICIES[policy][setting].words, round(point.share, 4), round(point.gpu_hours, 4))
        for (trace, policy), curve in _curves(results, JUDGING).items()
        for setting, point in curve.items()
    ]


def write(found: Sequence[Row], file: Path) -> None:
    """As JSON, one object a row."""
    file.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


def front(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both, by rising share."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (-each.share, each.gpu_hours)):
        if not best or point.gpu_hours < best[-1].gpu_hours:
            best.append(point)
    return best[::-1]


def hours_at(target: float, points: Iterable[Point]) -> float | None:
    """GPU-hours for this share on the points' front; those of the lowest share if all are above, None if all below."""
    low: Point | None = None
    for point in front(points):
        if point.share >= target:
            if low is None:
                return point.gpu_hours
            part = (target - low.share) / (point.share - low.share)
            return low.gpu_hours + part * (point.gpu_hours - low.gpu_hours)
        low = point
    return None


def _figure(policy: str, choosing: Curve, judging: Curve, target: float, shipped: bool) -> float | None:
    allowed = {k: point for k, point in choosing.items() if POLICIES[policy][k].shipped or not shipped}
    worth = set(map(id, front(allowed.values())))
    return hours_at(target, [judging[k] for k, point in allowed.items() if id(point) in worth])


def _curves(results: Iterable[Result], seeds: Sequence[int]) -> dict[tuple[str, str], dict[int, Point]]:
    """(trace, policy) → setting → the mean over these seeds."""
    found: dict[tuple[str, str], dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.run.seed in seeds:
            found[result.run.trace, result.run.policy][result.run.setting].append(result.point)
    return {
        key: {
            k: Point(fmean(each.share for each in points), fmean(each.gpu_hours for each in points))
            for k, points in by_setting.items()
        }
        for key, by_setting in found.items()
    }
