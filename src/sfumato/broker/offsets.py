"""Which prefix of a log is decided, when its entries are decided in any order. Pure: no clock, no I/O.

A reader of a log may commit only a contiguous prefix: whatever lies behind the committed position is read again by a
successor, whatever lies before it never is.
"""

from collections import deque

__all__ = ["OffsetTracker"]


class OffsetTracker:
    """Positions registered as they are read, decided in any order; `committable` never passes an undecided one.

    Positions grow but need not be dense: a log may have gaps. Memory is what lies behind the first undecided position.
    """

    def __init__(self, committed: int) -> None:
        """`committed` is where the reader began: everything up to it is decided."""
        self._committable = committed
        self._last = committed
        self._open: deque[int] = deque()
        self._decided: set[int] = set()

    @property
    def committable(self) -> int:
        """The highest position of which all registered ones before it, and itself, are decided."""
        return self._committable

    @property
    def undecided(self) -> int:
        """How many registered positions are not decided."""
        return len(self._open) - len(self._decided)

    def register(self, position: int) -> None:
        """A position was read, behind all those read before.

        Raises:
            ValueError: it does not lie behind the last one.
        """
        if position <= self._last:
            raise ValueError(f"position {position} was registered after {self._last}; a log is read in its order.")
        self._last = position
        self._open.append(position)

    def decide(self, position: int) -> None:
        """A registered position is done with; deciding it again changes nothing.

        Raises:
            ValueError: it was never registered.
        """
        if position > self._last:
            raise ValueError(f"position {position} was decided before it was registered; the last is {self._last}.")
        if position <= self._committable:
            return
        self._decided.add(position)
        while self._open and self._open[0] in self._decided:
            self._committable = self._open.popleft()
            self._decided.remove(self._committable)
