"""How far the rows are behind the logs, in the one number that matters: the age of what is not recorded yet. Pure."""

from collections.abc import Iterable

__all__ = ["Lag"]


class Lag:
    """Times are Unix seconds, as the roles told them. A change is what a log has and the rows have not."""

    def __init__(self) -> None:
        self._oldest: dict[str, float] = {}
        self._stuck_since: float | None = None

    def found(self, log: str, told_at: Iterable[float]) -> None:
        """These are in the log, and not in the rows yet."""
        if (oldest := min(told_at, default=None)) is not None:
            self._oldest[log] = oldest

    def recorded(self, log: str, last_at: float | None) -> None:
        """What was found is in the rows. If the log has more, that is no older than the last one found, `last_at`."""
        self._oldest.pop(log, None)
        if last_at is not None:
            self._oldest[log] = last_at

    def stuck(self, now: float) -> None:
        """Nothing can be recorded now, so nobody knows what there is."""
        self._stuck_since = now if self._stuck_since is None else self._stuck_since

    def moving(self) -> None:
        """It can be recorded again."""
        self._stuck_since = None

    def seconds(self, now: float) -> float:
        """The age of the oldest change, or for how long it is stuck if that is longer; 0 when nothing is missing."""
        since = [*self._oldest.values(), *([] if self._stuck_since is None else [self._stuck_since])]
        return max(0.0, now - min(since)) if since else 0.0
