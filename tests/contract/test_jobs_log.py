"""Contract: a model's jobs log keeps every published job and lets one process at a time read and decide them."""

import asyncio
import json
import time

import pytest

from sfumato.core.errors import Deposed
from sfumato.core.events import Unreadable
from sfumato.core.job import Job
from sfumato.core.ports import METADATA_LIMIT_BYTES, JobsLog, JobsReader, Lead, Logged
from tests.contract.children import MODEL, child, keep_leading, publish_jobs
from tests.contract.stations import Station, brokers, in_loop
from tests.support import eventually, make_job


async def _leads(reader: JobsReader, within_s: float = 20.0) -> Lead:
    """The reader's lead as soon as it gets one."""
    lead: Lead = await eventually(lambda: reader.lead(wait_s=0.1), within_s=within_s)
    return lead


async def _read(reader: JobsReader, count: int) -> list[Logged[Job | Unreadable]]:
    """What `read` gives until it has given `count` or more."""
    found: list[Logged[Job | Unreadable]] = []
    while len(found) < count:
        more = await reader.read(limit=100, wait_s=5)
        assert more, f"only {len(found)} of {count} jobs came"
        found += more
    return found


async def _all_ids(log: JobsLog, count: int) -> list[str]:
    """The ids of the first `count` jobs, by following from the oldest."""
    found: list[str] = []
    cursor = ""
    while len(found) < count:
        batch = await log.follow(cursor, limit=7, wait_s=5)
        assert batch.items, f"only {len(found)} of {count} jobs are there"
        found += [logged.value.id for logged in batch.items if isinstance(logged.value, Job)]
        cursor = batch.cursor
    return found


