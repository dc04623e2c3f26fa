"""Which jobs there were: what lists and purges ask for, and the times they ask with. Nothing here does I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sfumato.core.events import JobRow
from sfumato.core.job import State

__all__ = ["EndedPage", "EndedQuery", "JobPage", "JobPurge", "JobQuery", "moment"]

LATEST = 253_402_300_799.0
"""The end of the year 9999, beyond which nothing here can be written as a date."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which rows to list; newest first. `cursor` is a page's `next`, "" for the first page. No owner: everybody's.

    Accepted at `since` or later and before `until` (Unix seconds).
    """

    owner: str | None
    model: str = ""
    state: State | None = None
    cursor: str = ""
    limit: int = 50
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Rows ordered by (created_at, id), newest first; `next` is "" on the last page."""

    rows: Sequence[JobRow]
    next: str


@dataclass(frozen=True, slots=True)
class EndedQuery:
    """Ended jobs that were accepted before `before` (Unix seconds); those of all owners, models, states when empty."""

    before: float
    owner: str = ""
    model: str = ""
    state: State | None = None


@dataclass(frozen=True, slots=True)
class EndedPage:
    """Ids, the oldest job's first; `next` is the cursor of what is behind them."""

    ids: Sequence[str]
    next: str


class JobPurge(Protocol):
    """For who removes old jobs. Jobs that have not ended are not there for it, hidden ones are."""

    async def count(self, which: EndedQuery) -> int:
        """How many there are."""
        ...

    async def some(self, which: EndedQuery, cursor: str, limit: int) -> EndedPage:
        """The next ones behind the cursor ("" to begin); none when that was all."""
        ...

    async def drop(self, job_ids: Sequence[str]) -> int:
        """Remove these rows with what was delivered about them; how many. One that is in use just now stays."""
        ...


def moment(text: str) -> float:
    """A time as Unix seconds: a number of them, or an ISO 8601 date or time, in UTC where it names no zone.

    Raises:
        ValueError: it is none, or beyond what a date can be.
    """
    try:
        at = float(text)
    except ValueError:
        at = _iso(text)
    if not 0 <= at <= LATEST:  # NaN is neither
        raise ValueError("must be a time from 1970 to 9999")
    return at


def _iso(text: str) -> float:
    # A plus that nobody percent-encoded comes out of a query as a space.
    for spelled in (text, "+".join(text.rsplit(" ", 1))):
        try:
            told = datetime.fromisoformat(spelled)
        except ValueError:
            continue
        try:
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return math.nan
    raise ValueError("must be a time such as 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds")
