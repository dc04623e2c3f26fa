"""What a dispatcher knows of its model: a fold over the jobs log and the event log, and what follows from it. Pure.

Every undecided job is in exactly one place:

    WAITING    in the order, until its turn or its `not_before`
    OUT        handed out: in a worker's hands as far as anyone knows
    HELD       returned as left over, while who began it may still live and finish it
    SUSPECT    begun by a worker that then fell silent: goes next, alone, to a worker with nothing else
    CONDEMNED  too many workers fell silent over it: to be ended as a dead letter

A job is known by (attempt, delivery): events older than what is known are late and change nothing. All that was learned
from events can be learned again from the log, so a successor that folds both logs stands where this one stood.
"""

import itertools
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from sfumato.core.events import (
    Alive,
    Dispatched,
    Ended,
    Event,
    JobEvent,
    Retried,
    Returned,
    Standing,
    Started,
    Unreadable,
    Watched,
)
from sfumato.core.job import Job, Outcome, Priority, State, Work
from sfumato.core.ports import Batch, Lead, Logged
from sfumato.dispatcher.brake import Brake
from sfumato.dispatcher.endings import DEATHS_ALONE, dead_letter, not_loaded
from sfumato.dispatcher.entry import Entry, Place, ended
from sfumato.dispatcher.fleet import Fleet, Seat
from sfumato.dispatcher.learned import Learned
from sfumato.dispatcher.loading import Loading
from sfumato.dispatcher.order import Order, Ticket
from sfumato.dispatcher.prefix import Prefix
from sfumato.dispatcher.waiting import Waiting

__all__ = ["HandOut", "Ledger"]

log = logging.getLogger(__name__)

ENDED_KEPT: Final = 100_000
FRONT: Final = 50
EXPECTED_AT_FIRST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class HandOut:
    """A work message to write, and the event that tells of it."""

    work: Work
    told: Dispatched


