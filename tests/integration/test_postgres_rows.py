"""Job rows in a PostgreSQL that dies, is away, is frozen, shuts us out, or serves two recorders at once."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from sfumato.cluster.postgres import postgres as postgres_recipe
from sfumato.cluster.postgres import postgres_url
from sfumato.cluster.server import Server, free_ports, running
from sfumato.core.errors import TransientError, UnusableStore
from sfumato.core.events import Dispatched, Ended, JobEvent, JobRow, Started, advance, new_row
from sfumato.core.job import Job, Outcome, State
from sfumato.core.ports import JobQuery, RowChange
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.schema import upgrade
from tests.contract.stations import in_loop
from tests.contract.stores import JobStore, PostgresStores, racing_processes
from tests.postgres import PostgresServer, say
from tests.support import NOW, eventually, job_id, make_job

pytestmark = pytest.mark.server

AT_ONCE_S = 2.0
"""What a client's request may wait for the rows."""


def events_of(job: Job) -> list[JobEvent]:
    """A life with a death in it."""
    told = {"job_id": job.id, "at": NOW, "attempt": 0}
    outcome = Outcome(job_id=job.id, state=State.SUCCEEDED, at=NOW)
    return [
        Dispatched(**told, delivery=0, lane=0, worker="a"),
        Started(**told, delivery=0, worker="a"),
        Started(**told, delivery=1, worker="b"),
        Ended(**told, delivery=1, outcome=outcome),
    ]


def story(count: int) -> list[RowChange]:
    """`count` jobs' messages and events as both logs tell them, a few jobs at a time; positions are 1, 2, …"""
    log: list[RowChange] = []
    for first in range(0, count, 10):
        jobs = [make_job(number) for number in range(first, min(first + 10, count))]
        log += [RowChange(job=job) for job in jobs]
        for told in zip(*(events_of(job) for job in jobs), strict=True):
            log += [RowChange(event=each, position=len(log) + n) for n, each in enumerate(told, 1)]
    return log


def folded(log: list[RowChange]) -> dict[str, JobRow]:
    """The rows that a story must end in."""
    rows = {change.job.id: new_row(change.job) for change in log if change.job is not None}
    for change in log:
        if change.event is not None:
            rows[change.event.job_id] = advance(rows[change.event.job_id], change.event, change.position)
    return rows


async def all_rows(rows: SqlJobs) -> dict[str, JobRow]:
    page = await rows.list(JobQuery(owner="local", limit=10_000))
    return {row.id: row for row in page.rows}


# Two recorders


