"""Which place a waiting job has in the fair order, told from the dispatcher's last word. Pure.

The first of the queue are told one by one. Behind them the order is foretold as it is made: by how far each owner
stands behind the others, and by how many jobs of its owner go before this one.
"""

import math
from dataclasses import dataclass
from typing import Final

from sfumato.core.events import Share, Standing
from sfumato.core.job import SHARES, Job

__all__ = ["Place", "beside", "place"]

SETTLED_S: Final = 0.5
"""A standing made so long after a job came has counted it, clocks being a little apart."""


@dataclass(frozen=True, slots=True)
class Place:
    """How many jobs go before it, and their cost (as in `Job`).

    `beside` is with how many others it will have to share its worker, itself counted: owners take turns there as well.
    """

    ahead: int
    cost: float
    beside: int = 1


def place(job: Job, rank: int, standing: Standing | None) -> Place:
    """Where a waiting job stands. `rank` is how many of its owner's jobs of its priority wait before it."""
    if standing is None:
        return Place(rank, float(rank * job.cost))
    own = _own(job, standing)
    if job.id in standing.front:
        ahead = standing.front.index(job.id)
        return Place(ahead, float(sum(standing.front_costs[:ahead])), _beside(own, 0, standing))
    count = sum(own.jobs)
    turns = _turns(job, rank, own)
    start = own.lead + turns * (own.charge / count if count else job.cost / job.weight)
    others = [_before(start, share) for share in standing.shares if share is not own]
    ahead = turns + sum(other.ahead for other in others)
    cost = turns * (own.cost / count if count else job.cost) + sum(other.cost for other in others)
    if job.created_at < standing.at - SETTLED_S:
        # It was there when the front was told, and it is not in it.
        ahead, cost = max(ahead, len(standing.front)), max(cost, float(sum(standing.front_costs)))
    return Place(ahead, cost, _beside(own, turns, standing))


def beside(job: Job, standing: Standing) -> int:
    """With how many jobs a running one shares its worker, itself counted: its owner's, and as many of each other's."""
    own = _own(job, standing)
    return max(1, own.running) * (1 + _other_owners(own, standing))


def _own(job: Job, standing: Standing) -> Share:
    return next((share for share in standing.shares if share.owner == job.owner), Share(owner=job.owner))


def _other_owners(own: Share, standing: Standing) -> int:
    return sum(share.running > 0 for share in standing.shares if share is not own)


def _beside(own: Share, turns: int, standing: Standing) -> int:
    """As many as its owner's jobs that will be in hand with it, and as many of each other owner's."""
    owners = 1 + _other_owners(own, standing)
    return (1 + max(own.running, min(turns, standing.slots // owners))) * owners


def _turns(job: Job, rank: int, own: Share) -> int:
    """How many turns its owner has before the job's: those of its priority, and what the others get meanwhile."""
    mine, turns = SHARES[job.priority], rank
    for (priority, share), waiting in zip(SHARES.items(), own.jobs, strict=True):
        if priority is not job.priority:
            turns += min(waiting, int((rank + 1) * share / mine))
    return turns


def _before(start: float, other: Share) -> Place:
    """What of another owner goes before a turn that begins at `start`."""
    count = sum(other.jobs)
    if not count or start <= other.lead:
        return Place(0, 0.0)
    each = other.charge / count
    ahead = min(count, math.ceil((start - other.lead) / each)) if each else count
    return Place(ahead, ahead * other.cost / count)
