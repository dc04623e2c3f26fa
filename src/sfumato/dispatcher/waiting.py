"""The jobs that wait, by when they expire, each priority apart. Pure."""

from collections.abc import Mapping, Sequence

from sfumato.core.job import Job, Priority
from sfumato.dispatcher.heap import KeyedHeap

__all__ = ["Waiting"]


class Waiting:
    """Who waits, first to expire first. Jobs wait equally long, so the first to expire is the oldest."""

    def __init__(self) -> None:
        self._heaps = {priority: KeyedHeap() for priority in Priority}
        self._priorities: dict[str, Priority] = {}

    def put(self, job: Job) -> None:
        """Let a job wait; without effect when it does."""
        self._priorities[job.id] = job.priority
        self._heaps[job.priority].put(job.id, job.expires_at)

    def discard(self, job_id: str) -> None:
        """It waits no more, if it did."""
        if (priority := self._priorities.pop(job_id, None)) is not None:
            self._heaps[priority].discard(job_id)

    def first(self) -> tuple[float, str] | None:
        """When the first of all expires, and which that is; None when nobody waits."""
        return min((first for heap in self._heaps.values() if (first := heap.first()) is not None), default=None)

    def up_to(self, now: float, limit: int) -> Sequence[str]:
        """At most `limit` of those that expire up to `now`."""
        found: list[str] = []
        for heap in self._heaps.values():
            found += heap.up_to(now, limit - len(found))
        return found

    def by_priority(self) -> Mapping[Priority, tuple[int, str]]:
        """Priority → how many wait, and the oldest of them ("" when none does)."""
        return {priority: (len(heap), (heap.first() or (0.0, ""))[1]) for priority, heap in self._heaps.items()}