class Ledger:
    """The state behind one model's dispatcher.

    `lead` is where the predecessor committed, with the event cursor from which to fold as its metadata. A worker not
    heard for more than `silence_s` is taken for dead. Jobs wait `patience_s` for a model whose workers can't load it,
    then they fail.
    """

    def __init__(
        self,
        lead: Lead,
        silence_s: float,
        patience_s: float = math.inf,
    ) -> None:
        self.cursor = lead.metadata
        self._prefix = Prefix(lead)
        self._entries: dict[str, Entry] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._order = Order()
        self._fleet = Fleet(silence_s)
        self._held: dict[str, float] = {}
        self._suspects: dict[str, None] = {}
        self._condemned: dict[str, None] = {}
        self._expiry = Waiting()
        self._learned = Learned()
        self._loading = Loading(patience_s)
        self._brake = Brake()
        self._cost = self._cost_out = 0
        self._out: Counter[str] = Counter()

    # The fold

    def read(self, items: Sequence[Logged[Job | Unreadable]]) -> None:
        """Take in what the jobs log had next."""
        for item in items:
            self._prefix.read(item.position, self.cursor)
            if isinstance(item.value, Unreadable):
                # Never decided here: the commit stays before it, and a newer build reads it again.
                log.error("job message %d can't be read and holds the commit: %s", item.position, item.value.why)
            else:
                self._register(item.value, item.position)

    def _register(self, job: Job, position: int) -> None:
        if job.id in self._ended:
            self._prefix.decide(position)
        elif (known := self._entries.get(job.id)) is not None:
            known.positions.append(position)
        else:
            self._entries[job.id] = Entry(job, [position], job.attempt)
            self._cost += job.cost
            self._learned.arrived(job)
            self._wait(self._entries[job.id])

    def follow(self, batch: Batch[Event | Unreadable], now: float, *, replay: bool = False) -> None:
        """Take in what the event log had next; in a replay everything is as old as it says."""
        for item in batch.items:
            event = item.value
            if isinstance(event, Unreadable):
                log.warning("event %d can't be read and is passed over: %s", item.position, event.why)
            else:
                self.apply(event, min(event.at, now) if replay else now)
        self.cursor = batch.cursor

    def apply(self, event: Event, now: float) -> None:
        """Take in one event, seen at `now`."""
        match event:
            case Alive():
                self._hear(event, now)
            case Standing():
                self._learned.from_predecessor(event)
            case Ended():
                self._end(event, now)
            case Dispatched() | Started() | Returned() | Retried():
                entry = self._entries.get(event.job_id)
                if entry is not None and entry.place is not Place.CONDEMNED:
                    self._move(entry, event, now)
            case Watched():
                pass
            case _:
                assert_never(event)

    def _hear(self, alive: Alive, seen: float) -> None:
        self._fleet.hear(alive, seen)
        self._learned.heard(alive)
        self._loading.hear(alive, seen)
        for running in alive.running:
            # A beat may be told after the end it was made before.
            if running.job_id in self._ended:
                self._fleet.stopped(running.job_id, alive.worker)

    def _end(self, event: Ended, now: float) -> None:
        if event.job_id not in self._ended:
            self._brake.ended(event.outcome, now)
        self._ended[event.job_id] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        self._fleet.stopped(event.job_id)
        entry = self._entries.pop(event.job_id, None)
        if entry is None:
            return
        self._leave(entry)
        self._cost -= entry.job.cost
        for position in entry.positions:
            self._prefix.decide(position)
        if entry.begun_by and event.outcome.state is State.SUCCEEDED:
            self._learned.succeeded(entry.begun_by, entry.job, entry.begun_at, event.at)
        else:
            self._learned.gave_up(entry.begun_by, entry.job, event.at)

    def _move(self, entry: Entry, event: JobEvent, now: float) -> None:
        told = (event.attempt, event.delivery)
        match event:
            case Dispatched() if told >= entry.order:
                # `started` may have been told first: then who began it has it.
                begun = entry.place is Place.OUT and told == entry.order
                if not begun:
                    self._learned.gave_up(entry.begun_by, entry.job, event.at)
                entry.begun_by = entry.begun_by if begun else ""
                entry.attempt, entry.delivery, entry.deaths = *told, event.deaths
                self._go_out(entry, entry.begun_by or event.worker)
            case Started() if told >= entry.order:
                entry.attempt, entry.delivery = told
                self._learned.gave_up(entry.begun_by, entry.job, event.at)
                entry.begun_by, entry.begun_at = event.worker, event.at
                self._learned.began(event.worker, entry.job, event.at)
                self._go_out(entry, event.worker)
            case Returned() if told >= entry.order:
                self._fleet.stopped(entry.job.id, event.worker)
                self._learned.gave_up(event.worker, entry.job, event.at)
                entry.attempt, entry.delivery = event.attempt, event.delivery + 1
                self._come_back(entry, event, now)
            case Returned() if entry.place is Place.HELD and event.worker == entry.begun_by:
                self._wait(entry)
            case Retried() if told > entry.order:
                self._fleet.stopped(entry.job.id, entry.begun_by)
                self._learned.gave_up(entry.begun_by, entry.job, event.at)
                entry.attempt, entry.delivery = told
                # Whoever tells of a failure has survived it.
                entry.deaths, entry.charged = 0, False
                self._wait(entry, event.not_before)
            case _:
                pass

    def _come_back(self, entry: Entry, event: Returned, now: float) -> None:
        may_live = self._fleet.lives(entry.begun_by, now) or self._fleet.runs_somewhere(entry.job.id, now)
        if event.reason == "drain" or not (entry.begun_by or may_live):
            self._wait(entry)
        elif may_live:
            expected_s = self._learned.seconds_per_job or EXPECTED_AT_FIRST_S
            # At least until the silence of one that died with it would be heard.
            self._hold(entry, max(entry.begun_at + 2 * expected_s, now + self._fleet.silence_s))
        else:
            self._count_death(entry)

    # From place to place

    def _leave(self, entry: Entry) -> None:
        job_id = entry.job.id
        if entry.place is Place.OUT:
            self._cost_out -= entry.job.cost
            self._out[entry.job.owner] -= 1
            if not self._out[entry.job.owner]:
                del self._out[entry.job.owner]
        self._order.remove(job_id)
        self._fleet.take(job_id)
        self._held.pop(job_id, None)
        self._suspects.pop(job_id, None)
        self._condemned.pop(job_id, None)
        self._expiry.discard(job_id)

    def _wait(self, entry: Entry, not_before: float = 0.0) -> None:
        self._leave(entry)
        job, entry.begun_by = entry.job, ""
        self._expiry.put(job)
        if entry.deaths:
            entry.place = Place.SUSPECT
            self._suspects[job.id] = None
        else:
            entry.place = Place.WAITING
            cost = 0 if entry.charged else job.cost
            place = entry.positions[0]
            self._order.add(Ticket(job.id, job.owner, job.priority, cost, place, not_before, job.weight))

    def _go_out(self, entry: Entry, worker: str) -> None:
        self._leave(entry)
        entry.place, entry.charged = Place.OUT, True
        self._cost_out += entry.job.cost
        self._out[entry.job.owner] += 1
        self._fleet.hand(entry.job.id, worker, alone=entry.deaths > 0)

    def _hold(self, entry: Entry, until: float) -> None:
        self._leave(entry)
        entry.place = Place.HELD
        self._held[entry.job.id] = until
        self._expiry.put(entry.job)

    def _count_death(self, entry: Entry) -> None:
        entry.deaths += 1
        # The first death was in company and only raised the suspicion.
        if entry.deaths <= DEATHS_ALONE:
            self._wait(entry)
        else:
            self._leave(entry)
            entry.place = Place.CONDEMNED
            self._condemned[entry.job.id] = None

    # What follows

    def hand_outs(self, now: float) -> Sequence[HandOut]:
        """What to hand out now; these jobs are taken to be out from here on."""
        self._learned.forget(self._fleet.bury(now))
        self._release(now)
        self._order.wake(now)
        if self._brake.until(now) > now:
            return ()
        return [*self._hand_out_suspects(now), *self._hand_out_waiting(now)]

    def _release(self, now: float) -> None:
        for job_id, until in list(self._held.items()):
            entry = self._entries[job_id]
            if entry.begun_by and not self._fleet.lives(entry.begun_by, now):
                self._count_death(entry)
            elif now >= until or not (entry.begun_by or self._fleet.runs_somewhere(job_id, now)):
                self._wait(entry)

    def _hand_out_suspects(self, now: float) -> Iterator[HandOut]:
        for job_id, seat in zip(list(self._suspects), self._fleet.idle_seats(), strict=False):
            yield self._hand_out(self._entries[job_id], seat, now)

    def _hand_out_waiting(self, now: float) -> Iterator[HandOut]:
        for seat in self._fleet.seats(self._learned.seconds_per_job, keep_one_clear=bool(self._suspects)):
            job_id = self._order.take(now)
            if job_id is None:
                return
            yield self._hand_out(self._entries[job_id], seat, now)

    def _hand_out(self, entry: Entry, seat: Seat, now: float) -> HandOut:
        self._go_out(entry, seat.worker)
        order = {"attempt": entry.attempt, "delivery": entry.delivery}
        work = Work(job=entry.job, lane=seat.lane, **order, alone=entry.deaths > 0)
        told = {"job_id": entry.job.id, "at": now, "lane": seat.lane, "worker": seat.worker, "deaths": entry.deaths}
        return HandOut(work, Dispatched(**told, **order))

    def take_back(self, hand_outs: Sequence[HandOut]) -> None:
        """These could not be written, or nobody knows: they wait again. If they were, their events will tell."""
        for hand_out in hand_outs:
            self._wait(self._entries[hand_out.work.job.id])

    def ends(self, now: float, limit: int) -> Sequence[Ended]:
        """Ends to decide, told as if ours were the outcome: dead letters, what waited past its time, and what waits
        for a model that can't be loaded."""
        condemned = [ended(entry, dead_letter(entry.job, entry.attempt, now)) for entry in self._those(self._condemned)]
        overdue = self._those(self._expiry.up_to(now, limit))
        expired = [ended(entry, Outcome.expired(entry.job.id, entry.attempt, now)) for entry in overdue]
        hopeless = self._hopeless(now, limit - len(expired))
        why = self._loading.trouble
        unloaded = [ended(entry, not_loaded(entry.job, entry.attempt, now, why)) for entry in hopeless]
        return [*condemned, *expired, *unloaded][:limit]

    def _those(self, job_ids: Iterable[str]) -> Iterable[Entry]:
        return (self._entries[job_id] for job_id in job_ids)

    def _hopeless(self, now: float, limit: int) -> Sequence[Entry]:
        """Waiting jobs whose model nobody could load for so long that they wait no more."""
        if not (before := self._loading.gave_up_on(now)):
            return ()
        # Jobs are known about in the order they came.
        came = itertools.takewhile(lambda entry: entry.job.created_at <= before, self._entries.values())
        waiting = (
            entry for entry in came if entry.place in (Place.WAITING, Place.SUSPECT) and entry.job.expires_at > now
        )
        return list(itertools.islice(waiting, limit))

    def job(self, job_id: str) -> Job:
        """An undecided job."""
        return self._entries[job_id].job

    def commit(self) -> Lead:
        """The position and metadata with which a successor misses nothing."""
        return self._prefix.commit(self.cursor)

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait."""
        return len(self._entries) - self._fleet.out

    def standing(self, now: float) -> Standing:
        """How the queue stands."""
        self._learned.forget(self._fleet.bury(now))
        workers, slots = self._fleet.capacity()
        first = self._expiry.first()
        front = [*self._suspects, *self._order.front(now, FRONT)][:FRONT]
        return Standing(
            at=now,
            waiting=self.waiting_jobs,
            running=self._fleet.out,
            slots=slots,
            workers=workers,
            # Jobs wait equally long, so the first to expire is the oldest.
            oldest_created_at=self._entries[first[1]].job.created_at if first else None,
            front=tuple(front),
            front_costs=tuple(self._entries[job_id].job.cost for job_id in front),
            shares=self._order.shares(self._out),
            waiting_cost=self._cost - self._cost_out,
            running_cost=self._cost_out,
            **self._learned.told(now),
            trouble=self._brake.trouble(now),
        )

    def waiting(self) -> Mapping[Priority, tuple[int, float]]:
        """Priority → how many of it wait, and since when the oldest does (Unix seconds; 0 when none waits)."""
        return {
            priority: (count, self._entries[first].job.created_at if first else 0.0)
            for priority, (count, first) in self._expiry.by_priority().items()
        }

    def next_at(self, now: float) -> float:
        """When there is something to do though nothing comes: a retry, an expiry, the end of a rest (Unix seconds)."""
        expiry, retry, rest = self._expiry.first(), self._order.next_at(), self._brake.until(now)
        return min(
            expiry[0] if expiry else math.inf,
            math.inf if retry is None else retry,
            rest if rest > now else math.inf,
        )
