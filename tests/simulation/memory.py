"""Every port in memory, with the semantics of core.ports and a seam before and after each effect.

The `World` is what is durable; ends opened on it belong to one process and die with it. `World.io` is awaited before
and after every effect: the simulation makes it a place to switch, crash, fail or lose an answer; elsewhere it does
nothing.
"""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from sfumato.core.errors import AlreadyExists, Deposed, NotFound
from sfumato.core.events import (
    Event,
    JobEvent,
    JobRow,
    Lifecycle,
    Unreadable,
    advance,
    decode_event,
    decode_job,
    new_row,
)
from sfumato.core.job import DeadLetter, Job, Outcome, State, Work
from sfumato.core.news import News, Place, Settled
from sfumato.core.ports import Batch, BlobHead, JobPage, JobQuery, Lead, Logged, Received, RowChange

__all__ = ["MemoryBlobs", "MemoryBroker", "MemoryOutcomes", "MemoryRows", "World"]


async def _nothing(what: str) -> None:
    del what


@dataclass
class _Topics:
    """One model's logs and lanes."""

    jobs: list[str] = field(default_factory=list)
    committed: Lead = field(default_factory=lambda: Lead(0, ""))
    leader: object | None = None
    leader_seen: float = 0.0
    events: list[str] = field(default_factory=list)
    work: dict[int, Work] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    holders: dict[int, object] = field(default_factory=dict)
    held_since: dict[int, int] = field(default_factory=dict)
    seen: dict[object, float] = field(default_factory=dict)


@dataclass
class World:
    """Everything that outlives a process: logs, lanes, objects, outcomes and rows."""

    clock: Callable[[], float]
    io: Callable[[str], Awaitable[None]] = _nothing
    takeover_s: float = 3.0
    topics: dict[str, _Topics] = field(default_factory=dict)
    blobs: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    rows: dict[str, JobRow] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    news: list[tuple[Place, Lifecycle]] = field(default_factory=list)
    news_gone: int = 0
    early: dict[str, list[tuple[int, JobEvent]]] = field(default_factory=dict)
    parked: list[tuple[str, int, str]] = field(default_factory=list)
    cursors: dict[str, str] = field(default_factory=dict)
    sequence: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def topic(self, model: str) -> _Topics:
        return self.topics.setdefault(model, _Topics())


def _after(log: Sequence[str], after: str, limit: int) -> tuple[int, Sequence[str]]:
    start = int(after or 0)
    return start, log[start : start + limit]


class MemoryJobs:
    """One process's end of a jobs log."""

    def __init__(self, world: World, model: str) -> None:
        self._world, self._topic, self._next = world, world.topic(model), 0
        self.takeover_s = world.takeover_s

    async def publish(self, job: Job) -> None:
        await self._world.io("publish")
        self._topic.jobs.append(job.model_dump_json())
        await self._world.io("published")

    async def lead(self, wait_s: float) -> Lead | None:
        del wait_s
        await self._world.io("lead")
        topic, now = self._topic, self._world.clock()
        if topic.leader not in (None, self) and now < topic.leader_seen + self.takeover_s:
            return None
        topic.leader, topic.leader_seen, self._next = self, now, topic.committed.position
        await self._world.io("leads")
        return topic.committed

    def _renew(self) -> None:
        if self._topic.leader is not self:
            raise Deposed("another reader took over")
        self._topic.leader_seen = self._world.clock()

    async def read(self, limit: int, wait_s: float) -> Sequence[Logged[Job | Unreadable]]:
        await self._world.io("read jobs")
        self._renew()
        found = self._topic.jobs[self._next : self._next + limit]
        if not found and wait_s:
            await asyncio.sleep(min(wait_s, 0.01))
        start, self._next = self._next, self._next + len(found)
        return [Logged(start + n, decode_job(raw)) for n, raw in enumerate(found, 1)]

    async def last(self) -> int:
        await self._world.io("last job")
        return len(self._topic.jobs)

    async def commit(self, position: int, metadata: str) -> None:
        await self._world.io("commit")
        self._renew()
        self._topic.committed = Lead(position, metadata)
        await self._world.io("committed")

    async def close(self) -> None:
        if self._topic.leader is self:
            self._topic.leader = None

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Job | Unreadable]:
        await self._world.io("follow jobs")
        start, found = _after(self._topic.jobs, after, limit)
        if not found and wait_s:
            await asyncio.sleep(min(wait_s, 0.01))
        items = [Logged(start + n, decode_job(raw)) for n, raw in enumerate(found, 1)]
        return Batch(items, str(start + len(found)))

    async def end(self) -> str:
        await self._world.io("end of jobs")
        return str(len(self._topic.jobs))


