"""What only the Kafka broker promises: brokers that die, settings that are wrong, processes that stop and go on."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from sfumato.broker.kafka import KafkaBroker
from sfumato.cluster.kafka import kafka
from sfumato.cluster.server import Server, free_ports
from sfumato.core.errors import Deposed, TransientError, UnusableStore
from sfumato.core.events import Started
from sfumato.core.job import Job, Work
from sfumato.core.ports import Batch, Broker, Follower, JobsReader, WorkReceiver
from tests.contract import test_jobs_log, test_work_queue
from tests.contract.children import MODEL, child
from tests.contract.kafka_station import KafkaStation
from tests.contract.stations import Station, brokers, in_loop
from tests.support import NOW, eventually, job_id, make_job

pytestmark = pytest.mark.server

DAY_S = 86_400.0


@pytest.fixture
def station(kafka_servers: str) -> KafkaStation:
    return KafkaStation.new(kafka_servers)


class Own:
    """A broker of a test's own, which it may kill; it also takes who logs in with a password."""

    def __init__(self, folder: Path) -> None:
        self.port, controller_port, self.sasl_port = free_ports(3)
        plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_sfumato="s3cret";'
        extra = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port},"
            f"SASL_PLAINTEXT://127.0.0.1:{self.sasl_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},SASL_PLAINTEXT://127.0.0.1:{self.sasl_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": plain,
        }
        self.server = Server(kafka(folder / "1", self.port, controller_port, extra=extra), folder / "1.log")
        self.station = KafkaStation.new(f"127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    own = Own(tmp_path_factory.mktemp("own"))
    try:
        own.server.start()
        yield own
    finally:
        own.server.stop()


async def _all_jobs(log: Follower[Any]) -> list[str]:
    """The ids of all jobs that are in the log."""
    found: list[str] = []
    batch: Batch[Any] = Batch([], "")
    while (batch := await log.follow(batch.cursor, limit=1_000, wait_s=0)).items:
        found += [logged.value.id for logged in batch.items if isinstance(logged.value, Job)]
    return found


async def _leads(reader: JobsReader) -> None:
    async def lead() -> bool:
        try:
            return await reader.lead(wait_s=0.2) is not None
        except TransientError:
            return False

    await eventually(lead, within_s=30)


async def _holds(receiver: WorkReceiver) -> int:
    """One of its lanes, once it has one."""

    async def held() -> frozenset[int]:
        try:
            await receiver.receive(limit=0, wait_s=0.1)
        except TransientError:
            return frozenset()
        return receiver.lanes

    lanes: frozenset[int] = await eventually(held, within_s=30)
    return min(lanes)


async def _publish_until(
    stop: asyncio.Event, broker: Broker, numbers: Iterator[int], told: list[str], refusals: list[float]
) -> None:
    """Publish one after the other; those acknowledged into `told`, how long each refusal took (s) into `refusals`."""
    while not stop.is_set():
        job, begin = make_job(next(numbers)), time.monotonic()
        try:
            await broker.jobs(MODEL).publish(job)
            told.append(job.id)
        except TransientError:
            refusals.append(time.monotonic() - begin)


# A broker that dies


@in_loop
async def test_what_was_acknowledged_outlives_a_killed_broker_and_all_goes_on_when_it_is_back(own: Own) -> None:
    async with brokers(own.station, 2) as (gateway, other):
        reader, receiver, told, refusals = other.jobs(MODEL), other.work(MODEL), list[str](), list[float]()
        await _leads(reader)
        await _holds(receiver)
        stop, numbers = asyncio.Event(), iter(range(1, 10**9))
        publish = [asyncio.create_task(_publish_until(stop, gateway, numbers, told, refusals)) for _ in range(8)]
        await eventually(lambda: _true(len(told) > 500))

        await asyncio.to_thread(own.server.kill)
        before = len(told)
        await eventually(lambda: _true(len(refusals) >= 8))
        await asyncio.to_thread(own.server.start)
        await eventually(lambda: _true(len(told) > before + 500), within_s=20)
        stop.set()
        await asyncio.gather(*publish)

        assert max(refusals) < 2.5
        assert set(told) <= set(await _all_jobs(gateway.jobs(MODEL)))
        await _leads(reader)
        assert await reader.read(limit=10, wait_s=5)
        lane = await _holds(receiver)
        await gateway.work(MODEL).hand_out([Work(job=make_job(1), lane=lane, attempt=0, delivery=0)])
        (received,) = await eventually(lambda: receiver.receive(limit=1, wait_s=0.5))
        await receiver.acknowledge(received.receipt)


async def _true(value: bool) -> bool:
    return value


@in_loop
async def test_a_log_is_not_taken_for_empty_while_the_broker_is_down(own: Own) -> None:
    async with brokers(own.station, 1) as (broker,):
        events = broker.events("quiet")
        end = await events.end()
        await asyncio.to_thread(own.server.kill)
        try:
            with pytest.raises(TransientError):
                await events.follow(end, limit=10, wait_s=0)
            with pytest.raises(TransientError):
                await events.end()
        finally:
            await asyncio.to_thread(own.server.start)

        async def empty() -> bool:
            try:
                return (await events.follow(end, limit=10, wait_s=0)).cursor == end
            except TransientError:
                return False

        await eventually(empty, within_s=20)


@in_loop
async def test_a_broker_that_never_was_there_is_told_within_two_seconds() -> None:
    (port,) = free_ports(1)
    async with brokers(KafkaStation.new(f"127.0.0.1:{port}"), 1) as (broker,):
        begin = time.monotonic()

        with pytest.raises(TransientError, match="try again"):
            await broker.jobs(MODEL).publish(make_job(1))

        assert time.monotonic() - begin < 2.5


async def _cluster(folder: Path, count: int) -> tuple[list[Server], str]:
    """Brokers of one cluster, not yet started, and their addresses."""
    ports = free_ports(2 * count)
    voters = dict(enumerate(ports[count:], start=1))

    def made(node: int) -> Server:
        recipe = kafka(folder / str(node), ports[node - 1], voters[node], node=node, voters=voters, heap_mib=256)
        return Server(recipe, folder / f"{node}.log")

    servers = await asyncio.gather(*(asyncio.to_thread(made, node) for node in voters))
    return servers, ",".join(f"127.0.0.1:{port}" for port in ports[:count])


@in_loop
async def test_three_brokers_take_jobs_on_after_one_is_killed_and_lose_none(tmp_path: Path) -> None:
    servers, addresses = await _cluster(tmp_path, 3)
    broker = KafkaBroker(addresses, takeover_s=3, replication=3)
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        told: list[str] = []
        stop, numbers = asyncio.Event(), iter(range(1, 10**9))
        publishing = asyncio.create_task(_publish_until(stop, broker, numbers, told, []))
        await eventually(lambda: _true(len(told) > 50), within_s=30)

        await asyncio.to_thread(servers[1].kill)
        before = len(told)
        await eventually(lambda: _true(len(told) > before + 200), within_s=30)
        stop.set()
        await publishing

        assert set(told) <= set(await _all_jobs(broker.jobs(MODEL)))
    finally:
        await broker.close()
        for server in servers:
            server.kill()


# A process that stops and goes on


def read_until_deposed(station: Station, pipe: "Connection[Any, None]") -> None:
    """Lead, say so, read on, and say how it ended."""

    async def run() -> None:
        jobs = station.open().jobs(MODEL)
        while await jobs.lead(wait_s=5) is None:
            pass
        pipe.send("leads")
        try:
            while True:
                try:
                    await jobs.read(limit=10, wait_s=0.2)
                except Deposed:
                    raise
                except TransientError:
                    pass  # just awake, it may not be answered in time; asked again it learns why
        except Deposed as error:
            pipe.send(error.detail)
        await asyncio.Event().wait()

    asyncio.run(run())


@in_loop
async def test_a_reader_stopped_beyond_its_session_is_deposed_when_it_goes_on(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        with child(read_until_deposed, station) as stopped:
            assert await asyncio.to_thread(stopped.says) == "leads"
            pid = stopped.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            successor = broker.jobs(MODEL)
            await _leads(successor)

            os.kill(pid, signal.SIGCONT)

            assert "lead again" in await asyncio.to_thread(stopped.says)
            assert await successor.read(limit=1, wait_s=0) == []


@in_loop
async def test_jobs_of_a_read_that_was_canceled_come_with_the_next_one(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        jobs, found = broker.jobs(MODEL), list[int]()
        await _leads(jobs)
        for number in range(1, 31):
            reading = asyncio.create_task(jobs.read(limit=10, wait_s=5))
            if number % 6 == 0:
                await asyncio.sleep(0)
                reading.cancel()
            await jobs.publish(make_job(number))
            # Canceled before its thread hears of it, while it waits, and when the answer is on its way.
            await asyncio.sleep(0.002 * (number % 5))
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if not reading.cancelled():
                found += [logged.position for logged in reading.result()]

        while more := await jobs.read(limit=10, wait_s=0):
            found += [logged.position for logged in more]

        assert found == list(range(1, 31))


@in_loop
async def test_one_end_follows_from_two_places_at_once(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        jobs = broker.jobs(MODEL)
        await jobs.publish(make_job(1))
        waiting = asyncio.create_task(jobs.follow(await jobs.end(), limit=10, wait_s=30))
        await asyncio.sleep(0)

        first = await jobs.follow("", limit=10, wait_s=5)
        await jobs.publish(make_job(2))

        assert [logged.value for logged in first.items] == [make_job(1)]
        assert [logged.value for logged in (await waiting).items] == [make_job(2)]


# Topics


@in_loop
async def test_topics_are_made_once_when_many_need_them_at_the_same_time(station: KafkaStation) -> None:
    async with brokers(station, 6) as opened:
        await asyncio.gather(*(broker.jobs(MODEL).publish(make_job(n)) for n, broker in enumerate(opened, start=1)))

        assert len(await _all_jobs(opened[0].jobs(MODEL))) == 6


@in_loop
async def test_lanes_are_added_when_more_are_wanted_than_there_are(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.work(MODEL).hand_out([Work(job=make_job(1), lane=3, attempt=0, delivery=0)])
    wider = [KafkaBroker(station.servers, takeover_s=3, work_partitions=7, prefix=station.prefix) for _ in range(3)]
    works = [Work(job=make_job(2), lane=6, attempt=0, delivery=0)]

    await asyncio.gather(*(broker.work(MODEL).hand_out(works) for broker in wider))

    assert len(station.stored("work", MODEL)) == 4
    for broker in wider:
        await broker.close()


@in_loop
async def test_a_topic_that_was_deleted_is_made_anew(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.events(MODEL).append([_started(1)])
        admin: Any = AdminClient({"bootstrap.servers": station.servers})
        for answer in admin.delete_topics([f"{station.prefix}.events.{MODEL}"]).values():
            answer.result(10)

        async def told() -> bool:
            try:
                await broker.events(MODEL).append([_started(2)])
            except TransientError:
                return False
            return True

        await eventually(told, within_s=20)
        assert _started(2).model_dump_json() in station.stored("events", MODEL)


def _started(number: int) -> Started:
    return Started(job_id=job_id(number), at=NOW, attempt=0, delivery=0, worker="w")


# Settings


async def _check(station: KafkaStation, **changes: Any) -> None:
    wanted = {"job_wait_s": DAY_S, "input_keep_s": 3 * DAY_S, "result_keep_s": 14 * DAY_S} | changes
    async with brokers(station, 1) as (broker,):
        await broker.check([MODEL], **wanted)  # type: ignore[attr-defined]  # only Kafka has settings to compare


@in_loop
async def test_topics_made_here_keep_what_is_needed(station: KafkaStation) -> None:
    await _check(station)


@pytest.mark.parametrize(
    ("kind", "name", "value", "advice"),
    [
        ("jobs", "retention.ms", "3600000", r"keeps messages 1 h.*set its retention\.ms=604800000"),
        ("events", "retention.ms", "-1", "keeps messages for ever"),
        ("jobs", "retention.bytes", "1000000", r"set its retention\.bytes=-1"),
        ("events", "cleanup.policy", "compact", r"set its cleanup\.policy=delete"),
        ("work", "retention.ms", "3600000", r"work.*SFUMATO_JOB_WAIT_S.*set its retention\.ms=172800000"),
    ],
)
@in_loop
async def test_a_topic_that_loses_messages_too_early_is_named_with_what_to_do(
    station: KafkaStation, kind: str, name: str, value: str, advice: str
) -> None:
    await _check(station)
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    topic: Any = ConfigResource(
        ConfigResource.Type.TOPIC, f"{station.prefix}.{kind}.{MODEL}", incremental_configs=[entry]
    )
    admin: Any = AdminClient({"bootstrap.servers": station.servers})
    for answer in admin.incremental_alter_configs([topic]).values():
        answer.result(10)

    with pytest.raises(UnusableStore, match=advice):
        await _check(station)


@in_loop
async def test_brokers_that_forget_how_far_a_group_has_read_are_told(station: KafkaStation) -> None:
    broker = KafkaBroker(station.servers, takeover_s=3, prefix=station.prefix, log_keep_s=30 * DAY_S)

    with pytest.raises(UnusableStore, match=r"offsets\.retention\.minutes=86400"):
        await broker.check([MODEL], job_wait_s=DAY_S, input_keep_s=3 * DAY_S, result_keep_s=60 * DAY_S)

    await broker.close()


@in_loop
async def test_a_protocol_asked_for_by_name_that_the_brokers_refuse_is_told(station: KafkaStation) -> None:
    broker = KafkaBroker(station.servers, takeover_s=1, prefix=station.prefix, group_protocol="consumer")

    with pytest.raises(UnusableStore, match=r"group\.consumer\.min\.session\.timeout\.ms=1000"):
        await broker.jobs(MODEL).lead(wait_s=0)

    await broker.close()


@in_loop
async def test_a_takeover_time_below_the_brokers_least_is_told(station: KafkaStation) -> None:
    broker = KafkaBroker(station.servers, takeover_s=1, prefix=station.prefix)

    with pytest.raises(UnusableStore, match="set SFUMATO_TAKEOVER_S=3 or"):
        await broker.check([MODEL], job_wait_s=DAY_S, input_keep_s=3 * DAY_S, result_keep_s=14 * DAY_S)

    await broker.close()


def test_settings_that_the_client_refuses_are_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(UnusableStore, match="SFUMATO_KAFKA_"):
        KafkaBroker("127.0.0.1:1", takeover_s=3, security_protocol="ssl", ssl_ca=tmp_path / "none.pem")


@in_loop
async def test_a_cursor_of_another_broker_is_refused(station: KafkaStation) -> None:
    async with brokers(station, 1) as (broker,):
        with pytest.raises(UnusableStore, match="was not made by Kafka"):
            await broker.events(MODEL).follow("17", limit=1, wait_s=0)


@in_loop
async def test_a_password_opens_what_asks_for_one(own: Own) -> None:
    def opened(password: str) -> KafkaBroker:
        return KafkaBroker(
            f"127.0.0.1:{own.sasl_port}",
            takeover_s=3,
            prefix=own.station.prefix,
            security_protocol="sasl_plaintext",
            sasl_mechanism="PLAIN",
            sasl_username="sfumato",
            sasl_password=password,
        )

    right, wrong = opened("s3cret"), opened("guessed")
    await right.jobs("locked").publish(make_job(1))
    with pytest.raises(TransientError):
        await wrong.jobs("locked").publish(make_job(2))

    assert await _all_jobs(right.jobs("locked")) == [make_job(1).id]
    await right.close()
    await wrong.close()


# The classic protocol, for brokers without the newer one

CLASSIC: Sequence[Callable[[Station], None]] = (
    test_jobs_log.test_closed_reader_is_followed_at_once_from_what_it_committed,
    test_jobs_log.test_silent_reader_is_deposed_and_can_no_longer_commit,
    test_work_queue.test_living_receivers_hold_different_lanes_and_get_only_their_own,
    test_work_queue.test_what_a_killed_receiver_did_not_acknowledge_reaches_another_within_takeover_s,
    test_work_queue.test_silent_receiver_loses_its_work_and_gets_a_lane_again,
)


@pytest.mark.parametrize("contract", CLASSIC, ids=lambda contract: contract.__name__)
def test_the_classic_protocol_keeps_the_contract(contract: Callable[[Station], None], kafka_servers: str) -> None:
    contract(KafkaStation.new(kafka_servers, "classic"))


# Speed


@in_loop
async def test_thousands_published_at_once_are_all_there(
    station: KafkaStation, record_property: Callable[[str, object], None]
) -> None:
    count = 3_000
    async with brokers(station, 1) as (broker,):
        jobs = broker.jobs(MODEL)
        await jobs.publish(make_job(0))
        made = [make_job(number) for number in range(1, count + 1)]
        begin = time.monotonic()

        await asyncio.gather(*(jobs.publish(job) for job in made))

        record_property("publishes_per_second", round(count / (time.monotonic() - begin)))
        assert len(await _all_jobs(jobs)) == count + 1
