"""How much work arrives, averaged over a short and a long time. Pure."""

import math
from typing import Final

__all__ = ["FAST_S", "SLOW_S", "Arrivals"]

FAST_S: Final = 10.0
SLOW_S: Final = 60.0
MEAN_OF: Final = 50
"""A job's mean cost is that of about so many of the latest."""


class Arrivals:
    """Exponentially weighted rates of what is added, in cost per second, and the mean cost of one job."""

    def __init__(self) -> None:
        self._fast = self._slow = 0.0
        self._at = -math.inf
        self._jobs = 0
        self.mean_cost = 0.0

    def add(self, cost: float, at: float) -> None:
        """A job of this cost came at `at` (Unix seconds); one that came before others already added counts as late."""
        self._pass(at)
        self._fast += cost / FAST_S
        self._slow += cost / SLOW_S
        self._jobs += 1
        self.mean_cost += (cost - self.mean_cost) / min(self._jobs, MEAN_OF)

    def rates(self, now: float) -> tuple[float, float]:
        """Cost per second over FAST_S and SLOW_S, to three digits; what is next to nothing is 0."""
        since_s = max(0.0, now - self._at)
        fast, slow = self._fast * math.exp(-since_s / FAST_S), self._slow * math.exp(-since_s / SLOW_S)
        # A single job of long ago would change the figures for ever, and each change is told to all who follow.
        nothing = self.mean_cost * 1e-3 / SLOW_S
        return tuple(float(f"{rate:.3g}") if rate > nothing else 0.0 for rate in (fast, slow))  # type: ignore[return-value]

    def _pass(self, at: float) -> None:
        since_s = max(0.0, at - self._at)
        self._fast *= math.exp(-since_s / FAST_S)
        self._slow *= math.exp(-since_s / SLOW_S)
        self._at = max(self._at, at)
