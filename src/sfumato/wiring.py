"""From settings to ports: the one place that chooses which broker and which stores a role talks to."""

import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sfumato.config import Settings
from sfumato.core.errors import NotFound, SfumatoError, TransientError, UnusableStore
from sfumato.core.history import JobPurge
from sfumato.core.keys import KeyStore, RateCounter
from sfumato.core.ports import BlobLinks, Blobs, BlobSweep, Broker, JobRecorder, JobRows, Outcomes
from sfumato.core.scaling import Board, Offers
from sfumato.core.webhooks import Outbox, WebhookDesk
from sfumato.storage import schema
from sfumato.storage.database import Database
from sfumato.storage.deliveries import SqlOutbox
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.keys import SqlKeys
from sfumato.storage.purge import SqlPurge
from sfumato.storage.scaling import SqlScaling
from sfumato.storage.webhooks import SqlWebhooks

__all__ = [
    "JobStore",
    "ObjectStore",
    "Ports",
    "ScalingStore",
    "check_logs",
    "look_at_keys",
    "look_at_ports",
    "open_counter",
    "open_keys",
    "open_ports",
    "open_purge",
    "open_scaling",
    "servers_asked",
]

log = logging.getLogger(__name__)


class ObjectStore(Blobs, BlobLinks, BlobSweep, Protocol):
    """The objects, for whoever stores, links and sweeps."""


class ScalingStore(Board, Offers, Protocol):
    """What is decided about workers, for who decides, who acts and who shows it."""


class JobStore(JobRows, JobRecorder, Protocol):
    """The rows, for whoever reads and writes them."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a role may talk to; each role takes what its signature names."""

    broker: Broker
    blobs: ObjectStore
    outcomes: Outcomes
    rows: JobStore
    scaling: ScalingStore
    keys: KeyStore
    webhooks: WebhookDesk
    outbox: Outbox


@asynccontextmanager
async def open_ports(settings: Settings) -> AsyncIterator[Ports]:
    """Open what the settings name, close it at the end: Kafka, a bucket, PostgreSQL; or files in `settings.data_dir`.

    Raises:
        SfumatoError: a folder or a server can't be used; the message says why.
    """
    async with AsyncExitStack() as stack:
        yield await _ports(settings, stack, await stack.enter_async_context(_database(settings)))


