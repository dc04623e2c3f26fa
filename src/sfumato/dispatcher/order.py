"""Which waiting job goes next: owners share by cost, priorities share an owner's turns. Pure: no clock, no I/O.

Owners are served by start-time fair queueing (Goyal, Vin and Cheng, 1996): each has a virtual time that grows by cost ÷
weight with every job handed out, and the owner furthest behind goes next. In the long run this divides cost as deficit
round robin does, but it has no quantum, so nobody's small jobs go in a burst, and choosing is O(log owners). Who was
away returns at the present virtual time: idleness is neither saved up nor punished.

Within an owner, priorities are served by self-clocked fair queueing (Golestani, 1994), counted in jobs: a fresh `high`
goes first, and of 100 turns for which all three wait, 70 are high, 25 normal and 5 low. Within a priority the position
in the jobs log decides, so a job that comes back takes its old place.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sfumato.core.events import Share
from sfumato.core.job import SHARES, Priority
from sfumato.dispatcher.heap import KeyedHeap

__all__ = ["Order", "Ticket"]

SHARES_TOLD: Final = 16


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the order needs to know of a job.

    `cost` (pixels × steps) is charged to the owner at the hand-out; it is 0 when that was done before. `position` is
    the one in the jobs log. The job must not go before `not_before` (Unix seconds). Jobs of `weight` 2 get their owner
    twice as much as jobs of 1.
    """

    job_id: str
    owner: str
    priority: Priority
    cost: float
    position: int
    not_before: float = 0.0
    weight: float = 1.0

    @property
    def charge(self) -> float:
        """What it moves its owner's virtual time on by."""
        return self.cost / self.weight


class _Share:
    """One owner's waiting jobs by priority, and the owner's virtual time `start`.

    `cost` and `charge` are those of all its jobs that wait.
    """

    def __init__(self) -> None:
        self.start = 0.0
        self.cost = self.charge = 0.0
        self._turn = 0.0
        self._lanes = {priority: KeyedHeap() for priority in SHARES}
        self._finish = dict.fromkeys(SHARES, 0.0)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, ticket: Ticket) -> None:
        lane, priority = self._lanes[ticket.priority], ticket.priority
        if not lane:
            self._finish[priority] = max(self._finish[priority], self._turn) + 1 / SHARES[priority]
        lane.put(ticket.job_id, ticket.position)
        self._count(ticket, 1)

    def remove(self, ticket: Ticket) -> None:
        lane, priority = self._lanes[ticket.priority], ticket.priority
        lane.discard(ticket.job_id)
        self._count(ticket, -1)
        if not lane:
            self._finish[priority] -= 1 / SHARES[priority]

    def pop(self) -> str:
        """The id of the owner's next job. A tie goes to the higher priority, which comes first in the table."""
        waiting = (priority for priority, lane in self._lanes.items() if lane)
        priority = min(waiting, key=self._finish.__getitem__)
        lane = self._lanes[priority]
        job_id = lane.pop()
        self._turn = self._finish[priority]
        if lane:
            self._finish[priority] += 1 / SHARES[priority]
        return job_id

    def serve(self, ticket: Ticket) -> None:
        """Charge for a job that was popped."""
        self.start += ticket.charge
        self._count(ticket, -1)

    @property
    def jobs(self) -> tuple[int, ...]:
        """How many wait, by priority."""
        return tuple(map(len, self._lanes.values()))

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.cost += sign * ticket.cost
        # Sums of fractions drift; what is empty is so again.
        self.charge = self.charge + sign * ticket.charge if self else 0.0

    def mark(self) -> tuple[float, float, dict[Priority, float]]:
        """Where the share stands, for `reset`."""
        return self.start, self._turn, dict(self._finish)

    def reset(self, mark: tuple[float, float, dict[Priority, float]], popped: Sequence[Ticket]) -> None:
        """Undo every pop since `mark`."""
        self.start, self._turn, self._finish = mark
        for ticket in popped:
            self._lanes[ticket.priority].put(ticket.job_id, ticket.position)
            self._count(ticket, 1)


