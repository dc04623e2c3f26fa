"""How much work a model does in a second, learned from the jobs it finishes. Pure."""

import math
from typing import Final

__all__ = ["Pace"]

MEMORY_S: Final = 120.0
"""Work done so many seconds of work ago counts for 1/e of what was done just now."""


class Pace:
    """Cost done ÷ seconds worked, of all workers together, the latest counting most.

    A finished job stands for the time since the one before it, or since its own start if that was later: so the time in
    which nothing ran does not count, and what runs side by side is counted once.
    """

    def __init__(self) -> None:
        self._cost = 0.0
        self._worked_s = 0.0
        self._last_end_at = -math.inf

    @property
    def cost_per_s(self) -> float | None:
        """None while nothing was measured or learned."""
        return float(f"{self._cost / self._worked_s:.4g}") if self._cost and self._worked_s else None

    def learn(self, cost_per_s: float | None) -> None:
        """Take over what a predecessor measured, where nothing was measured yet: as if it were one second's work."""
        if cost_per_s is not None and self.cost_per_s is None:
            self._cost, self._worked_s = cost_per_s, 1.0

    def done(self, cost: float, begun_at: float, ended_at: float) -> None:
        """A job succeeded (Unix seconds)."""
        worked_s = max(0.0, ended_at - max(begun_at, self._last_end_at))
        kept = math.exp(-worked_s / MEMORY_S)
        self._cost = self._cost * kept + cost
        self._worked_s = self._worked_s * kept + worked_s
        self._last_end_at = max(self._last_end_at, ended_at)