class MemoryEvents:
    """One process's end of an event log."""

    def __init__(self, world: World, model: str) -> None:
        self._world, self._topic = world, world.topic(model)

    async def append(self, events: Sequence[Event]) -> None:
        kinds = "+".join(event.kind for event in events)
        await self._world.io(f"append {kinds}")
        self._topic.events.extend(event.model_dump_json() for event in events)
        await self._world.io(f"appended {kinds}")

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Event | Unreadable]:
        await self._world.io("follow events")
        start, found = _after(self._topic.events, after, limit)
        if not found and wait_s:
            await asyncio.sleep(min(wait_s, 0.01))
        items = [Logged(start + n, decode_event(raw)) for n, raw in enumerate(found, 1)]
        return Batch(items, str(start + len(found)))

    async def end(self) -> str:
        await self._world.io("end of events")
        return str(len(self._topic.events))


class MemoryWork:
    """One process's end of a work queue; it holds lanes from its first `receive` on."""

    def __init__(self, world: World, model: str) -> None:
        self._world, self._topic = world, world.topic(model)
        self._given: set[int] = set()
        self.takeover_s = world.takeover_s

    async def hand_out(self, works: Sequence[Work]) -> None:
        await self._world.io("hand out")
        for work in works:
            self._topic.work[next(self._world.sequence)] = work
        await self._world.io("handed out")

    async def bury(self, letter: DeadLetter) -> None:
        await self._world.io("bury")
        self._topic.dead.append(letter)
        await self._world.io("buried")

    @property
    def lanes(self) -> frozenset[int]:
        return frozenset(lane for lane, holder in self._topic.holders.items() if holder is self)

    async def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        await self._world.io("receive")
        self._topic.seen[self] = self._world.clock()
        self._adopt()
        waiting = [
            n for n, work in sorted(self._topic.work.items()) if work.lane in self.lanes and n not in self._given
        ]
        if not waiting and wait_s:
            await asyncio.sleep(min(wait_s, 0.01))
        taken = waiting[:limit]
        await self._world.io("received")
        self._given.update(taken)
        return [self._received(n) for n in taken if n in self._topic.work]

    def _received(self, number: int) -> Received:
        work = self._topic.work[number]
        return Received(work, str(number), number <= self._topic.held_since[work.lane])

    def _adopt(self) -> None:
        topic, mine = self._topic, self.lanes
        if not mine:
            self._given.clear()
        free = [lane for lane, holder in topic.holders.items() if holder is not self and not self._lives(holder)]
        loaded = [lane for lane in free if any(work.lane == lane for work in topic.work.values())]
        # Work may be handed to a lane that nobody ever held when its holder died before it was told.
        loaded += [work.lane for work in topic.work.values() if work.lane not in topic.holders]
        wanted = loaded if mine else loaded or free[:1] or [max(topic.holders, default=-1) + 1]
        for lane in wanted:
            topic.holders[lane] = self
            topic.held_since[lane] = max((n for n, work in topic.work.items() if work.lane == lane), default=0)

    def _lives(self, holder: object) -> bool:
        return self._world.clock() < self._topic.seen.get(holder, float("-inf")) + self.takeover_s

    async def acknowledge(self, receipt: str) -> None:
        await self._world.io("acknowledge")
        work = self._topic.work.get(int(receipt))
        if work is not None and work.lane in self.lanes:
            del self._topic.work[int(receipt)]
        await self._world.io("acknowledged")

    async def close(self) -> None:
        self._topic.seen.pop(self, None)


