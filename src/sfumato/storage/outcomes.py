"""The one end of every job, in SQL: the first insert wins, everyone else reads it."""

from bisect import bisect_right
from typing import Any

from sqlalchemy import Select, delete, select

from sfumato.core.job import OUTCOME_LIMIT_BYTES, Outcome
from sfumato.storage.database import Database
from sfumato.storage.tables import outcomes

__all__ = ["SqlOutcomes", "fitting"]


class SqlOutcomes:
    """`Outcomes` of core.ports: INSERT … ON CONFLICT DO NOTHING in one transaction decides."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert(outcomes).on_conflict_do_nothing()

    async def decide(self, outcome: Outcome) -> Outcome:
        """Create the outcome of its job, unless there is one; gives the one that holds."""
        fits = fitting(outcome)
        values = {"job_id": fits.job_id, "at": fits.at, "outcome": fits}
        async with self._database.write() as connection:
            if (await connection.execute(self._insert, values)).rowcount:
                return fits
            holds: Outcome = (await connection.execute(_of(fits.job_id))).scalar_one()
        return holds

    async def get(self, job_id: str) -> Outcome | None:
        """The outcome that holds, if the job has ended."""
        async with self._database.read() as connection:
            found: Outcome | None = (await connection.execute(_of(job_id))).scalar()
        return found

    async def sweep(self, before: float) -> int:
        """Forget outcomes decided before `before` (Unix seconds); how many."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(outcomes).where(outcomes.c.at < before))).rowcount


def _of(job_id: str) -> Select[Any]:
    return select(outcomes.c.outcome).where(outcomes.c.job_id == job_id)


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
