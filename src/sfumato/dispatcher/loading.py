"""Whether a model's workers can load it, and since when they can't. Pure."""

from sfumato.core.events import Alive

__all__ = ["Loading"]


class Loading:
    """Ends the waiting of jobs whose model can't be loaded for `patience_s`: somebody might mend it until then."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since = 0.0
        self.trouble = ""

    def hear(self, alive: Alive, seen: float) -> None:
        """A worker's beat, heard at `seen` (Unix seconds)."""
        if alive.trouble:
            self._since = self._since if self.trouble else seen
            self.trouble = alive.trouble
        elif not alive.draining:
            self.trouble = ""

    def gave_up_on(self, now: float) -> float:
        """Jobs that came before this moment (Unix seconds) have waited long enough; 0.0 while there is hope."""
        before = now - self._patience_s
        return before if self.trouble and self._since <= before else 0.0
