"""Who follows which job on this gateway: one reader of the event log wakes them all, and nobody asks meanwhile."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from sfumato.core.events import JobEvent

__all__ = ["Follower", "Followers"]

KEPT: Final = 64
"""More events of one job than a slow client may leave lying; those before are read from its row."""


class Follower:
    """One client's end: the events of its job since it began, and a bell that rings for them and for progress.

    `whole`: what is known of the job's log reaches up to these events without a gap.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[int, JobEvent]] = deque(maxlen=KEPT)
        self._bell = asyncio.Event()
        self.missed = self.whole = False

    def tell(self, position: int, event: JobEvent) -> None:
        """The job's log has this at `position`."""
        self.missed = self.missed or len(self._events) == KEPT
        self._events.append((position, event))
        self._bell.set()

    @property
    def first(self) -> int | None:
        """The position of the first event that was not taken yet."""
        return self._events[0][0] if self._events else None

    def ring(self) -> None:
        """Something is new, though it is no event."""
        self._bell.set()

    def take(self) -> Iterable[tuple[int, JobEvent]]:
        """What was told since the last time, in the order of the log."""
        taken = tuple(self._events)
        self._events.clear()
        return taken

    async def news(self, within_s: float) -> bool:
        """Wait until there is news, at most `within_s`; whether there was any."""
        try:
            async with asyncio.timeout(within_s):
                await self._bell.wait()
        except TimeoutError:
            return False
        self._bell.clear()
        return True


class Followers:
    """All clients of a gateway that follow a job."""

    def __init__(self) -> None:
        self._of_job: dict[str, set[Follower]] = {}

    @contextmanager
    def follower(self, job_id: str) -> Iterator[Follower]:
        """Follow a job as long as the block lasts."""
        follower = Follower()
        self._of_job.setdefault(job_id, set()).add(follower)
        try:
            yield follower
        finally:
            rest = self._of_job[job_id]
            rest.discard(follower)
            if not rest:
                del self._of_job[job_id]

    def tell(self, position: int, event: JobEvent) -> None:
        """An event of a job's log."""
        for follower in self._of_job.get(event.job_id, ()):
            follower.tell(position, event)

    def ring(self, job_ids: Iterable[str]) -> None:
        """These jobs have got on."""
        if self._of_job:
            for job_id in job_ids:
                for follower in self._of_job.get(job_id, ()):
                    follower.ring()

    def ring_all(self) -> None:
        """Wake everybody: this gateway stops."""
        self.ring(list(self._of_job))
