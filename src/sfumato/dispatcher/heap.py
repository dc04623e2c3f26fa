"""A heap whose members can be moved and removed, by lazy deletion."""

import heapq
from collections.abc import Sequence
from typing import Final

__all__ = ["KeyedHeap"]

SLACK: Final = 64


class KeyedHeap:
    """Names ordered by a number, the smallest first, ties by name. Every change is O(log n), amortised."""

    def __init__(self) -> None:
        self._keys: dict[str, float] = {}
        self._entries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def put(self, name: str, key: float) -> None:
        """Add `name`, or move it to `key`."""
        self._keys[name] = key
        heapq.heappush(self._entries, (key, name))
        self._shed()

    def discard(self, name: str) -> None:
        """Remove `name` if it is there."""
        if self._keys.pop(name, None) is not None:
            self._shed()

    def first(self) -> tuple[float, str] | None:
        """The smallest key and its name; None when empty."""
        while self._entries:
            key, name = self._entries[0]
            if self._keys.get(name) == key:
                return key, name
            heapq.heappop(self._entries)
        return None

    def pop(self) -> str:
        """Remove the first and give its name.

        Raises:
            IndexError: nothing is there.
        """
        first = self.first()
        if first is None:
            raise IndexError("pop from an empty heap")
        del self._keys[first[1]]
        return heapq.heappop(self._entries)[1]

    def up_to(self, key: float, limit: int) -> Sequence[str]:
        """The first `limit` names whose key is at most `key`, in order; they stay."""
        found: list[tuple[float, str]] = []
        while len(found) < limit and (first := self.first()) is not None and first[0] <= key:
            found.append(first)
            self.pop()
        for at, name in found:
            self.put(name, at)
        return [name for _, name in found]

    def _shed(self) -> None:
        """Forget what was removed once it outnumbers what is there, so that memory follows the living."""
        if len(self._entries) > 2 * len(self._keys) + SLACK:
            self._entries = [(key, name) for name, key in self._keys.items()]
            heapq.heapify(self._entries)