class Order:
    """The waiting jobs of one model."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._tickets: dict[str, Ticket] = {}
        self._later = KeyedHeap()
        self._shares: dict[str, _Share] = {}
        self._active = KeyedHeap()
        self._resting = KeyedHeap()

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._tickets

    def add(self, ticket: Ticket) -> None:
        """Let a job wait, or wait anew with another ticket."""
        self.remove(ticket.job_id)
        self._tickets[ticket.job_id] = ticket
        if ticket.not_before > 0:
            self._later.put(ticket.job_id, ticket.not_before)
        else:
            self._enter(ticket)

    def remove(self, job_id: str) -> None:
        """Let a job wait no more, if it did; its owner is charged nothing."""
        ticket = self._tickets.pop(job_id, None)
        if ticket is None:
            return
        if job_id in self._later:
            self._later.discard(job_id)
            return
        share = self._shares[ticket.owner]
        share.remove(ticket)
        if not share:
            self._rest(ticket.owner, share)

    def take(self, now: float) -> str | None:
        """Remove the job that goes next and charge its owner; None when none may go now."""
        self.wake(now)
        first = self._active.first()
        if first is None:
            return None
        self._clock, owner = first
        share = self._shares[owner]
        job_id = self._serve(owner, share).job_id
        del self._tickets[job_id]
        if not share:
            self._rest(owner, share)
        return job_id

    def front(self, now: float, limit: int) -> Sequence[str]:
        """The next `limit` jobs in the exact order in which they go if none comes: first who may go now, then the
        others by when they may."""
        self.wake(now)
        taken: list[Ticket] = []
        marks: dict[str, tuple[float, float, dict[Priority, float]]] = {}
        while len(taken) < limit and (first := self._active.first()) is not None:
            share = self._shares[first[1]]
            marks.setdefault(first[1], share.mark())
            taken.append(self._serve(first[1], share))
        for owner, mark in marks.items():
            share = self._shares[owner]
            share.reset(mark, [ticket for ticket in taken if ticket.owner == owner])
            self._active.put(owner, share.start)
        waiting = self._later.up_to(math.inf, limit - len(taken))
        return [*(ticket.job_id for ticket in taken), *waiting]

    def position(self, job_id: str, now: float) -> int | None:
        """How many go before it, plus 1; None when it does not wait. O(n log n): for a few, ask `front`."""
        return [*self.front(now, len(self))].index(job_id) + 1 if job_id in self else None

    def shares(self, running: Mapping[str, int] = MappingProxyType({})) -> tuple[Share, ...]:
        """Who has jobs that may go now, those with most first, and all beyond SHARES_TOLD in one without a name.

        `running` is how many jobs each owner has in workers' hands; who has nothing else is told too.
        """
        waiting = {owner: len(share) for owner, share in self._shares.items() if share}
        counts = [(waiting.get(owner, 0), owner) for owner in waiting.keys() | running.keys()]
        most = [owner for _, owner in heapq.nlargest(SHARES_TOLD, counts)]
        rest = {owner for _, owner in counts}.difference(most)
        return (*(self._told(owner, running) for owner in most), *_together([self._told(o, running) for o in rest]))

    def _told(self, owner: str, running: Mapping[str, int]) -> Share:
        in_hand, share = running.get(owner, 0), self._shares.get(owner)
        if not share:
            return Share(owner=owner, running=in_hand)
        # To four digits: it is an estimate's ground, and written every second.
        charge, lead = (float(f"{value:.4g}") for value in (share.charge, max(0.0, share.start - self._clock)))
        return Share(owner=owner, jobs=share.jobs, cost=round(share.cost), charge=charge, lead=lead, running=in_hand)

    def next_at(self) -> float | None:
        """When the next job that may not go yet may (Unix seconds)."""
        first = self._later.first()
        return first[0] if first else None

    def wake(self, now: float) -> None:
        """Let those whose `not_before` has come stand with the others."""
        while (first := self._later.first()) is not None and first[0] <= now:
            self._enter(self._tickets[self._later.pop()])

    def _enter(self, ticket: Ticket) -> None:
        owner = ticket.owner
        share = self._shares.get(owner)
        if share is None:
            share = self._shares[owner] = _Share()
        if not share:
            self._resting.discard(owner)
            share.start = max(share.start, self._clock)
            self._active.put(owner, share.start)
        share.add(ticket)

    def _serve(self, owner: str, share: _Share) -> Ticket:
        ticket = self._tickets[share.pop()]
        share.serve(ticket)
        if share:
            self._active.put(owner, share.start)
        else:
            self._active.discard(owner)
        return ticket

    def _rest(self, owner: str, share: _Share) -> None:
        """An owner has nothing that waits. His virtual time is kept until the clock has passed it, or else one job at a
        time would always go first."""
        self._active.discard(owner)
        self._resting.put(owner, share.start)
        # When nobody waits, nobody is behind: all begin anew.
        reached = self._clock if self._active else math.inf
        while (first := self._resting.first()) is not None and first[0] <= reached:
            del self._shares[self._resting.pop()]


def _together(shares: Sequence[Share]) -> Iterable[Share]:
    """Many owners as one who is served as often as all of them are."""
    if shares:
        jobs = tuple(map(sum, zip(*(share.jobs for share in shares), strict=True)))
        charge, lead = (sum(part) / len(shares) for part in zip(*((s.charge, s.lead) for s in shares), strict=True))
        cost, running = sum(share.cost for share in shares), sum(share.running for share in shares)
        yield Share(owner="", jobs=jobs, cost=cost, charge=charge, lead=lead, running=running)
