"""What happens to all jobs, read once for all clients of a gateway that follow many, and only while there are any."""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sfumato.core.errors import SfumatoError
from sfumato.core.news import News, NewsReader, Place

__all__ = ["KEPT", "Newsroom", "Subscriber"]

log = logging.getLogger(__name__)

EVERY_S: Final = 0.5
PAUSE_S: Final = 2.0
LIMIT: Final = 500
KEPT: Final = 1_000
"""More lines than a slow client may leave lying; it is sent away, and comes back to where it was."""


class Subscriber:
    """One client's end: the lines of its owner's jobs (None: everybody's) behind number `since`."""

    def __init__(self, owner: str | None, since: int) -> None:
        self.owner, self.since = owner, since
        self.lost = False
        self._lines: deque[News] = deque()
        self._bell = asyncio.Event()

    def tell(self, line: News) -> None:
        """Give it a line, if it is its own and it did not read it before."""
        if line.place.number > self.since and self.owner in (None, line.row.job.owner):
            self.lost = self.lost or len(self._lines) >= KEPT
            if not self.lost:
                self._lines.append(line)
            self._bell.set()

    def ring(self) -> None:
        """Wake it, though there is nothing to take."""
        self._bell.set()

    def take(self) -> Sequence[News]:
        """What was told since the last time."""
        taken = tuple(self._lines)
        self._lines.clear()
        return taken

    async def wait(self, within_s: float) -> None:
        """Wait until it is woken, at most `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self._bell.wait()
        except TimeoutError:
            return
        self._bell.clear()


class Newsroom:
    """The subscribers of one gateway; `run` reads for them."""

    def __init__(self, reader: NewsReader) -> None:
        self._reader = reader
        self._subscribers: set[Subscriber] = set()
        self._anybody = asyncio.Event()
        self._told = Place(0)
        self._asked = 0

    @contextmanager
    def subscribed(self, owner: str | None, settled: int) -> Iterator[Subscriber]:
        """Tell this client of everything behind number `since` of what is given, as long as the block lasts.

        `settled` is a number up to which everything can be read. What lies between what the client knew and `since` is
        for it to read.
        """
        if not self._subscribers:
            self._told, self._asked = Place(settled), settled
        # What is read just now was asked for without this one.
        subscriber = Subscriber(owner, max(self._asked, settled))
        self._subscribers.add(subscriber)
        self._anybody.set()
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers:
                self._anybody.clear()

    @property
    def told(self) -> Place:
        """The place up to which every subscriber was told what is its own."""
        return self._told

    def ring_all(self) -> None:
        """Wake everybody: this gateway stops."""
        for subscriber in self._subscribers:
            subscriber.ring()

    async def run(self) -> None:
        """Read for the subscribers, for ever."""
        while True:
            await self._anybody.wait()
            try:
                await self._turn()
                await asyncio.sleep(EVERY_S)
            except Exception as error:
                # Whatever it was, who stopped reading would leave them all waiting for good.
                log.warning("What happens can't be read: %s", error, exc_info=not isinstance(error, SfumatoError))
                await asyncio.sleep(PAUSE_S)

    async def _turn(self) -> None:
        last = (await self._reader.settled()).last
        self._asked, owners = last, self._owners()
        while self._told < Place(last):
            page = await self._reader.news(self._told, last, owners, LIMIT)
            for line in page:
                for subscriber in self._subscribers:
                    subscriber.tell(line)
            # After an error it goes on from here.
            self._told = page[-1].place if len(page) == LIMIT else Place(last)

    def _owners(self) -> Collection[str] | None:
        owners = {subscriber.owner for subscriber in self._subscribers}
        return None if None in owners else {owner for owner in owners if owner is not None}
