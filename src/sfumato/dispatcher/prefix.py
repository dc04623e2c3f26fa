"""Up to where the jobs log is decided, and from where a successor must read the events again. Pure."""

from collections import deque

from sfumato.broker.offsets import OffsetTracker
from sfumato.core.ports import Lead

__all__ = ["Prefix"]


class Prefix:
    """The contiguous prefix of decided positions, beginning where the predecessor committed.

    With each position the event cursor of the moment it was read is noted: whatever was told of that job because it was
    read stands behind it.
    """

    def __init__(self, lead: Lead) -> None:
        self._tracker = OffsetTracker(lead.position)
        self._undecided: deque[tuple[int, str]] = deque()

    def read(self, position: int, cursor: str) -> None:
        """A position was read when the events were known up to `cursor`."""
        self._tracker.register(position)
        self._undecided.append((position, cursor))

    def decide(self, position: int) -> None:
        """The job at this position has ended."""
        self._tracker.decide(position)

    def commit(self, cursor: str) -> Lead:
        """What to commit. A successor behind this position needs the events from the metadata on: the cursor noted
        with the oldest undecided job, or `cursor`, up to which events are known now, when there is none."""
        position = self._tracker.committable
        while self._undecided and self._undecided[0][0] <= position:
            self._undecided.popleft()
        return Lead(position, self._undecided[0][1] if self._undecided else cursor)
