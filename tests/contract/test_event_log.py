"""Contract: a model's event log keeps what it was told, in order per job, for any number of followers."""

import asyncio
import json
import time
from collections.abc import Sequence

from sfumato.core.events import Alive, Ended, Event, Returned, Started, Unreadable
from sfumato.core.job import Outcome, State
from sfumato.core.ports import EventLog, Logged
from tests.contract.children import MODEL, append_jobs_events, child
from tests.contract.stations import Station, brokers, in_loop
from tests.support import NOW, job_id


def _started(number: int, delivery: int = 0) -> Started:
    return Started(job_id=job_id(number), at=NOW, attempt=0, delivery=delivery, worker="w")


def _ended(number: int) -> Ended:
    outcome = Outcome(job_id=job_id(number), state=State.CANCELED, at=NOW, attempt=0)
    return Ended(job_id=job_id(number), at=NOW, attempt=0, delivery=0, outcome=outcome)


ALIVE = Alive(at=NOW, worker="w", slots=2, lanes=(0, 3))


async def _followed(log: EventLog, count: int, cursor: str = "") -> list[Logged[Event | Unreadable]]:
    """The next `count` or more events behind `cursor`."""
    found: list[Logged[Event | Unreadable]] = []
    while len(found) < count:
        batch = await log.follow(cursor, limit=7, wait_s=5)
        assert batch.items, f"only {len(found)} of {count} events are there"
        assert len(batch.items) <= 7
        found += batch.items
        cursor = batch.cursor
    return found


def _of_job(events: Sequence[Logged[Event | Unreadable]], number: int) -> list[Event | Unreadable]:
    return [logged.value for logged in events if getattr(logged.value, "job_id", "") == job_id(number)]


