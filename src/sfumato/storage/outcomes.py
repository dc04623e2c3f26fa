"""The one end of every job, on one host: the first insert wins, everyone else reads it."""

import asyncio
import sqlite3
from bisect import bisect_right
from pathlib import Path
from typing import Final, Self

from sfumato.core.job import OUTCOME_LIMIT_BYTES, Outcome
from sfumato.sqlite.file import SqliteFile

__all__ = ["SqliteOutcomes", "fitting"]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outcomes (
    job_id TEXT PRIMARY KEY,
    at REAL NOT NULL,       -- Unix seconds, when it was decided
    outcome TEXT NOT NULL   -- JSON of the outcome
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_by_age ON outcomes (at);
"""
CREATE: Final = "INSERT OR IGNORE INTO outcomes (job_id, at, outcome) VALUES (?, ?, ?)"
HOLDS: Final = "SELECT outcome FROM outcomes WHERE job_id = ?"
FORGET: Final = "DELETE FROM outcomes WHERE at < ?"


class SqliteOutcomes:
    """`Outcomes` of core.ports in one SQLite file, shared by the processes of a host.

    Raises:
        UnusableStore: the file can't be opened or written; the detail says what to do.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA, path.parent / "wake")

    async def decide(self, outcome: Outcome) -> Outcome:
        """Create the outcome of its job, unless there is one; gives the one that holds.

        Raises:
            ValueError: it is longer than OUTCOME_LIMIT_BYTES and can't be shortened.
        """
        fits = fitting(outcome)
        values = (fits.job_id, fits.at, fits.model_dump_json())

        def run(connection: sqlite3.Connection) -> str:
            connection.execute(CREATE, values)
            found: tuple[str] = connection.execute(HOLDS, (fits.job_id,)).fetchone()
            return found[0]

        return Outcome.model_validate_json(await self._file.write(run))

    async def get(self, job_id: str) -> Outcome | None:
        """The outcome that holds, if the job has ended."""
        found = await self._file.read(lambda connection: connection.execute(HOLDS, (job_id,)).fetchone())
        return Outcome.model_validate_json(found[0]) if found else None

    async def sweep(self, before: float) -> int:
        """Forget outcomes decided before `before` (Unix seconds); how many."""
        return await self._file.write(lambda connection: connection.execute(FORGET, (before,)).rowcount)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._file.close)


def fitting(outcome: Outcome) -> Outcome:
    """`outcome` in at most OUTCOME_LIMIT_BYTES as JSON: what is too much is cut from the end of its error's detail.

    Raises:
        ValueError: it would be too long without any detail.
    """
    if _size_bytes(outcome) <= OUTCOME_LIMIT_BYTES:
        return outcome
    chars = 0 if outcome.error is None else len(outcome.error.detail)
    # How many lengths fit: characters take one to six bytes of JSON, so a size is found by trying.
    fit = bisect_right(range(chars), OUTCOME_LIMIT_BYTES, key=lambda length: _size_bytes(_cut(outcome, length)))
    if not fit:
        raise ValueError(f"the outcome of {outcome.job_id} is too long and cutting its error's detail does not help.")
    return _cut(outcome, fit - 1)


def _cut(outcome: Outcome, chars: int) -> Outcome:
    error = outcome.error and outcome.error.model_copy(update={"detail": outcome.error.detail[:chars] + "…"})
    return outcome.model_copy(update={"error": error})


def _size_bytes(outcome: Outcome) -> int:
    return len(outcome.model_dump_json().encode())
