"""What a model's event log tells of the model itself: its queue, its workers, and why one could not load it. Pure."""

import math
from collections.abc import Iterable, Sequence

from sfumato.core.events import Alive, Event, Standing, Unreadable

__all__ = ["Seen"]


class Seen:
    """The latest of one model. A worker that was not heard for `silent_s` is gone.

    `standing` is its dispatcher's last word, heard at `told_at`. `trouble` is why its last worker could not load it; ""
    since one lives, and when none has tried. Times are Unix seconds of who listens: the others' clocks may differ.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._workers: dict[str, tuple[Alive, float]] = {}
        self.standing: Standing | None = None
        self.told_at = -math.inf
        self.trouble = ""

    def apply(self, event: Event | Unreadable, now: float) -> None:
        """Take in one event of the model's log; those of jobs tell nothing here."""
        if isinstance(event, Standing):
            self.standing, self.told_at = event, now
        elif isinstance(event, Alive):
            self._workers[event.worker] = event, now
            if event.trouble or not event.draining:
                self.trouble = event.trouble

    @property
    def beats(self) -> Iterable[Alive]:
        """The last beat of every worker, of those that leave too."""
        return [alive for alive, _ in self._workers.values()]

    def workers(self, now: float) -> Sequence[Alive]:
        """The workers that live and stay."""
        for name in [name for name, (_, heard_at) in self._workers.items() if heard_at < now - self._silent_s]:
            del self._workers[name]
        return [alive for alive, _ in self._workers.values() if not alive.draining]
