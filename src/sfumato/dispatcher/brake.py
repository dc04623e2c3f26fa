"""When nothing but failures comes back, a model's jobs wait instead of failing one after the other. Pure.

A bad rollout (wrong weights, a library that crashes) fails every job it is given. Handing them out as fast as they fail
would throw the backlog away; so after some in a row, with no success between them, hand-outs rest until the minute in
which they failed is over, and then a few try again.
"""

from collections import deque
from typing import Final

from sfumato.core.job import Outcome, State

__all__ = ["Brake"]

MOST_FAILURES: Final = 20
WITHIN_S: Final = 60.0
MODELS_FAULT: Final = frozenset({"dead-letter", "internal-error", "job-failed"})
"""Reasons that may be the model's or the worker's fault; a broken picture, say, is its sender's."""


class Brake:
    """Failures of one model since its last success."""

    def __init__(self) -> None:
        self._failed_at: deque[float] = deque(maxlen=MOST_FAILURES)
        self._why = ""

    def ended(self, outcome: Outcome, now: float) -> None:
        """A job of the model ended, as seen at `now` (Unix seconds)."""
        if outcome.state is State.SUCCEEDED:
            self._failed_at.clear()
        elif outcome.error is not None and outcome.error.slug in MODELS_FAULT:
            # The clock of who ended it may be ahead of ours; nobody rests for longer because of that.
            self._failed_at.append(min(outcome.at, now))
            self._why = outcome.error.detail

    def until(self, now: float) -> float:
        """When hand-outs may go on (Unix seconds); at or before `now`: they need not rest."""
        return self._failed_at[0] + WITHIN_S if len(self._failed_at) == MOST_FAILURES else now

    def trouble(self, now: float) -> str:
        """Why hand-outs rest, "" while they do not."""
        if self.until(now) <= now:
            return ""
        return (
            f"{MOST_FAILURES} jobs failed within a minute and none succeeded, so the others wait. The last: {self._why}"
        )
