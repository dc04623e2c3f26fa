"""The contract of JobRows and JobRecorder: rows follow the logs, whatever comes late, early or twice."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.core.events import Dispatched, Ended, JobEvent, JobRow, Retried, Started, Unreadable, advance, new_row
from sfumato.core.job import Job, Outcome, Priority, Problem, State
from sfumato.core.ports import JobQuery, RowChange
from tests.contract.stations import in_loop
from tests.contract.stores import DiskStores, JobStore, MemoryStores, PostgresStores, RowStores, SqlRowStores
from tests.postgres import PostgresServer
from tests.support import NOW, job_id, make_job

JOB = make_job(1)
LOCAL = JobQuery(owner="local")


SQL = ["sqlite", pytest.param("postgres", marks=pytest.mark.server)]


@pytest.fixture(params=["memory", *SQL])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], RowStores]:
    """Makes stores of one kind, empty each time."""
    match request.param:
        case "memory":
            return MemoryStores
        case "sqlite":
            return lambda: DiskStores(tmp_path_factory.mktemp("rows"))
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda: PostgresStores(server.fresh())


@pytest.fixture
def stores(make: Callable[[], RowStores]) -> RowStores:
    return make()


@pytest.fixture(params=SQL)
def sql(request: pytest.FixtureRequest, tmp_path: Path) -> SqlRowStores:
    if request.param == "sqlite":
        return DiskStores(tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return PostgresStores(server.fresh())


def started(job: Job = JOB, attempt: int = 0, delivery: int = 0) -> Started:
    return Started(job_id=job.id, at=NOW + 5, attempt=attempt, delivery=delivery, worker="w")


def ended(job: Job = JOB, state: State = State.CANCELED) -> Ended:
    outcome = Outcome(job_id=job.id, state=state, at=NOW + 9)
    return Ended(job_id=job.id, at=NOW + 9, attempt=0, delivery=0, outcome=outcome)


def published(jobs: Iterable[Job]) -> list[RowChange]:
    return [RowChange(job=job) for job in jobs]


async def states(rows: JobStore, query: JobQuery = LOCAL) -> list[tuple[str, State]]:
    return [(row.id, row.state) for row in (await rows.list(query)).rows]


# What the recorder writes


@in_loop
async def test_published_job_shows_queued(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published([JOB]), {"jobs:restyle": "1"})

        assert await rows.get(JOB.id) == new_row(JOB)
        assert stores.stored_row(JOB.id) == new_row(JOB)
        assert await rows.cursors() == {"jobs:restyle": "1"}


@in_loop
async def test_events_move_the_row(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record([RowChange(job=JOB), RowChange(event=started(), position=4)], {})
        await rows.record([RowChange(event=ended(), position=6)], {})

        row = stores.stored_row(JOB.id)

    assert row is not None
    assert (row.state, row.position, row.worker) == (State.CANCELED, 6, "w")
    assert [line.kind for line in row.events] == ["queued", "started", "final"]


@in_loop
async def test_events_wait_for_their_job(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record([RowChange(event=started(), position=4)], {"events:restyle": "4"})
        await rows.record([RowChange(event=ended(), position=6)], {"events:restyle": "6"})
        assert await rows.get(JOB.id) is None

        await rows.record([RowChange(job=JOB)], {"jobs:restyle": "1"})

        row = await rows.get(JOB.id)
    assert row is not None
    assert [line.kind for line in row.events] == ["queued", "started", "final"]


@in_loop
async def test_replay_changes_nothing(stores: RowStores) -> None:
    story = [RowChange(job=JOB), RowChange(event=started(), position=4), RowChange(event=ended(), position=6)]
    async with stores.rows() as rows:
        await rows.record(story, {"events:restyle": "6"})
        row = await rows.get(JOB.id)

        for again in (story, story[1:], story[:2], story[2:]):
            await rows.record(again, {"events:restyle": "6"})

        assert await rows.get(JOB.id) == row


@in_loop
async def test_late_events_never_move_a_terminal_row(stores: RowStores) -> None:
    late = Retried(
        job_id=JOB.id, at=NOW, attempt=3, delivery=0, not_before=NOW, error=Problem(slug="s", title="t", detail="d")
    )
    async with stores.rows() as rows:
        await rows.record([RowChange(job=JOB), RowChange(event=ended(), position=6)], {})

        await rows.record([RowChange(event=started(), position=7), RowChange(event=late, position=8)], {})
        await rows.record([RowChange(event=ended(state=State.FAILED), position=9), RowChange(job=JOB)], {})

        assert await states(rows) == [(JOB.id, State.CANCELED)]


EVENTS: list[JobEvent] = [
    Dispatched(job_id=JOB.id, at=NOW, attempt=0, delivery=0, lane=0, worker="w"),
    started(),
    started(delivery=1),
    Retried(
        job_id=JOB.id, at=NOW, attempt=1, delivery=0, not_before=NOW, error=Problem(slug="s", title="t", detail="")
    ),
    started(attempt=1),
    ended(),
    started(),
]
STORY = [RowChange(job=JOB), *(RowChange(event=event, position=n) for n, event in enumerate(EVENTS, 1))]


def folded() -> JobRow:
    row = new_row(JOB)
    for position, event in enumerate(EVENTS, 1):
        row = advance(row, event, position)
    return row


# The fixture only makes: each example has stores of its own.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message_at=st.integers(0, len(EVENTS)),
    rewinds=st.lists(st.integers(0, len(EVENTS)), max_size=3),
    size=st.integers(1, 4),
)
def test_any_order_of_message_and_events_read_any_number_of_times_ends_in_the_same_row(
    make: Callable[[], RowStores], message_at: int, rewinds: list[int], size: int
) -> None:
    events = STORY[1:]
    read = [*events[:message_at], STORY[0], *events[message_at:]]
    replayed = [change for start in rewinds for change in read[start:]]

    async def record(stores: RowStores) -> JobRow | None:
        async with stores.rows() as rows:
            told = [*read, *replayed]
            for start in range(0, len(told), size):
                await rows.record(told[start : start + size], {})
            return await rows.get(JOB.id)

    assert asyncio.run(record(make())) == folded()


@in_loop
async def test_cursors_move_on(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record([], {"jobs:a": "1", "events:a": "5"})
        await rows.record([], {"events:a": "8"})

        assert await rows.cursors() == {"jobs:a": "1", "events:a": "8"}


@in_loop
async def test_cursors_stay_when_the_rows_could_not_be_written(sql: SqlRowStores) -> None:
    async with sql.rows() as rows:
        await rows.record([], {"jobs:restyle": "1"})

        with pytest.raises(AttributeError):
            await rows.record([RowChange(job=JOB), RowChange(event="no event", position=2)], {"jobs:restyle": "2"})  # type: ignore[arg-type]

        assert await rows.cursors() == {"jobs:restyle": "1"}
        assert await rows.get(JOB.id) is None


@in_loop
async def test_overdue_rows_are_those_that_have_not_ended(stores: RowStores) -> None:
    early, late, over = (make_job(n, expires_at=NOW + at) for n, at in ((1, 10), (2, 500), (3, 20)))
    async with stores.rows() as rows:
        await rows.record([*published([early, late, over]), RowChange(event=ended(over), position=1)], {})

        assert [row.id for row in await rows.overdue(NOW + 100, 10)] == [early.id]
        assert [row.id for row in await rows.overdue(NOW + 900, 10)] == [early.id, late.id]
        assert [row.id for row in await rows.overdue(NOW + 900, 1)] == [early.id]


@in_loop
async def test_sweep_removes_old_rows_that_have_ended(stores: RowStores) -> None:
    old, waiting, young = (make_job(n, created_at=NOW + at) for n, at in ((1, 0), (2, 0), (3, 100)))
    finals = [RowChange(event=ended(job), position=n) for n, job in enumerate((old, young), 1)]
    async with stores.rows() as rows:
        await rows.record([*published([old, waiting, young]), *finals], {})

        assert await rows.sweep(NOW + 50) == 1

        assert {job for job, _ in await states(rows)} == {waiting.id, young.id}


@in_loop
async def test_events_that_no_job_came_for_are_swept(sql: SqlRowStores) -> None:
    async with sql.rows() as rows:
        await rows.record([RowChange(event=started(), position=4)], {})
        await rows.sweep(NOW + 50)

        await rows.record([RowChange(job=JOB)], {})

        assert await states(rows) == [(JOB.id, State.QUEUED)]


@in_loop
async def test_message_parked_twice_is_kept_once(sql: SqlRowStores) -> None:
    strange = Unreadable(raw='{"version": 9}', why="version 9 is unknown here")
    async with sql.rows() as rows:
        for _ in range(2):
            await rows.park("events:restyle", 7, strange)

    assert sql.parked() == [("events:restyle", strange.raw, strange.why)]


@in_loop
async def test_message_that_no_text_column_takes_is_parked_all_the_same(sql: SqlRowStores) -> None:
    async with sql.rows() as rows:
        await rows.park("events:restyle", 7, Unreadable(raw="\0 is no JSON", why="\0 was found"))

    assert [log for log, _, _ in sql.parked()] == ["events:restyle"]


# What a gateway reads


@in_loop
async def test_list_is_newest_first_in_pages(stores: RowStores) -> None:
    jobs = [make_job(n, created_at=NOW + n // 3) for n in range(10)]
    async with stores.rows() as rows:
        await rows.record(published(jobs), {})

        first = await rows.list(JobQuery(owner="local", limit=4))
        second = await rows.list(JobQuery(owner="local", limit=4, cursor=first.next))
        third = await rows.list(JobQuery(owner="local", limit=4, cursor=second.next))

    assert [row.id for page in (first, second, third) for row in page.rows] == [job_id(n) for n in reversed(range(10))]
    assert third.next == ""


@in_loop
async def test_pages_stay_where_they_are_while_jobs_come(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published(make_job(n) for n in range(6)), {})
        first = await rows.list(JobQuery(owner="local", limit=3))

        await rows.record(published(make_job(n) for n in range(6, 20)), {})

        second = await rows.list(JobQuery(owner="local", limit=3, cursor=first.next))
    assert [row.id for row in second.rows] == [job_id(2), job_id(1), job_id(0)]


@in_loop
async def test_last_page_that_is_full_has_no_next(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published(make_job(n) for n in range(3)), {})

        assert (await rows.list(JobQuery(owner="local", limit=3))).next == ""


@in_loop
async def test_list_holds_only_what_was_asked_for(stores: RowStores) -> None:
    mine, others, other_model, over = (
        make_job(1),
        make_job(2, owner="someone"),
        make_job(3, model="sketch"),
        make_job(4),
    )
    async with stores.rows() as rows:
        await rows.record([*published([mine, others, other_model, over]), RowChange(event=ended(over), position=1)], {})

        assert {job for job, _ in await states(rows)} == {mine.id, other_model.id, over.id}
        assert {job for job, _ in await states(rows, JobQuery(owner=None))} == {
            mine.id,
            others.id,
            other_model.id,
            over.id,
        }
        assert await states(rows, JobQuery(owner="local", model="sketch")) == [(other_model.id, State.QUEUED)]
        assert await states(rows, JobQuery(owner="local", state=State.CANCELED)) == [(over.id, State.CANCELED)]


@in_loop
async def test_list_goes_from_since_to_before_until(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published(make_job(n) for n in range(6)), {})

        between = JobQuery(owner="local", since=NOW + 2, until=NOW + 4)
        assert [job for job, _ in await states(rows, between)] == [job_id(3), job_id(2)]
        assert len(await states(rows, JobQuery(owner="local", since=NOW + 4))) == 2
        assert len(await states(rows, JobQuery(owner="local", until=NOW + 4))) == 4


@in_loop
async def test_count_is_that_of_all_pages(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published([make_job(n) for n in range(6)] + [make_job(7, owner="someone")]), {})
        await rows.forget(job_id(0))

        assert await rows.count(JobQuery(owner="local", limit=2)) == 5
        assert await rows.count(JobQuery(owner=None, since=NOW + 4)) == 3
        assert await rows.count(JobQuery(owner="local", state=State.FAILED)) == 0


@in_loop
async def test_pages_neither_skip_nor_repeat_what_was_there_while_jobs_come(stores: RowStores) -> None:
    # Many of one moment, as a burst makes them, so that only their ids tell them apart.
    there = [make_job(n, created_at=NOW + n // 5) for n in range(23)]
    listed: list[str] = []
    cursor, come = "", 100
    async with stores.rows() as rows:
        await rows.record(published(there), {})
        while True:
            page = await rows.list(JobQuery(owner="local", limit=4, cursor=cursor))
            listed += [row.id for row in page.rows]
            if not page.next:
                break
            cursor, come = page.next, come + 3
            await rows.record(published(make_job(n, created_at=NOW + 60) for n in range(come, come + 3)), {})

    assert listed == [job.id for job in reversed(there)]


@pytest.mark.parametrize("cursor", ["nonsense", "bm9uZQ", "bmFuIGE", "%%%", "ü", "MQ==", "MSAA"])
@in_loop
async def test_cursor_that_is_not_ours_is_refused(sql: SqlRowStores, cursor: str) -> None:
    async with sql.rows() as rows:
        with pytest.raises(InvalidRequest, match="cursor"):
            await rows.list(JobQuery(owner="local", cursor=cursor))


@in_loop
async def test_forgotten_row_is_hidden_for_good(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(published([JOB]), {})

        for _ in range(2):
            await rows.forget(JOB.id)
        await rows.record([RowChange(job=JOB), RowChange(event=ended(), position=3)], {})

        assert await rows.get(JOB.id) is None
        assert await states(rows) == []


@in_loop
async def test_job_forgotten_before_its_row_came_stays_hidden(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.forget(JOB.id)

        await rows.record(published([JOB]), {})

        assert await rows.get(JOB.id) is None


@in_loop
async def test_jobs_ahead_are_older_ones_of_the_same_owner_and_priority(stores: RowStores) -> None:
    low, normal, high = (make_job(n, priority=priority) for n, priority in enumerate(reversed(Priority), 1))
    newer, newest, elsewhere = make_job(4), make_job(5), make_job(6, model="sketch", created_at=NOW)
    others, running = make_job(7, owner="bob", created_at=NOW), make_job(8, created_at=NOW)
    moved = RowChange(event=started(running), position=1)
    async with stores.rows() as rows:
        await rows.record([*published([low, normal, high, newer, newest, elsewhere, others, running]), moved], {})

        assert [await rows.ahead(job) for job in (high, low, normal, newer, newest, others)] == [0, 0, 0, 1, 2, 0]