def record_shuffled(stores: PostgresStores, seed: int, count: int) -> None:
    """Fold a story twice in batches of any size, each in any order; half of the jobs come before their events."""
    dice = random.Random(seed)
    log = story(count)
    late = {job_id(number) for number in range(count // 2)}
    prompt = [change for change in log if change.job and change.job.id not in late]
    events = [change for change in log if change.event]
    told = [*prompt, *events, *(change for change in log if change.job and change.job.id in late)]

    async def run() -> None:
        async with stores.rows() as rows:
            await rows.record([], {f"ready {seed}": ""})
            await eventually(lambda: both_ready(rows))
            left = [*told, *told]
            while left:
                size = dice.randint(1, 150)
                batch, left = left[:size], left[size:]
                dice.shuffle(batch)
                await rows.record(batch, {name: str(len(left)) for name in dice.sample(["one", "other", "third"], 3)})

    asyncio.run(run())


async def both_ready(rows: JobStore) -> bool:
    return len(await rows.cursors()) >= 2


def test_two_recorders_at_once_do_each_other_no_harm(postgres: PostgresServer) -> None:
    stores, count = PostgresStores(postgres.fresh()), 600

    with racing_processes(2) as processes:
        for done in [processes.submit(record_shuffled, stores, seed, count) for seed in (1, 2)]:
            done.result(timeout=60)

    async def found() -> dict[str, JobRow]:
        async with stores.rows() as rows:
            return await all_rows(rows)

    assert asyncio.run(found()) == folded(story(count))
    assert say(stores.url, "SELECT count(*) FROM pending") == "0"
    assert say(stores.url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == "0"


@in_loop
async def test_the_same_jobs_told_in_opposite_orders_lock_nobody_out(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    async with Database.connect(url) as one, Database.connect(url) as other:
        for first in range(0, 2_000, 200):
            jobs = [RowChange(job=make_job(number)) for number in range(first, first + 200)]
            forward, backward = {"a": "1", "b": "1"}, {"b": "1", "a": "1"}
            await asyncio.gather(SqlJobs(one).record(jobs, forward), SqlJobs(other).record(jobs[::-1], backward))

    assert say(url, "SELECT count(*) FROM jobs") == "2000"


async def waiting_for_locks(url: str, count: int) -> bool:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return int(await asyncio.to_thread(say, url, asked)) == count


@in_loop
async def test_event_told_while_its_job_is_being_created_is_not_left_waiting(postgres: PostgresServer) -> None:
    url, job = postgres.fresh(), make_job(1)
    told = Started(job_id=job.id, at=NOW, attempt=0, delivery=0, worker="w")
    async with Database.connect(url) as holding, Database.connect(url) as one, Database.connect(url) as other:
        async with holding.write(within_s=20) as connection:
            # Who creates the row has looked for waiting events already and now waits to store its cursor.
            await connection.exec_driver_sql("LOCK TABLE cursors IN EXCLUSIVE MODE")
            creating = asyncio.create_task(SqlJobs(one).record([RowChange(job=job)], {"jobs:m": "1"}))
            await eventually(lambda: waiting_for_locks(url, 1))
            telling = asyncio.create_task(SqlJobs(other).record([RowChange(event=told, position=1)], {}))
            await eventually(lambda: waiting_for_locks(url, 2))
        await asyncio.gather(creating, telling)

        row = await SqlJobs(other).get(job.id)
    assert row is not None
    assert row.state is State.RUNNING


@in_loop
async def test_a_sweep_leaves_what_a_recorder_has_in_hand(postgres: PostgresServer) -> None:
    url, jobs = postgres.fresh(), [make_job(1), make_job(2)]
    told = [RowChange(event=each, position=n) for job in jobs for n, each in enumerate(events_of(job), 1)]
    async with Database.connect(url) as holding, Database.connect(url) as sweeping:
        rows = SqlJobs(sweeping)
        await rows.record([*(RowChange(job=job) for job in jobs), *told], {})
        async with holding.write(within_s=20) as connection:
            await connection.exec_driver_sql("SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE")

            assert await rows.sweep(NOW + 50) == 1

        assert set(await all_rows(rows)) == {jobs[0].id}


@in_loop
async def test_a_batch_is_a_handful_of_statements(postgres: PostgresServer) -> None:
    log = story(100)
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    async with Database.connect(postgres.fresh()) as database:
        event.listen(Engine, "before_cursor_execute", note)
        try:
            await SqlJobs(database).record(log, {"events:m": "1", "jobs:m": "1"})
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    assert len(log) == 500
    assert len(sent) <= 9, sent


# Dies, is away, is frozen


@pytest.fixture
def own(server_folder: Path) -> Iterator[tuple[Server, str]]:
    """A server that the test may kill, and the address of a database with our tables in it."""
    folder, (port,) = server_folder / "postgres", free_ports(1)
    with running(postgres_recipe(folder, port), server_folder / "postgres.log") as server:
        url = postgres_url(folder, port)
        asyncio.run(upgrade(url))
        yield server, url


async def record_through_trouble(rows: SqlJobs, log: list[RowChange], size: int) -> int:
    """Fold a story as the recorder does: from the stored cursor, and after trouble from there again; how often."""
    troubles = 0
    while True:
        try:
            place = int((await rows.cursors()).get("log", "0"))
            if place >= len(log):
                return troubles
            await rows.record(log[place : place + size], {"log": str(place + size)})
        except TransientError:
            troubles += 1
            await asyncio.sleep(0.01)


@in_loop
async def test_killed_in_the_middle_of_records_nothing_is_lost_or_doubled(own: tuple[Server, str]) -> None:
    server, url = own
    log = story(600)
    async with Database.connect(url) as database:
        rows = SqlJobs(database)
        recording = asyncio.create_task(record_through_trouble(rows, log, size=13))
        for tenth in (1, 4, 7):
            await eventually(lambda least=tenth: folded_up_to(url, len(log) * least // 10))  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        troubles = await asyncio.wait_for(recording, 60)

        assert troubles >= 3
        assert await all_rows(rows) == folded(log)
        assert int((await rows.cursors())["log"]) >= len(log)


async def folded_up_to(url: str, place: int) -> bool:
    return int(await asyncio.to_thread(say, url, "SELECT coalesce(max(cursor::int), 0) FROM cursors")) >= place


Asked = Callable[[SqlJobs], Awaitable[object]]
GATEWAY_ASKS: dict[str, Asked] = {
    "get": lambda rows: rows.get(job_id(1)),
    "list": lambda rows: rows.list(JobQuery(owner="local")),
    "ahead": lambda rows: rows.ahead(make_job(1)),
    "forget": lambda rows: rows.forget(job_id(1)),
}


async def refuses_at_once(asked: Asked, rows: SqlJobs) -> None:
    began = time.monotonic()
    with pytest.raises(TransientError):
        await asked(rows)
    assert time.monotonic() - began < AT_ONCE_S + 0.3


@in_loop
async def test_while_the_server_is_away_a_gateway_is_answered_at_once(own: tuple[Server, str]) -> None:
    server, url = own
    async with Database.connect(url) as database:
        rows = SqlJobs(database)
        await rows.record([RowChange(job=make_job(1))], {})
        server.kill()

        for asked in GATEWAY_ASKS.values():
            await refuses_at_once(asked, rows)

        await asyncio.to_thread(server.start)
        assert await rows.get(job_id(1)) is not None


@in_loop
async def test_while_the_server_is_frozen_a_gateway_is_answered_at_once(own: tuple[Server, str]) -> None:
    server, url = own
    async with Database.connect(url) as database:
        rows = SqlJobs(database)
        await asyncio.gather(*(rows.get(job_id(n)) for n in range(4)))
        with frozen(server):
            await asyncio.gather(*(refuses_at_once(asked, rows) for asked in GATEWAY_ASKS.values()))
            # With every connection of the pool in use by those who wait, the others are answered too.
            await asyncio.gather(*(refuses_at_once(GATEWAY_ASKS["get"], rows) for _ in range(15)))

        await eventually(lambda: answers(rows))


async def answers(rows: SqlJobs) -> bool:
    with contextlib.suppress(TransientError):
        await rows.get(job_id(1))
        return True
    return False


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server and all its processes stopped: connections stay open, nobody answers."""
    workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    pids = [server.pid, *(int(worker) for worker in workers)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@in_loop
async def test_role_that_starts_while_the_server_is_away_goes_on_and_finds_it_later(
    own: tuple[Server, str], caplog: pytest.LogCaptureFixture
) -> None:
    server, url = own
    server.kill()
    async with Database.connect(url) as database:
        rows = SqlJobs(database)
        assert "Going on without it" in caplog.text
        await refuses_at_once(GATEWAY_ASKS["get"], rows)

        await asyncio.to_thread(server.start)
        assert await rows.get(job_id(1)) is None


# Shut out


@in_loop
async def test_connection_that_the_server_ends_is_replaced(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    async with Database.connect(url) as database:
        rows = SqlJobs(database)
        await rows.get(job_id(1))

        say(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sfumato'")

        assert await rows.get(job_id(1)) is None


@in_loop
async def test_lock_held_for_too_long_may_pass(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    async with (
        Database.connect(url) as holding,
        Database.connect(url) as asking,
        holding.write(within_s=20) as connection,
    ):
        await connection.exec_driver_sql("LOCK TABLE forgotten IN ACCESS EXCLUSIVE MODE")

        await refuses_at_once(GATEWAY_ASKS["get"], SqlJobs(asking))
        await refuses_at_once(GATEWAY_ASKS["forget"], SqlJobs(asking))


@pytest.mark.parametrize("state", ["40001", "40P01", "53300", "55P03", "57014", "57P01"])
@in_loop
async def test_what_may_pass_is_transient(postgres: PostgresServer, state: str) -> None:
    async with Database.connect(postgres.fresh()) as database:
        with pytest.raises(TransientError):
            async with database.write() as connection:
                await connection.exec_driver_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("postgresql://", "mysql://"), "is no address of a PostgreSQL database, such as postgresql://user"),
        (("postgresql://sfumato:", "postgresql://sfumato:x"), "password authentication failed(?s:.)*Mend user and"),
        (("/test_", "/missing_"), "does not exist(?s:.)*createdb"),
        (("@127.0.0.1:", "@127.0.0.1:port"), "can't be read; it looks like"),
    ],
)
@in_loop
async def test_wrong_address_is_refused_in_words_without_the_password(
    postgres: PostgresServer, change: tuple[str, str], told: str
) -> None:
    right = postgres.fresh()
    password = right.split(":")[2].split("@")[0]

    with pytest.raises(UnusableStore, match=told) as refused:
        async with Database.connect(right.replace(*change)):
            pass

    assert password not in str(refused.value)


@in_loop
async def test_password_is_never_logged(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    url = postgres.fresh()
    password = url.split(":")[2].split("@")[0]
    with caplog.at_level(logging.DEBUG):
        async with Database.connect(url) as database:
            await SqlJobs(database).get(job_id(1))
        async with Database.connect(url.replace(f":{postgres.port}/", f":{free_ports(1)[0]}/")):
            pass

    assert "Going on without it" in caplog.text
    assert password not in caplog.text
