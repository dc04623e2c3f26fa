"""What has happened to jobs, as one line of all of them that can be followed and come back to. Pure.

The recorder writes a job's lifecycle into its row, and each new line of it beside, under the number of its transaction.
Who has read up to a number that is settled has read all: nothing will ever appear at or before it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from sfumato.core.events import JobRow, Lifecycle

__all__ = ["News", "NewsReader", "Place", "Settled", "place_in"]

BEHIND_ALL: Final = "~"
"""Greater than any job's id."""
_PLACE: Final = re.compile(r"([0-9]{1,18})(?:-([0-9a-f-]{36})-([0-9]{1,18}))?")


class Place(NamedTuple):
    """Where a line stands among all: the number it was recorded under, its job, and its position in the event log.

    Without a job: behind everything of this number.
    """

    number: int
    job_id: str = BEHIND_ALL
    position: int = 0

    def __str__(self) -> str:
        """As an SSE id; `place_in` reads it."""
        return str(self.number) if self.job_id == BEHIND_ALL else f"{self.number}-{self.job_id}-{self.position}"


def place_in(text: str) -> Place | None:
    """The place that an SSE id names; None when it is none of ours."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return None
    number, job_id, position = found.groups()
    return Place(int(number)) if job_id is None else Place(int(number), job_id, int(position))


@dataclass(frozen=True, slots=True)
class News:
    """One line of a job's life, where it stands among all, and the job's row as it is by now."""

    place: Place
    line: Lifecycle
    row: JobRow


class Settled(NamedTuple):
    """What can be read: behind number `gone`, up to which lines were removed, and up to `last`; nothing will appear at
    or before `last` any more."""

    gone: int
    last: int


class NewsReader(Protocol):
    """For who follows many jobs."""

    async def settled(self) -> Settled:
        """What can be read now."""
        ...

    async def news(self, after: Place, last: int, owners: Collection[str] | None, limit: int) -> Sequence[News]:
        """The oldest lines after a place and up to number `last`, of these owners' jobs (None: of all); none of jobs
        that are forgotten."""
        ...