@in_loop
async def test_published_job_is_stored_when_publish_returns(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.jobs(MODEL).publish(make_job(1))

        assert station.stored("jobs", MODEL) == [make_job(1).model_dump_json()]


@in_loop
async def test_jobs_published_by_a_killed_process_are_kept(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        with child(publish_jobs, station, 1, 10_000) as publisher:
            told = [publisher.says() for _ in range(20)]
            publisher.kill()

        # More may be there: what was published and not yet told when it died.
        assert (await _all_ids(broker.jobs(MODEL), 20))[:20] == [make_job(number).id for number in told]


@in_loop
async def test_reader_gets_jobs_in_the_order_of_publishing_with_growing_positions(station: Station) -> None:
    async with brokers(station, 2) as (gateway, dispatcher):
        for number in (3, 1, 2):
            await gateway.jobs(MODEL).publish(make_job(number))
        reader = dispatcher.jobs(MODEL)
        await _leads(reader)

        first = await reader.read(limit=2, wait_s=5)
        second = await reader.read(limit=2, wait_s=5)

        found = [*first, *second]
        assert [logged.value for logged in found] == [make_job(3), make_job(1), make_job(2)]
        positions = [logged.position for logged in found]
        assert positions == sorted(set(positions))
        assert positions[0] >= 1
        assert len(first) <= 2
        assert await reader.last() == positions[-1]


@in_loop
async def test_logs_of_two_models_do_not_mix(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.jobs("one").publish(make_job(1))
        await broker.jobs("two").publish(make_job(2))

        assert await _all_ids(broker.jobs("two"), 1) == [make_job(2).id]
        batch = await broker.jobs("one").follow("", limit=10, wait_s=5)
        assert [logged.value for logged in batch.items] == [make_job(1)]


@in_loop
async def test_first_reader_begins_at_nothing(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        reader = broker.jobs(MODEL)

        assert await _leads(reader) == Lead(position=0, metadata="")
        assert await reader.last() == 0
        assert await reader.read(limit=10, wait_s=0) == []


@in_loop
async def test_job_published_twice_is_read_twice(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.jobs(MODEL)

        await log.publish(make_job(1))
        await log.publish(make_job(1))

        assert await _all_ids(log, 2) == [make_job(1).id] * 2


@in_loop
async def test_second_reader_waits_while_the_first_one_lives(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        first, second = one.jobs(MODEL), two.jobs(MODEL)
        await _leads(first)
        end = time.monotonic() + 2 * station.takeover_s

        while time.monotonic() < end:
            assert await first.read(limit=1, wait_s=0.1) == []
            assert await second.lead(wait_s=0.1) is None


@in_loop
async def test_closed_reader_is_followed_at_once_from_what_it_committed(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        first, second = one.jobs(MODEL), two.jobs(MODEL)
        for number in (1, 2, 3):
            await first.publish(make_job(number))
        await _leads(first)
        positions = [logged.position for logged in await _read(first, 3)]
        await first.commit(positions[1], "where the events were read up to: 17")
        await first.close()

        lead = await _leads(second, within_s=station.takeover_s / 2)

        assert lead == Lead(positions[1], "where the events were read up to: 17")
        assert [logged.value for logged in await _read(second, 1)] == [make_job(3)]


@in_loop
async def test_killed_reader_is_taken_over_within_takeover_s(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.jobs(MODEL)
        await log.publish(make_job(1))
        await log.publish(make_job(2))
        with child(keep_leading, station, 1, "left by the dead") as dead:
            positions = await asyncio.to_thread(dead.says)
            dead.kill()

            lead = await _leads(log, within_s=station.takeover_s + station.slack_s)

        assert lead == Lead(1, "left by the dead")
        assert positions
        assert [logged.position for logged in await _read(log, 1)] == [positions[1]]


@in_loop
async def test_silent_reader_is_deposed_and_can_no_longer_commit(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        silent, successor = one.jobs(MODEL), two.jobs(MODEL)
        await silent.publish(make_job(1))
        await _leads(silent)
        (logged,) = await _read(silent, 1)

        await _leads(successor, within_s=station.takeover_s + station.slack_s)

        with pytest.raises(Deposed):
            await silent.commit(logged.position, "by a deposed reader")
        with pytest.raises(Deposed):
            await silent.read(limit=1, wait_s=0)
        assert [again.value for again in await _read(successor, 1)] == [make_job(1)]
        await successor.close()
        assert await _leads(one.jobs(MODEL)) == Lead(position=0, metadata="")


@in_loop
async def test_commit_keeps_metadata_of_the_largest_size(station: Station) -> None:
    metadata = "é" * (METADATA_LIMIT_BYTES // 2)
    async with brokers(station, 2) as (one, two):
        first = one.jobs(MODEL)
        await first.publish(make_job(1))
        await _leads(first)
        (logged,) = await _read(first, 1)
        await first.commit(logged.position, metadata)
        await first.close()

        assert await _leads(two.jobs(MODEL)) == Lead(logged.position, metadata)


@in_loop
async def test_committing_alone_is_no_sign_of_life(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        mute, successor = one.jobs(MODEL), two.jobs(MODEL)
        await mute.publish(make_job(1))
        await _leads(mute)
        (logged,) = await _read(mute, 1)

        async def deposed() -> bool:
            try:
                await mute.commit(logged.position, "")
            except Deposed:
                return True
            return await successor.lead(wait_s=0.1) is not None

        await eventually(deposed, within_s=station.takeover_s + station.slack_s, every_s=station.takeover_s / 10)


@in_loop
async def test_deposed_reader_may_lead_again(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        first, second = one.jobs(MODEL), two.jobs(MODEL)
        await first.publish(make_job(1))
        await _leads(first)
        await _leads(second, within_s=station.takeover_s + station.slack_s)
        with pytest.raises(Deposed):
            await first.read(limit=1, wait_s=0)
        (logged,) = await _read(second, 1)
        await second.commit(logged.position, "")
        await second.close()

        assert await _leads(first) == Lead(logged.position, "")
        assert await first.read(limit=1, wait_s=0) == []


@in_loop
async def test_reading_and_committing_without_the_lead_are_refused(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        with pytest.raises(Deposed):
            await broker.jobs(MODEL).read(limit=1, wait_s=0)
        with pytest.raises(Deposed):
            await broker.jobs(MODEL).commit(1, "")


@in_loop
async def test_follower_that_only_looks_finds_all_that_was_published_before(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        log, cursor, found = two.jobs(MODEL), "", 0
        for number in range(20):
            await one.jobs(MODEL).publish(make_job(number))

        while (batch := await log.follow(cursor, limit=6, wait_s=0)).items:
            cursor, found = batch.cursor, found + len(batch.items)

        assert found == 20


@in_loop
async def test_followers_see_every_job_beside_the_reader_and_each_other(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        await one.jobs(MODEL).publish(make_job(1))
        reader = one.jobs(MODEL)
        await _leads(reader)
        (logged,) = await _read(reader, 1)
        await reader.commit(logged.position, "")

        assert await _all_ids(two.jobs(MODEL), 1) == [make_job(1).id]
        assert await _all_ids(two.jobs(MODEL), 1) == [make_job(1).id]


@in_loop
async def test_following_from_the_end_shows_only_what_comes_later(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.jobs(MODEL)
        await log.publish(make_job(1))
        end = await log.end()
        assert not (await log.follow(end, limit=10, wait_s=0)).items

        await log.publish(make_job(2))

        batch = await log.follow(end, limit=10, wait_s=5)
        assert [logged.value for logged in batch.items] == [make_job(2)]
        assert batch.cursor == await log.end()


@in_loop
async def test_waiting_reader_gets_a_job_when_it_comes(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        reader = one.jobs(MODEL)
        await _leads(reader)
        waiting = asyncio.create_task(reader.read(limit=10, wait_s=30))
        begin = time.monotonic()

        await two.jobs(MODEL).publish(make_job(1))

        assert [logged.value for logged in await waiting] == [make_job(1)]
        assert time.monotonic() - begin < 5


@in_loop
async def test_job_of_an_unknown_version_comes_as_unreadable_and_holds_up_nothing(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        log = broker.jobs(MODEL)
        await log.publish(make_job(1))
        strange = json.dumps(make_job(2).model_dump(mode="json") | {"version": 99})
        station.plant("jobs", MODEL, strange)
        await log.publish(make_job(3))
        await _leads(log)

        values = [logged.value for logged in await _read(log, 3)]

        assert (values[0], values[2]) == (make_job(1), make_job(3))
        assert isinstance(values[1], Unreadable)
        assert values[1].raw == strange
        assert "99" in values[1].why


@in_loop
async def test_jobs_of_racing_processes_are_all_there_each_in_its_own_order(station: Station) -> None:
    count = 40
    async with brokers(station, 1) as (broker,):
        with child(publish_jobs, station, 1000, count) as one, child(publish_jobs, station, 2000, count) as two:
            for _ in range(count):
                await asyncio.to_thread(one.says)
                await asyncio.to_thread(two.says)
            found = await _all_ids(broker.jobs(MODEL), 2 * count)

        for first in (1000, 2000):
            mine = [make_job(number).id for number in range(first, first + count)]
            assert [id_ for id_ in found if id_ in mine] == mine
