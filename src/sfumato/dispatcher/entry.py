"""One undecided job, as a ledger keeps it."""

from dataclasses import dataclass
from enum import Enum, auto

from sfumato.core.events import Ended
from sfumato.core.job import Job, Outcome

__all__ = ["Entry", "Place", "ended"]


class Place(Enum):
    """Where it is; the ledger's docstring says what each means."""

    WAITING = auto()
    OUT = auto()
    HELD = auto()
    SUSPECT = auto()
    CONDEMNED = auto()


@dataclass(slots=True)
class Entry:
    """One undecided job. `begun_by` is who started the present delivery; `deaths` how many fell silent over it."""

    job: Job
    positions: list[int]
    attempt: int
    delivery: int = 0
    place: Place = Place.WAITING
    charged: bool = False
    deaths: int = 0
    begun_by: str = ""
    begun_at: float = 0.0

    @property
    def order(self) -> tuple[int, int]:
        """What later events must not come before."""
        return self.attempt, self.delivery


def ended(entry: Entry, outcome: Outcome) -> Ended:
    """The event that tells of its end."""
    order = {"attempt": entry.attempt, "delivery": entry.delivery}
    return Ended(job_id=entry.job.id, at=outcome.at, **order, outcome=outcome)
