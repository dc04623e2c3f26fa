"""The broker of one host, embedded: two SQLite files in a folder, shared by its processes, and wake-ups among them."""

import asyncio
from pathlib import Path
from typing import Final

from sfumato.broker.sqlite_logs import LOG_SCHEMA, READERS_SCHEMA, SqliteEvents, SqliteJobs, trim_events, trim_jobs
from sfumato.broker.sqlite_work import WORK_SCHEMA, SqliteWork, trim_dead
from sfumato.sqlite.file import SqliteFile

__all__ = ["SqliteBroker"]

WAKE_FOLDER: Final = "wake"


class SqliteBroker:
    """Opens logs and queues in `folder` (core.ports.Broker); any number of processes may have it open at once.

    queue.sqlite holds the jobs logs, who reads them, and the work queues; events.sqlite the event logs, so that the
    frequent events do not wait for jobs. A reader or receiver silent for `takeover_s` is taken for dead.

    Raises:
        UnusableStore: the folder or a file in it can't be used; the detail says what to do.
    """

    def __init__(self, folder: Path, takeover_s: float) -> None:
        self._wake = folder / WAKE_FOLDER
        self._takeover_s = takeover_s
        self._queue = SqliteFile(folder / "queue.sqlite", LOG_SCHEMA + READERS_SCHEMA + WORK_SCHEMA, self._wake)
        try:
            self._events = SqliteFile(folder / "events.sqlite", LOG_SCHEMA, self._wake)
        except BaseException:
            self._queue.close()
            raise
        self._ends: list[SqliteJobs | SqliteWork | SqliteEvents] = []

    def jobs(self, model: str) -> SqliteJobs:
        end = SqliteJobs(self._queue, self._wake, model, self._takeover_s)
        self._ends.append(end)
        return end

    def work(self, model: str) -> SqliteWork:
        end = SqliteWork(self._queue, self._wake, model, self._takeover_s)
        self._ends.append(end)
        return end

    def events(self, model: str) -> SqliteEvents:
        end = SqliteEvents(self._events, self._wake, model)
        self._ends.append(end)
        return end

    async def trim(self, before: float) -> int:
        """Delete log entries older than `before` (Unix seconds), of the jobs only decided ones; how many."""
        trimmed = await trim_jobs(self._queue, before) + await trim_dead(self._queue, before)
        return trimmed + await trim_events(self._events, before)

    async def close(self) -> None:
        """Close every end, finish what is being written, and let go of the files."""
        for end in self._ends:
            await end.close()
        for file in (self._queue, self._events):
            await asyncio.to_thread(file.close)
