"""What only the SQLite broker promises: clear errors, small lanes, trimming, wake-ups, and shared commits."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.broker.sqlite import SqliteBroker
from sfumato.core.errors import Deposed, TransientError, UnusableStore
from sfumato.core.events import Alive
from sfumato.core.job import Work
from sfumato.core.ports import WorkReceiver
from sfumato.sqlite.file import SqliteFile
from sfumato.sqlite.wakeup import POLL_S, Bell, Ringer
from tests.contract.stations import SqliteStation, brokers, in_loop
from tests.support import NOW, eventually, make_job

TABLE = "CREATE TABLE IF NOT EXISTS notes (body TEXT)"


def _note(body: str) -> Callable[[sqlite3.Connection], int]:
    return lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (body,)).rowcount


def _notes(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    try:
        return [body for (body,) in connection.execute("SELECT body FROM notes ORDER BY rowid")]
    finally:
        connection.close()


# Trouble


def test_folder_that_is_a_file_is_named_at_start(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")

    with pytest.raises(UnusableStore, match="data"):
        SqliteBroker(tmp_path / "data", takeover_s=1)


@pytest.mark.parametrize("name", ["queue.sqlite", "events.sqlite"])
def test_damaged_file_is_named_at_start_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no database at all, and long enough to be looked at" * 100)

    with pytest.raises(UnusableStore, match=f"{name}.*move it away"):
        SqliteBroker(tmp_path, takeover_s=1)


@pytest.mark.parametrize(
    ("trouble", "advice"),
    [("PRAGMA max_page_count = 2", "free some space"), ("PRAGMA query_only = ON", "make it writable")],
)
def test_write_that_was_not_stored_is_not_acknowledged(tmp_path: Path, trouble: str, advice: str) -> None:
    path = tmp_path / "notes.sqlite"

    async def write_into_trouble() -> None:
        file = SqliteFile(path, TABLE, tmp_path / "wake")
        await file.write(_note("before"))
        await file.write(lambda connection: connection.execute(trouble).fetchall())

        with pytest.raises(TransientError, match=f"notes.sqlite.*{advice}"):
            await file.write(_note("x" * 20_000))

        file.close()

    asyncio.run(write_into_trouble())
    assert _notes(path) == ["before"]


@in_loop
async def test_writes_go_on_after_the_trouble_has_passed(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    file = SqliteFile(path, TABLE, tmp_path / "wake")
    await file.write(lambda connection: connection.execute("PRAGMA max_page_count = 2").fetchall())
    with pytest.raises(TransientError):
        await file.write(_note("x" * 20_000))

    await file.write(lambda connection: connection.execute("PRAGMA max_page_count = 10000").fetchall())
    await file.write(_note("after"))

    file.close()
    assert _notes(path) == ["after"]


@in_loop
async def test_write_with_a_fault_of_its_own_does_not_stop_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    file = SqliteFile(path, TABLE, tmp_path / "wake")

    def faulty(connection: sqlite3.Connection) -> None:
        _note("half")(connection)
        raise RuntimeError("a fault")

    with pytest.raises(TransientError, match="a fault"):
        await file.write(faulty)
    await file.write(_note("after"))

    file.close()
    assert _notes(path) == ["after"]


@in_loop
async def test_closed_broker_says_so(tmp_path: Path) -> None:
    broker = SqliteBroker(tmp_path, takeover_s=1)
    await broker.close()

    with pytest.raises(TransientError, match="closed"):
        await broker.jobs("m").publish(make_job())


# Group commit


@in_loop
async def test_writes_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "notes.sqlite", TABLE, tmp_path / "wake")
    statements: list[str] = []
    await file.write(lambda connection: connection.set_trace_callback(statements.append))

    await asyncio.gather(*(file.write(_note(str(number))) for number in range(200)))

    file.close()
    assert sum(statement.startswith("INSERT") for statement in statements) == 200
    assert statements.count("COMMIT") < 20


@in_loop
async def test_what_waits_at_close_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    file = SqliteFile(path, TABLE, tmp_path / "wake")
    writes = [asyncio.create_task(file.write(_note(str(number)))) for number in range(20)]
    await asyncio.sleep(0)

    await asyncio.to_thread(file.close)

    await asyncio.gather(*writes)
    assert len(_notes(path)) == 20


# Wake-ups


@in_loop
async def test_waiting_end_is_woken_long_before_it_would_poll(tmp_path: Path) -> None:
    async with brokers(SqliteStation(tmp_path), 2) as (one, two):
        log, cursor = two.events("m"), ""
        took = []
        for number in range(10):
            waiting = asyncio.create_task(log.follow(cursor, limit=10, wait_s=10))
            await asyncio.sleep(0.02)  # the follower has looked and waits; a moment earlier it would find it looking
            begin = time.perf_counter()
            await one.events("m").append([Alive(at=NOW + number, worker="w", slots=1, lanes=())])
            cursor = (await waiting).cursor
            took.append(time.perf_counter() - begin)

    assert sorted(took)[5] < POLL_S / 5


@in_loop
async def test_followers_poll_where_no_datagram_comes(tmp_path: Path) -> None:
    async with brokers(SqliteStation(tmp_path), 2) as (one, two):
        waiting = asyncio.create_task(two.events("m").follow("", limit=10, wait_s=10))
        ears = tmp_path / "wake" / "events.m"

        async def listens() -> bool:
            return ears.exists() and bool(os.listdir(ears))

        await eventually(listens)
        for port in ears.iterdir():
            port.unlink()

        await one.events("m").append([Alive(at=NOW, worker="w", slots=1, lanes=())])

        assert len((await asyncio.wait_for(waiting, 5)).items) == 1


@in_loop
async def test_dead_listener_is_struck_off_and_the_living_one_is_woken(tmp_path: Path) -> None:
    dead, living = Bell(tmp_path, "topic"), Bell(tmp_path, "topic")
    dead.arm()
    (place,) = (tmp_path / "topic").iterdir()
    dead.close()
    place.touch()
    rung = living.arm()
    ringer = Ringer(tmp_path)

    ringer.ring("topic")

    await asyncio.wait_for(rung.wait(), 5)
    assert not place.exists()
    assert len(list((tmp_path / "topic").iterdir())) == 1
    ringer.close()
    living.close()


@in_loop
async def test_ring_between_arming_and_waiting_is_not_missed(tmp_path: Path) -> None:
    bell, ringer = Bell(tmp_path, "topic"), Ringer(tmp_path)
    rung = bell.arm()
    ringer.ring("topic")

    await asyncio.wait_for(rung.wait(), 5)

    assert not bell.arm().is_set()
    ringer.close()
    bell.close()


# Lanes, leases and trimming


async def _lane(receiver: WorkReceiver) -> int:
    await receiver.receive(limit=0, wait_s=0)
    (lane,) = receiver.lanes
    return lane


@in_loop
async def test_lane_numbers_are_used_again(tmp_path: Path) -> None:
    async with brokers(SqliteStation(tmp_path), 1) as (broker,):
        receivers = [broker.work("m") for _ in range(3)]
        assert [await _lane(receiver) for receiver in receivers] == [0, 1, 2]

        await receivers[1].close()

        assert await _lane(broker.work("m")) == 1


@in_loop
async def test_crashes_beside_a_living_receiver_use_up_no_lanes(tmp_path: Path) -> None:
    async with brokers(SqliteStation(tmp_path, takeover_s=0.5), 1) as (broker,):
        survivor = broker.work("m")
        assert await _lane(survivor) == 0
        for crash in range(1, 4):
            crashing = broker.work("m")
            assert await _lane(crashing) == 1
            await broker.work("m").hand_out([Work(job=make_job(crash), lane=1, attempt=0, delivery=0)])

            (left,) = await eventually(lambda: survivor.receive(limit=5, wait_s=0.1))

            assert left.left_over
            await survivor.acknowledge(left.receipt)


@in_loop
async def test_lease_written_before_the_clock_was_set_back_does_not_hold_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokers(SqliteStation(tmp_path), 2) as (one, two):
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        assert await one.jobs("m").lead(wait_s=0) is not None
        monkeypatch.setattr(time, "time", lambda: now)

        assert await two.jobs("m").lead(wait_s=0) is not None


@in_loop
async def test_reader_deposed_between_two_renewals_reads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokers(SqliteStation(tmp_path), 2) as (one, two):
        deposed = one.jobs("m")
        await deposed.lead(wait_s=0)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        assert await two.jobs("m").lead(wait_s=0) is not None

        with pytest.raises(Deposed):
            await deposed.read(limit=1, wait_s=0)


@in_loop
async def test_acknowledging_in_a_lane_that_another_took_over_has_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = SqliteStation(tmp_path)
    async with brokers(station, 2) as (one, two):
        lost, holder = one.work("m"), two.work("m")
        await lost.hand_out([Work(job=make_job(1), lane=await _lane(lost), attempt=0, delivery=0)])
        (received,) = await lost.receive(limit=1, wait_s=0)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        assert await _lane(holder) == 0

        await lost.acknowledge(received.receipt)

        assert len(station.stored("work", "m")) == 1
        (left,) = await holder.receive(limit=1, wait_s=0)
        assert left.left_over


@in_loop
async def test_trim_removes_old_events_and_old_decided_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    station = SqliteStation(tmp_path)
    async with brokers(station, 1) as (broker,):
        jobs, events = broker.jobs("m"), broker.events("m")
        for number in (1, 2, 3):
            monkeypatch.setattr(time, "time", lambda number=number: NOW + number)
            await jobs.publish(make_job(number))
            await events.append([Alive(at=NOW + number, worker="w", slots=1, lanes=())])
        await jobs.lead(wait_s=0)
        await jobs.commit((await jobs.read(limit=10, wait_s=0))[0].position, "")

        removed = await broker.trim(before=NOW + 3)

        assert removed == 3
        assert station.stored("jobs", "m") == [make_job(number).model_dump_json() for number in (2, 3)]
        assert len(station.stored("events", "m")) == 1


@in_loop
async def test_positions_go_on_growing_after_everything_was_trimmed(tmp_path: Path) -> None:
    async with brokers(SqliteStation(tmp_path), 1) as (broker,):
        events = broker.events("m")
        alive = Alive(at=NOW, worker="w", slots=1, lanes=())
        await events.append([alive, alive])
        cursor = (await events.follow("", limit=10, wait_s=0)).cursor
        assert await broker.trim(before=time.time() + 1) == 2

        await events.append([alive])

        assert [logged.position for logged in (await events.follow(cursor, limit=10, wait_s=0)).items] == [3]


def test_a_stray_file_among_the_wake_ups_stops_nothing(tmp_path: Path) -> None:
    async def published() -> int:
        broker = SqliteBroker(tmp_path, takeover_s=1)
        stray = tmp_path / "wake" / "jobs.restyle" / ".DS_Store"
        stray.parent.mkdir(parents=True)
        stray.touch()
        (stray.parent / "1").mkdir()
        jobs = broker.jobs("restyle")
        for number in range(3):
            await jobs.publish(make_job(number))
        found = await jobs.follow("", 10, wait_s=0)
        await broker.close()
        return len(found.items)

    assert asyncio.run(published()) == 3