@asynccontextmanager
async def look_at_ports(settings: Settings) -> AsyncIterator[Ports]:
    """As `open_ports`, for who only reads: the rows are taken as they are, and no file is made that is missing.

    Raises:
        NotFound: a file is missing in `settings.data_dir` that every service makes there.
        SfumatoError: a folder or a server can't be used, or the rows' schema is not that of this version.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.look(settings.rows_address))
        names = [] if settings.s3_bucket else ["outcomes.sqlite"]
        names += [] if settings.kafka_servers else ["queue.sqlite", "events.sqlite"]
        if missing := [name for name in names if not (settings.data_dir / name).exists()]:
            raise NotFound(f"nothing is known of any job: no service ever made {', '.join(missing)}.")
        yield await _ports(settings, stack, database)


@asynccontextmanager
async def open_scaling(settings: Settings) -> AsyncIterator[ScalingStore]:
    """What is decided about workers, alone: for a host that runs them.

    Raises:
        SfumatoError: the database can't be used; the message says why.
    """
    async with _database(settings) as database:
        yield SqlScaling(database)


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KeyStore]:
    """The keys, alone: for who makes and revokes them.

    Raises:
        SfumatoError: the database can't be used; the message says why.
    """
    async with _database(settings) as database:
        yield SqlKeys(database)


@asynccontextmanager
async def look_at_keys(settings: Settings) -> AsyncIterator[KeyStore]:
    """The keys, alone, for who only reads them: the database is taken as it is, and nothing is made.

    Raises:
        SfumatoError: the database can't be used, is empty, or its schema is not that of this version.
    """
    async with Database.look(settings.rows_address) as database:
        yield SqlKeys(database)


@asynccontextmanager
async def open_counter(settings: Settings) -> AsyncIterator[RateCounter | None]:
    """What counts requests for all gateways; None where the settings name nothing. That it is away is no error.

    Raises:
        UnusableStore: its client is not installed, or the address can't be one.
    """
    url = settings.rates_url.get_secret_value()
    if not url:
        yield None
        return
    from sfumato.storage.rates import ValkeyCounter

    async with ValkeyCounter(url) as counter:
        yield counter


@asynccontextmanager
async def open_purge(settings: Settings) -> AsyncIterator[tuple[JobPurge, ObjectStore]]:
    """Old rows and the objects, without the logs: for who removes ended jobs.

    Raises:
        SfumatoError: a folder or a server can't be used; the message says why.
    """
    async with AsyncExitStack() as stack:
        blobs, _ = await _objects(settings, stack)
        yield SqlPurge(await stack.enter_async_context(_database(settings))), blobs


async def check_logs(broker: Broker, settings: Settings, models: Sequence[str]) -> None:
    """See that the logs of these models (slugs) are kept for as long as our settings need them.

    While Kafka is away nothing is known; a role that starts then goes on, for what it can do without.

    Raises:
        UnusableStore: they are not; the message says what to change.
    """
    if not settings.kafka_servers:
        return  # ours are swept by ourselves, by these very settings
    from sfumato.broker.kafka import KafkaBroker

    if isinstance(broker, KafkaBroker):
        try:
            await broker.check(
                models,
                job_wait_s=settings.job_wait_s,
                input_keep_s=settings.input_keep_s,
                result_keep_s=settings.result_keep_s,
            )
        except TransientError as error:
            log.warning("how long Kafka keeps its logs could not be looked at: %s", error.detail)


async def servers_asked(settings: Settings) -> Sequence[tuple[str, str]]:
    """Each server that the settings name, and what is wrong with it ("" when it answers as it should)."""
    asked: list[tuple[str, Coroutine[Any, Any, object]]] = []
    if settings.kafka_servers:
        asked.append((f"Kafka at {settings.kafka_servers}", _reach_kafka(settings)))
    if settings.s3_place is not None:
        asked.append((f"bucket {settings.s3_bucket} at {settings.s3_place.address}", _reach_bucket(settings)))
    if settings.database_url.get_secret_value():
        asked.append(("PostgreSQL", _reach_database(settings)))
    if settings.rates_url.get_secret_value():
        asked.append(("Valkey", _reach_counter(settings)))
    return [(name, await _trouble_of(question)) for name, question in asked]


async def _reach_kafka(settings: Settings) -> None:
    from sfumato.broker.kafka import KafkaBroker

    broker = _broker(settings)
    try:
        if isinstance(broker, KafkaBroker):
            await broker.reach()
    finally:
        await broker.close()


async def _reach_bucket(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        await _objects(settings, stack)


async def _reach_database(settings: Settings) -> None:
    found = await schema.schema_of(settings.rows_address)
    if found.advice:
        raise UnusableStore(found.advice)


async def _reach_counter(settings: Settings) -> None:
    async with open_counter(settings) as counter:
        if counter is not None:
            await counter.reach()


async def _trouble_of(question: Coroutine[Any, Any, object]) -> str:
    try:
        await question
    except SfumatoError as error:
        return error.detail
    except ImportError as error:
        return f"{error.name} is not installed"
    return ""


async def _ports(settings: Settings, stack: AsyncExitStack, database: Database) -> Ports:
    blobs, outcomes = await _objects(settings, stack)
    broker = _broker(settings)
    stack.push_async_callback(broker.close)
    rows, scaling, keys = SqlJobs(database), SqlScaling(database), SqlKeys(database)
    return Ports(broker, blobs, outcomes, rows, scaling, keys, SqlWebhooks(database), SqlOutbox(database))


async def _objects(settings: Settings, stack: AsyncExitStack) -> tuple[ObjectStore, Outcomes]:
    place = settings.s3_place
    # Imported late: what is not used need not be installed, nor be waited for at each start.
    if place is not None:
        from sfumato.storage.s3 import S3Blobs
        from sfumato.storage.s3_outcomes import S3Outcomes

        blobs = await stack.enter_async_context(S3Blobs.open(place))
        return blobs, S3Outcomes(blobs)
    from sfumato.storage.blobs import FolderBlobs
    from sfumato.storage.outcomes import SqliteOutcomes

    outcomes = await stack.enter_async_context(SqliteOutcomes(settings.data_dir / "outcomes.sqlite"))
    return FolderBlobs(settings.data_dir / "blobs"), outcomes


def _database(settings: Settings) -> AbstractAsyncContextManager[Database]:
    url = settings.database_url.get_secret_value()
    return Database.connect(url) if url else Database.open(settings.rows_file)


def _broker(settings: Settings) -> Broker:
    if not settings.kafka_servers:
        from sfumato.broker.sqlite import SqliteBroker

        return SqliteBroker(settings.data_dir, takeover_s=settings.takeover_s)
    from sfumato.broker.kafka import KafkaBroker

    return KafkaBroker(
        settings.kafka_servers,
        takeover_s=settings.takeover_s,
        replication=settings.kafka_replication,
        work_partitions=settings.kafka_work_partitions,
        group_protocol=settings.kafka_group_protocol,
        log_keep_s=settings.log_keep_s,
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=settings.kafka_sasl_password.get_secret_value(),
        ssl_ca=settings.kafka_ssl_ca,
        ssl_certificate=settings.kafka_ssl_certificate,
        ssl_key=settings.kafka_ssl_key,
    )
