"""When a failed attempt is tried again: a pure function of (attempt, error, now, dice)."""

from dataclasses import dataclass

from sfumato.core.errors import SfumatoError, TransientError

__all__ = ["GiveUp", "Retry", "RetryPolicy"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again as attempt `attempt`, not before `not_before` (Unix seconds)."""

    attempt: int
    not_before: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt helps."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter on its upper half (seconds), at most `max_attempts` attempts in all."""

    max_attempts: int = 4
    first_s: float = 1.0
    factor: float = 4.0
    longest_s: float = 120.0

    def after(self, attempt: int, error: Exception, now: float, dice: float) -> Retry | GiveUp:
        """What follows when attempt `attempt` (0 is the first) failed with `error`; `dice` is uniform in [0, 1).

        Only what may pass is retried: TransientError, and errors nobody foresaw (once, they may be a glitch).
        """
        foreseen = isinstance(error, SfumatoError)
        if foreseen and not isinstance(error, TransientError):
            return GiveUp()
        most = self.max_attempts if foreseen else min(2, self.max_attempts)
        if attempt + 1 >= most:
            return GiveUp()
        wait = min(self.first_s * self.factor**attempt, self.longest_s)
        return Retry(attempt + 1, now + wait * (0.5 + 0.5 * dice))