@in_loop
async def test_appended_events_are_stored_when_append_returns(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.events(MODEL).append([_started(1), _ended(1)])

        assert station.stored("events", MODEL) == [_started(1).model_dump_json(), _ended(1).model_dump_json()]


@in_loop
async def test_appending_nothing_changes_nothing(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.events(MODEL)

        await log.append([])

        assert not (await log.follow("", limit=10, wait_s=0)).items


@in_loop
async def test_events_come_back_as_they_were_told(station: Station) -> None:
    told: list[Event] = [_started(1), ALIVE, _ended(1)]
    async with brokers(station, 2) as (one, two):
        await one.events(MODEL).append(told)

        found = await _followed(two.events(MODEL), 3)

        assert sorted(str(logged.value) for logged in found) == sorted(map(str, told))


@in_loop
async def test_events_of_a_job_keep_their_order_and_their_positions_grow(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        for delivery in range(10):
            await one.events(MODEL).append([_started(1, delivery), _started(2, delivery)])
            await two.events(MODEL).append([_started(3, delivery)])

        found = await _followed(one.events(MODEL), 30)

        for number in (1, 2, 3):
            assert _of_job(found, number) == [_started(number, delivery) for delivery in range(10)]
            positions = [logged.position for logged in found if logged.value in _of_job(found, number)]
            assert positions == sorted(set(positions))
            assert positions[0] >= 1


@in_loop
async def test_positions_are_the_same_for_every_follower(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        await one.events(MODEL).append([_started(1), _started(2), _ended(1)])

        first, second = await _followed(one.events(MODEL), 3), await _followed(two.events(MODEL), 3)

        assert {(logged.position, str(logged.value)) for logged in first} == {
            (logged.position, str(logged.value)) for logged in second
        }


@in_loop
async def test_following_on_from_a_cursor_neither_repeats_nor_skips(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        log = one.events(MODEL)
        await log.append([_started(1), _started(1, 1), _started(1, 2)])
        batch = await log.follow("", limit=2, wait_s=5)
        assert len(batch.items) in (1, 2)

        rest = await _followed(two.events(MODEL), 3 - len(batch.items), batch.cursor)

        assert _of_job([*batch.items, *rest], 1) == [_started(1), _started(1, 1), _started(1, 2)]


@in_loop
async def test_a_cursor_that_found_nothing_still_follows_on(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.events(MODEL)
        empty = await log.follow("", limit=10, wait_s=0)
        await log.append([_started(1)])

        assert [logged.value for logged in await _followed(log, 1, empty.cursor)] == [_started(1)]


@in_loop
async def test_following_from_the_end_shows_only_what_comes_later(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        await one.events(MODEL).append([_started(1), _started(2)])
        end = await two.events(MODEL).end()
        assert not (await two.events(MODEL).follow(end, limit=10, wait_s=0)).items

        await one.events(MODEL).append([_ended(1)])

        assert [logged.value for logged in await _followed(two.events(MODEL), 1, end)] == [_ended(1)]


@in_loop
async def test_logs_of_two_models_do_not_mix(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.events("one").append([_started(1)])
        await broker.events("two").append([_started(2)])

        assert [logged.value for logged in await _followed(broker.events("one"), 1)] == [_started(1)]
        assert [logged.value for logged in await _followed(broker.events("two"), 1)] == [_started(2)]


@in_loop
async def test_waiting_followers_all_get_an_event_when_it_comes(station: Station) -> None:
    async with brokers(station, 3) as (one, two, three):
        ends = [await end.events(MODEL).end() for end in (one, two)]
        waiting = [
            asyncio.create_task(end.events(MODEL).follow(cursor, limit=10, wait_s=30))
            for end, cursor in zip((one, two), ends, strict=True)
        ]
        begin = time.monotonic()

        await three.events(MODEL).append([_started(1)])

        for batch in await asyncio.gather(*waiting):
            assert [logged.value for logged in batch.items] == [_started(1)]
        assert time.monotonic() - begin < 5


@in_loop
async def test_follower_waits_no_longer_than_it_asked(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.events(MODEL)
        end = await log.end()
        begin = time.monotonic()

        assert not (await log.follow(end, limit=10, wait_s=0.3)).items

        assert 0.25 < time.monotonic() - begin < 0.3 + station.slack_s


@in_loop
async def test_event_of_an_unknown_version_comes_as_unreadable_and_holds_up_nothing(station: Station) -> None:
    strange = json.dumps(_started(1).model_dump(mode="json") | {"version": 99})
    async with brokers(station, 1) as (broker,):
        log = broker.events(MODEL)
        await log.append([_started(1)])
        station.plant("events", MODEL, strange)
        station.plant("events", MODEL, "no JSON at all")
        await log.append([_ended(1)])

        values = [logged.value for logged in await _followed(log, 4)]

        assert {value.raw for value in values if isinstance(value, Unreadable)} == {strange, "no JSON at all"}
        assert _of_job(await _followed(log, 4), 1) == [_started(1), _ended(1)]


@in_loop
async def test_event_of_an_unknown_kind_comes_as_unreadable(station: Station) -> None:
    strange = json.dumps(_started(1).model_dump(mode="json") | {"kind": "teleported"})
    async with brokers(station, 1) as (broker,):
        log = broker.events(MODEL)
        await log.end()
        station.plant("events", MODEL, strange)

        (logged,) = await _followed(log, 1)

        assert isinstance(logged.value, Unreadable)
        assert logged.value.raw == strange


@in_loop
async def test_events_of_racing_processes_are_all_there_in_order_per_job(station: Station) -> None:
    count = 25
    async with brokers(station, 1) as (broker,):
        with child(append_jobs_events, station, 1, count) as one, child(append_jobs_events, station, 2, count) as two:
            assert [await asyncio.to_thread(writer.says) for writer in (one, two)] == [1, 2]
            for writer in (one, two):
                writer.kill()
            found = await _followed(broker.events(MODEL), 4 * count)

    assert len(found) == 4 * count
    for number in (1, 2):
        times = [event.at for event in _of_job(found, number) if isinstance(event, Returned | Started)]
        assert times == list(range(count))
