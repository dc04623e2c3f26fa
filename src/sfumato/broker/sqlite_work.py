"""The work queue over SQLite: a lane a living receiver, and the work of dead lanes moved to whoever finds it."""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from sfumato.core.errors import TransientError
from sfumato.core.events import decode_work
from sfumato.core.job import DeadLetter, Work
from sfumato.core.ports import Received
from sfumato.sqlite.file import SqliteFile
from sfumato.sqlite.wakeup import Bell, look_until

__all__ = ["WORK_SCHEMA", "SqliteWork", "trim_dead"]

# No index but the keys: what is handed out and not acknowledged is a few rows for each worker.
WORK_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS work (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    lane INTEGER NOT NULL,
    left_over INTEGER NOT NULL,     -- 1: it lay in a lane whose holder died
    body TEXT NOT NULL              -- JSON of the work
);
CREATE TABLE IF NOT EXISTS lanes (
    model TEXT NOT NULL,
    lane INTEGER NOT NULL,
    holder TEXT NOT NULL,
    seen REAL NOT NULL,             -- Unix seconds of the holder's last sign
    PRIMARY KEY (model, lane)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (
    model TEXT NOT NULL,
    at REAL NOT NULL,               -- Unix seconds of its outcome
    body TEXT NOT NULL              -- JSON of the dead letter
);
"""
HAND_OUT: Final = "INSERT INTO work (model, lane, left_over, body) VALUES (?, ?, 0, ?)"
RENEW: Final = "UPDATE lanes SET seen = ? WHERE model = ? AND lane = ? AND holder = ?"
BURY: Final = "DELETE FROM lanes WHERE model = ? AND abs(? - seen) >= ?"
HELD: Final = "SELECT lane FROM lanes WHERE model = ?"
TAKE: Final = "INSERT INTO lanes (model, lane, holder, seen) VALUES (?, ?, ?, ?)"
ADOPT: Final = """
UPDATE work SET lane = ?2, left_over = 1
WHERE model = ?1 AND lane NOT IN (SELECT lane FROM lanes WHERE model = ?1)
RETURNING number
"""
ORPHANS: Final = """
SELECT EXISTS (
    SELECT 1 FROM work WHERE model = ?1
    AND lane NOT IN (SELECT lane FROM lanes WHERE model = ?1 AND abs(?2 - seen) < ?3)
)
"""
MINE: Final = """
SELECT number, left_over, body FROM work JOIN lanes USING (model, lane)
WHERE model = ? AND holder = ? ORDER BY number
"""
ACKNOWLEDGE: Final = """
DELETE FROM work WHERE number = ?1 AND model = ?2 AND lane = ?3
AND EXISTS (SELECT 1 FROM lanes WHERE model = ?2 AND lane = ?3 AND holder = ?4)
"""
DEAD: Final = "INSERT INTO dead (model, at, body) VALUES (?, ?, ?)"
TRIM_DEAD: Final = "DELETE FROM dead WHERE at < ?"
GIVE_UP: Final = "DELETE FROM lanes WHERE model = ? AND lane = ? AND holder = ?"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look found in this end's lane, and whether there is work that nobody living holds."""

    rows: Sequence[tuple[int, int, str]]
    orphans: bool


class SqliteWork:
    """One process's end of a model's work queue (core.ports.WorkQueue).

    It holds one lane: the smallest number that nobody living holds. It does not take over a dead holder's lane but
    moves the work in it to its own, so the numbers stay as small as the number of living receivers.
    """

    def __init__(self, file: SqliteFile, wake_folder: Path, model: str, takeover_s: float) -> None:
        self.takeover_s = takeover_s
        self._file, self._model, self._topic = file, model, f"work.{model}"
        self._bell = Bell(wake_folder, self._topic)
        self._holder = uuid4().hex
        self._lane: int | None = None
        self._given: set[int] = set()
        self._renew_at = 0.0

    @property
    def lanes(self) -> frozenset[int]:
        return frozenset() if self._lane is None else frozenset({self._lane})

    async def hand_out(self, works: Sequence[Work]) -> None:
        rows = [(self._model, work.lane, work.model_dump_json()) for work in works]

        def run(connection: sqlite3.Connection) -> None:
            connection.executemany(HAND_OUT, rows)

        if rows:
            await self._file.write(run, rings=self._topic)

    async def bury(self, letter: DeadLetter) -> None:
        row = (self._model, letter.outcome.at, letter.model_dump_json())
        await self._file.write(lambda connection: connection.execute(DEAD, row).rowcount)

    async def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        return await look_until(self._bell, lambda: self._receive(limit), wait_s)

    async def _receive(self, limit: int) -> Sequence[Received]:
        if self._lane is None or time.monotonic() >= self._renew_at:
            await self._hold(adopt=limit > 0)
        if limit <= 0:
            return []
        seen = await self._file.read(self._look)
        if seen.orphans:
            await self._hold(adopt=True)
            seen = await self._file.read(self._look)
        fresh = [row for row in seen.rows if row[0] not in self._given][:limit]
        self._given.intersection_update(number for number, _, _ in seen.rows)
        self._given.update(number for number, _, _ in fresh)
        return [Received(decode_work(body), str(number), bool(left)) for number, left, body in fresh]

    def _look(self, connection: sqlite3.Connection) -> _Seen:
        rows = connection.execute(MINE, (self._model, self._holder)).fetchall()
        orphans = connection.execute(ORPHANS, (self._model, time.time(), self.takeover_s)).fetchone()[0]
        return _Seen(rows, bool(orphans))

    async def _hold(self, adopt: bool) -> None:
        self._lane, adopted = await self._file.write(lambda connection: self._held(connection, adopt))
        # Among the adopted may be what this end was given before it was taken for dead; now it comes as left over.
        self._given.difference_update(adopted)
        self._renew_at = time.monotonic() + self.takeover_s / 4

    def _held(self, connection: sqlite3.Connection, adopt: bool) -> tuple[int, set[int]]:
        """Renew the lane or take one, bury the dead, and adopt what lies in lanes that nobody holds; lane, adopted."""
        now = time.time()
        holds = connection.execute(RENEW, (now, self._model, self._lane, self._holder)).rowcount == 1
        connection.execute(BURY, (self._model, now, self.takeover_s))
        lane = self._lane if holds and self._lane is not None else self._free_lane(connection)
        adopted: set[int] = set()
        if adopt or not holds:
            adopted = {number for (number,) in connection.execute(ADOPT, (self._model, lane))}
        if not holds:
            connection.execute(TAKE, (self._model, lane, self._holder, now))
        return lane, adopted

    def _free_lane(self, connection: sqlite3.Connection) -> int:
        held = {lane for (lane,) in connection.execute(HELD, (self._model,))}
        return next(lane for lane in itertools.count() if lane not in held)

    async def acknowledge(self, receipt: str) -> None:
        values = (int(receipt), self._model, self._lane, self._holder)
        await self._file.write(lambda connection: connection.execute(ACKNOWLEDGE, values).rowcount)

    async def close(self) -> None:
        self._bell.close()
        if self._lane is None:
            return
        values = (self._model, self._lane, self._holder)
        self._lane = None
        with contextlib.suppress(TransientError):
            await self._file.write(lambda connection: connection.execute(GIVE_UP, values).rowcount, rings=self._topic)


async def trim_dead(file: SqliteFile, before: float) -> int:
    """Delete dead letters older than `before` (Unix seconds); how many."""
    return await file.write(lambda connection: connection.execute(TRIM_DEAD, (before,)).rowcount)