class MemoryBroker:
    """Opens ends on a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def jobs(self, model: str) -> MemoryJobs:
        return MemoryJobs(self._world, model)

    def work(self, model: str) -> MemoryWork:
        return MemoryWork(self._world, model)

    def events(self, model: str) -> MemoryEvents:
        return MemoryEvents(self._world, model)

    async def trim(self, before: float) -> int:
        """A world is short: it keeps all it was told."""
        del before
        return 0

    async def close(self) -> None:
        """Nothing to give back."""


class MemoryBlobs:
    """Objects in a dict."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        kind = key.partition("/")[0]
        await self._world.io(f"put {kind}")
        if create_only and key in self._world.blobs:
            raise AlreadyExists(key)
        self._world.blobs[key] = (data, self._world.clock())
        await self._world.io(f"stored {kind}")
        return self._etag(data)

    @staticmethod
    def _etag(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        await self._world.io("get")
        if key not in self._world.blobs:
            raise NotFound(f"no object {key}")
        return self._world.blobs[key][0][:limit_bytes]

    async def head(self, key: str) -> BlobHead:
        await self._world.io("head")
        if key not in self._world.blobs:
            raise NotFound(f"no object {key}")
        data, at = self._world.blobs[key]
        return BlobHead(key, len(data), self._etag(data), at)

    async def copy(self, source: str, target: str, *, if_etag: str) -> None:
        await self._world.io("copy")
        if source not in self._world.blobs or self._etag(self._world.blobs[source][0]) != if_etag:
            raise NotFound(f"no object {source} with this etag")
        self._world.blobs[target] = (self._world.blobs[source][0], self._world.clock())

    async def delete(self, key: str) -> None:
        await self._world.io("delete")
        self._world.blobs.pop(key, None)

    async def get_link(self, key: str, lifetime_s: float) -> str | None:
        del key, lifetime_s
        return None

    async def put_link(self, key: str, lifetime_s: float) -> str | None:
        del key, lifetime_s
        return None

    async def old(self, prefix: str, before: float) -> AsyncIterator[BlobHead]:
        for key, (data, at) in sorted(self._world.blobs.items()):
            if key.startswith(prefix) and at < before:
                yield BlobHead(key, len(data), self._etag(data), at)


class MemoryOutcomes:
    """The first outcome of a job holds."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def decide(self, outcome: Outcome) -> Outcome:
        await self._world.io(f"decide {outcome.state}")
        holds = self._world.outcomes.setdefault(outcome.job_id, outcome)
        await self._world.io(f"decided {outcome.state}")
        return holds

    async def get(self, job_id: str) -> Outcome | None:
        await self._world.io("outcome")
        return self._world.outcomes.get(job_id)

    async def sweep(self, before: float) -> int:
        old = [job_id for job_id, outcome in self._world.outcomes.items() if outcome.at < before]
        for job_id in old:
            del self._world.outcomes[job_id]
        return len(old)


class MemoryRows:
    """Rows in a dict, folded by the same pure functions."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, job_id: str) -> JobRow | None:
        await self._world.io("row")
        return None if job_id in self._world.hidden else self._world.rows.get(job_id)

    async def count(self, query: JobQuery) -> int:
        return len(self._matching(query))

    def _matching(self, query: JobQuery) -> "list[JobRow]":
        return [
            row
            for row in self._world.rows.values()
            if row.id not in self._world.hidden
            and query.owner in (None, row.job.owner)
            and query.model in ("", row.job.model)
            and query.state in (None, row.state)
            and (query.since is None or row.job.created_at >= query.since)
            and (query.until is None or row.job.created_at < query.until)
        ]

    async def list(self, query: JobQuery) -> JobPage:
        rows = [
            row
            for row in self._matching(query)
            if not query.cursor or (row.job.created_at, row.id) < self._place(query.cursor)
        ]
        rows.sort(key=lambda row: (row.job.created_at, row.id), reverse=True)
        more = len(rows) > query.limit
        page = rows[: query.limit]
        return JobPage(page, f"{page[-1].job.created_at!r} {page[-1].id}" if more else "")

    @staticmethod
    def _place(cursor: str) -> tuple[float, str]:
        at, _, job_id = cursor.partition(" ")
        return float(at), job_id

    async def ahead(self, job: Job) -> int:
        alike = (job.model, job.owner, job.priority)
        waiting = (row.job for row in self._world.rows.values() if row.state is State.QUEUED)
        same = (other for other in waiting if (other.model, other.owner, other.priority) == alike)
        return sum(other.created_at < job.created_at for other in same)

    async def forget(self, job_id: str) -> None:
        self._world.hidden.add(job_id)

    async def settled(self) -> Settled:
        await self._world.io("settled")
        return Settled(self._world.news_gone, self._world.news[-1][0].number if self._world.news else 0)

    async def news(self, after: Place, last: int, owners: Collection[str] | None, limit: int) -> Sequence[News]:
        await self._world.io("news")
        found = [
            News(place, line, row)
            for place, line in self._world.news
            if after < place and place.number <= last
            if (row := self._world.rows.get(place.job_id)) is not None and place.job_id not in self._world.hidden
            if owners is None or row.job.owner in owners
        ]
        return found[:limit]

    async def cursors(self) -> dict[str, str]:
        await self._world.io("cursors")
        return dict(self._world.cursors)

    async def record(self, changes: Sequence[RowChange], cursors: dict[str, str]) -> None:
        await self._world.io("record")
        for change in changes:
            if change.job is not None:
                self._create(change.job)
            if change.event is not None:
                self._fold(change.event, change.position)
        self._world.cursors.update(cursors)
        await self._world.io("recorded")

    def _create(self, job: Job) -> None:
        if job.id not in self._world.rows:
            self._world.rows[job.id] = new_row(job)
            self._tell(job.id)
            for position, event in self._world.early.pop(job.id, []):
                self._fold(event, position)

    def _fold(self, event: JobEvent, position: int) -> None:
        row = self._world.rows.get(event.job_id)
        if row is None:
            self._world.early.setdefault(event.job_id, []).append((position, event))
        else:
            self._world.rows[event.job_id] = after = advance(row, event, position)
            if after.events is not row.events:
                self._tell(event.job_id)

    def _tell(self, job_id: str) -> None:
        line = self._world.rows[job_id].events[-1]
        self._world.news.append((Place(len(self._world.news) + 1, job_id, line.position), line))

    async def park(self, log: str, position: int, message: Unreadable) -> None:
        await self._world.io("park")
        self._world.parked.append((log, position, message.raw))

    async def overdue(self, now: float, limit: int) -> Sequence[JobRow]:
        await self._world.io("overdue")
        late = (row for row in self._world.rows.values() if not row.state.terminal and row.job.expires_at < now)
        return list(itertools.islice(late, limit))

    async def sweep(self, before: float) -> int:
        old = [row.id for row in self._world.rows.values() if row.state.terminal and row.job.created_at < before]
        for job_id in old:
            del self._world.rows[job_id]
        return len(old)
