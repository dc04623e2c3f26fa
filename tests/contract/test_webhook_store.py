"""The contract of Outbox and WebhookDesk: what is folded is owed once, and sent by one at a time, in order per job."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.core.events import Ended, JobEvent, Retried, Started
from sfumato.core.job import Job, Outcome, Problem, State
from sfumato.core.ports import RowChange
from sfumato.core.webhooks import (
    Attempt,
    Claimed,
    Delivery,
    DeliveryQuery,
    DeliveryState,
    Endpoint,
    Hook,
    Pending,
    Room,
)
from sfumato.storage.database import Database
from sfumato.storage.deliveries import SqlOutbox
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.webhooks import SqlWebhooks
from tests.contract.stations import in_loop
from tests.postgres import PostgresServer
from tests.support import NOW, make_job

URL = "https://receiver.example/hook"
OK = Attempt(delivered=True, status=204)
AGAIN = Attempt(delivered=False, status=500, error="It answered 500.", wait_s=0.0)
LATER = Attempt(delivered=False, status=None, error="No answer.", wait_s=60.0)


@dataclass(frozen=True)
class Stores:
    """One process's ends."""

    rows: SqlJobs
    outbox: SqlOutbox
    desk: SqlWebhooks

    async def claim(
        self, free: int = 200, per_host: int = 100, retries: int = 100, lease_s: float = 60.0, **busy: int
    ) -> Sequence[Claimed]:
        held = {f"local {host}.example:https": count for host, count in busy.items()}
        return await self.outbox.claim(Room(free, retries, per_host, held), lease_s)

    async def all(self, job_id: str = "", state: DeliveryState | None = None) -> Sequence[Delivery]:
        return (await self.desk.deliveries(DeliveryQuery("local", job_id, state))).deliveries


@dataclass(frozen=True)
class Opener:
    """A database of one kind, empty at first; each opening is as a process of its own would make it."""

    address: str | Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stores]:
        async with self._database() as database:
            yield Stores(SqlJobs(database), SqlOutbox(database), SqlWebhooks(database))

    def _database(self) -> AbstractAsyncContextManager[Database]:
        return Database.open(self.address) if isinstance(self.address, Path) else Database.connect(self.address)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "sqlite":
        return Opener(tmp_path / "rows.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return Opener(server.fresh())


def hooked(number: int = 1, url: str = URL, **changes: object) -> Job:
    return make_job(number, webhook_url=url, **changes)


def started(job: Job, attempt: int = 0, delivery: int = 0) -> Started:
    return Started(job_id=job.id, at=NOW + 5, attempt=attempt, delivery=delivery, worker="w")


def retried(job: Job) -> Retried:
    error = Problem(slug="try-again", title="It did not work now", detail="x")
    return Retried(job_id=job.id, at=NOW + 6, attempt=1, delivery=0, not_before=NOW + 8, error=error)


def ended(job: Job, state: State = State.CANCELED) -> Ended:
    outcome = Outcome(job_id=job.id, state=state, at=NOW + 9)
    return Ended(job_id=job.id, at=NOW + 9, attempt=0, delivery=0, outcome=outcome)


def told(job: Job, *events: JobEvent) -> list[RowChange]:
    return [RowChange(job=job), *(RowChange(event=event, position=n) for n, event in enumerate(events, 1))]


def endpoint(name: str = "ep_1", owner: str = "local", *events: Hook) -> Endpoint:
    return Endpoint(name, owner, f"https://{name.replace('_', '-')}.example/", events or tuple(Hook), NOW)


def events(claimed: Sequence[Claimed]) -> list[str]:
    return [each.delivery.event.value for each in claimed]


@in_loop
async def test_each_event_is_owed_once_however_often_it_is_folded(opener: Opener) -> None:
    job = hooked()
    changes = told(job, started(job), retried(job), started(job, attempt=1), ended(job))
    async with opener.open() as stores:
        for changed in (changes[:3], changes[2:], changes, changes[3:]):
            await stores.rows.record(changed, {})

        owed = sorted(each.event.value for each in await stores.all())
        assert owed == ["canceled", "retried", "started", "started"]


@in_loop
async def test_events_that_came_before_their_job_are_owed_with_it(opener: Opener) -> None:
    job = hooked()
    async with opener.open() as stores:
        await stores.rows.record(told(job, started(job))[1:], {})
        assert await stores.all() == []
        await stores.rows.record([RowChange(job=job)], {})

        assert [each.event for each in await stores.all()] == [Hook.STARTED]


@in_loop
async def test_address_of_a_job_is_told_of_what_it_asked_for(opener: Opener) -> None:
    asks, silent = hooked(webhook_events=("canceled",)), make_job(2)
    async with opener.open() as stores:
        for job in (asks, silent):
            await stores.rows.record(told(job, started(job), ended(job)), {})

        (found,) = await stores.claim()
        assert (found.delivery.event, found.delivery.url, found.row.state) == (Hook.CANCELED, URL, State.CANCELED)
        assert found.secrets == ()


@in_loop
async def test_endpoint_is_told_of_its_owners_jobs_and_its_events(opener: Opener) -> None:
    mine, other = make_job(1), make_job(2, owner="other")
    async with opener.open() as stores:
        await stores.desk.add(endpoint("ep_all"), "whsec_a", 20)
        await stores.desk.add(endpoint("ep_ends", "local", Hook.CANCELED), "whsec_b", 20)
        for job in (mine, other):
            await stores.rows.record(told(job, started(job), ended(job)), {})

        first = await stores.claim()
        assert sorted((each.delivery.endpoint, each.delivery.event, *each.secrets) for each in first) == [
            ("ep_all", "started", "whsec_a"),
            ("ep_ends", "canceled", "whsec_b"),
        ]


@in_loop
async def test_two_recorders_never_hold_one_delivery(opener: Opener) -> None:
    jobs = [hooked(number) for number in range(1, 41)]
    async with opener.open() as one, opener.open() as other:
        await one.rows.record([change for job in jobs for change in told(job, started(job))], {})

        claims = await asyncio.gather(*(each.claim(free=14) for each in (one, other) * 6))

        held = [each.delivery.id for claim in claims for each in claim]
        assert len(held) == len(set(held))
        while found := await one.claim(free=14):
            held += [each.delivery.id for each in found]
        assert len(set(held)) == len(held) == 40


@in_loop
async def test_lease_that_ends_gives_the_delivery_to_another_with_the_same_id(opener: Opener) -> None:
    job = hooked()
    async with opener.open() as one, opener.open() as other:
        await one.rows.record(told(job, started(job)), {})
        (dead,) = await one.claim(lease_s=0.2)
        assert await other.claim() == []
        await asyncio.sleep(0.3)

        (alive,) = await other.claim()
        assert alive.delivery.id == dead.delivery.id
        await one.outbox.settle(dead, LATER)  # too late to speak of a failure
        assert (await other.all())[0].attempts == 0
        await one.outbox.settle(dead, OK)  # but it did arrive
        assert (await other.all())[0].state is DeliveryState.DELIVERED


@in_loop
async def test_events_of_a_job_come_in_order_until_each_was_tried(opener: Opener) -> None:
    job = hooked()
    async with opener.open() as stores:
        await stores.rows.record(told(job, started(job), retried(job), ended(job)), {})

        (first,) = await stores.claim()
        assert (events([first]), await stores.claim()) == (["started"], [])
        await stores.outbox.settle(first, LATER)  # it holds nobody up for hours
        (second,) = await stores.claim()
        await stores.outbox.settle(second, OK)
        assert events([second, *await stores.claim()]) == ["retried", "canceled"]


@in_loop
async def test_backlog_of_one_host_hides_no_other(opener: Opener) -> None:
    flood = [hooked(number, "https://slow.example/") for number in range(1, 301)]
    async with opener.open() as stores:
        await stores.rows.record([change for job in flood for change in told(job, started(job))], {})
        good = hooked(900)
        await stores.rows.record(told(good, started(good)), {})

        found = await stores.claim(free=10, per_host=4)
        assert sorted(each.host for each in found) == [
            *("local receiver.example:https", *["local slow.example:https"] * 4)
        ]
        assert await stores.claim(free=10, per_host=4, slow=4) == []


@in_loop
async def test_backlog_of_one_owner_hides_no_other(opener: Opener) -> None:
    flood = [hooked(number, f"https://h{number}.example/") for number in range(1, 101)]
    async with opener.open() as stores:
        await stores.rows.record([change for job in flood for change in told(job, started(job))], {})
        good = hooked(900, owner="another")
        await stores.rows.record(told(good, started(good)), {})

        found = await stores.claim(free=8)
        assert sorted(each.row.job.owner for each in found) == ["another", *["local"] * 4]


@in_loop
async def test_what_failed_before_hides_nothing_that_was_never_tried(opener: Opener) -> None:
    failing = [hooked(number, f"https://h{number}.example/") for number in range(1, 61)]
    async with opener.open() as stores:
        await stores.rows.record([change for job in failing for change in told(job, started(job))], {})
        for each in await stores.claim(free=200):
            await stores.outbox.settle(each, AGAIN)
        good = hooked(900)
        await stores.rows.record(told(good, started(good)), {})

        found = await stores.claim(free=4, retries=1)
        assert sorted(each.delivery.attempts for each in found) == [0, 1]
        assert await stores.claim(free=4, retries=0) == []


@in_loop
async def test_another_owner_and_another_port_of_the_same_host_have_shares_of_their_own(opener: Opener) -> None:
    flood = [hooked(number, "https://slow.example/") for number in range(1, 11)]
    others = [hooked(11, "https://slow.example/", owner="ann"), hooked(12, "https://slow.example:8443/")]
    async with opener.open() as stores:
        await stores.rows.record([change for job in (*flood, *others) for change in told(job, started(job))], {})

        found = await stores.claim(per_host=2)
        assert {job.id for job in others} <= {each.delivery.job_id for each in found}
        assert len(found) == 4


@in_loop
async def test_retries_get_their_share_only(opener: Opener) -> None:
    jobs = [hooked(number) for number in range(1, 7)]
    async with opener.open() as stores:
        await stores.rows.record([change for job in jobs[:4] for change in told(job, started(job))], {})
        for each in await stores.claim():
            await stores.outbox.settle(each, AGAIN)
        await stores.rows.record([change for job in jobs[4:] for change in told(job, started(job))], {})

        found = await stores.claim(retries=1)
        assert sorted(each.delivery.attempts for each in found) == [0, 0, 1]


@in_loop
async def test_last_failure_gives_up_and_says_why_and_a_redelivery_begins_anew(opener: Opener) -> None:
    job = hooked()
    async with opener.open() as stores:
        await stores.rows.record(told(job, started(job)), {})
        (found,) = await stores.claim()
        await stores.outbox.settle(found, Attempt(delivered=False, status=500, error="It answered 500."))

        (shown,) = await stores.all(state=DeliveryState.GIVEN_UP)
        assert (shown.attempts, shown.next_at, shown.last_status, shown.last_error) == (
            1,
            None,
            500,
            "It answered 500.",
        )
        assert (await stores.outbox.pending()).count == 0
        assert await stores.claim() == []
        assert await stores.desk.redeliver("another", shown.id) is None
        assert await stores.desk.redeliver("local", shown.id) is not None
        assert (await stores.outbox.pending()).count == 1
        (again,) = await stores.claim()
        assert (again.delivery.id, again.delivery.attempts) == (shown.id, 0)


@in_loop
async def test_late_is_what_is_due_and_in_nobody_s_hands(opener: Opener) -> None:
    jobs = [hooked(1), hooked(2)]
    async with opener.open() as stores:
        assert await stores.outbox.pending() == Pending(0, 0.0, 0.0)
        await stores.rows.record([change for job in jobs for change in told(job, started(job))], {})
        await asyncio.sleep(0.05)
        assert 0.04 < (await stores.outbox.pending()).late_s < 10

        first, second = await stores.claim()
        assert (await stores.outbox.pending()).late_s == 0.0
        await stores.outbox.settle(first, OK)
        await stores.outbox.settle(second, LATER)
        pending = await stores.outbox.pending()
        assert (pending.count, pending.late_s) == (1, 0.0)


@in_loop
async def test_gone_disables_the_endpoint_and_gives_up_what_waits(opener: Opener) -> None:
    job, later = make_job(1), make_job(2)
    async with opener.open() as stores:
        await stores.desk.add(endpoint(), "whsec_a", 20)
        await stores.rows.record(told(job, started(job), ended(job)), {})
        (found,) = await stores.claim()
        await stores.outbox.settle(found, Attempt(delivered=False, status=410, error="It answered 410.", gone=True))
        await stores.rows.record(told(later, started(later)), {})

        assert {each.state for each in await stores.all()} == {DeliveryState.GIVEN_UP}
        assert [each.job_id for each in await stores.all()] == [job.id] * 2
        assert (await stores.desk.endpoints("local"))[0].disabled_why == "It answered 410."


@in_loop
async def test_gone_from_the_address_of_a_job_ends_that_jobs_webhooks(opener: Opener) -> None:
    job, other = hooked(1), hooked(2)
    async with opener.open() as stores:
        for each in (job, other):
            await stores.rows.record(told(each, started(each), ended(each)), {})
        (found,) = [each for each in await stores.claim() if each.delivery.job_id == job.id]
        await stores.outbox.settle(found, Attempt(delivered=False, status=410, error="gone", gone=True))

        assert {each.job_id for each in await stores.all(state=DeliveryState.GIVEN_UP)} == {job.id}
        assert {each.job_id for each in await stores.all(state=DeliveryState.PENDING)} == {other.id}


@in_loop
async def test_secrets_rotate_with_an_overlap(opener: Opener) -> None:
    async with opener.open() as stores:
        await stores.desk.add(endpoint(), "whsec_a", 20)

        async def signing(number: int) -> Sequence[str]:
            job = make_job(number)
            await stores.rows.record(told(job, started(job)), {})
            (found,) = await stores.claim()
            return found.secrets

        assert await stores.desk.rotate("local", "ep_1", "whsec_b", 60.0)
        assert await signing(1) == ["whsec_b", "whsec_a"]
        assert await stores.desk.rotate("local", "ep_1", "whsec_c", 0.0)
        assert await signing(2) == ["whsec_c"]
        assert not await stores.desk.rotate("another", "ep_1", "whsec_d", 0.0)


@in_loop
async def test_secrets_that_sign_are_never_more_than_a_few(opener: Opener) -> None:
    async with opener.open() as stores:
        await stores.desk.add(endpoint(), "whsec_first", 20)
        for number in range(20):
            assert await stores.desk.rotate("local", "ep_1", f"whsec_{number}", 3600.0)
        await stores.rows.record(told(make_job(1), started(make_job(1))), {})

        (found,) = await stores.claim()
        assert found.secrets == [f"whsec_{number}" for number in (19, 18, 17, 16, 15)]


@in_loop
async def test_endpoints_that_are_added_at_once_are_never_more_than_the_most(opener: Opener) -> None:
    async with opener.open() as one, opener.open() as other:
        assert await one.desk.add(endpoint("ep_0"), "whsec_a", 3)
        added = await asyncio.gather(
            *((one, other)[n % 2].desk.add(endpoint(f"ep_{n}"), "whsec_a", 3) for n in range(1, 9))
        )
        assert sum(added) == 2
        assert len(await one.desk.endpoints("local")) == 3
        assert await one.desk.add(endpoint("ep_9", "another"), "whsec_a", 3)


@in_loop
async def test_endpoint_that_is_removed_gets_nothing_more(opener: Opener) -> None:
    job = make_job(1)
    async with opener.open() as stores:
        await stores.desk.add(endpoint(), "whsec_a", 20)
        await stores.rows.record(told(job, started(job)), {})
        assert not await stores.desk.remove("another", "ep_1")
        assert await stores.desk.remove("local", "ep_1")

        assert await stores.claim() == []
        assert (await stores.all())[0].last_error == "The endpoint was deleted."
        assert await stores.desk.endpoints("local") == []


@in_loop
async def test_deliveries_are_listed_by_pages_and_swept_with_their_jobs(opener: Opener) -> None:
    jobs = [hooked(number) for number in range(1, 6)]
    async with opener.open() as stores:
        await stores.rows.record([change for job in jobs for change in told(job, ended(job))], {})
        seen: list[str] = []
        cursor = ""
        while True:
            page = await stores.desk.deliveries(DeliveryQuery("local", cursor=cursor, limit=2))
            seen += [each.id for each in page.deliveries]
            cursor = page.next
            if not cursor:
                break
        assert len(seen) == len(set(seen)) == 5
        assert [each.job_id for each in await stores.all(job_id=jobs[1].id)] == [jobs[1].id]
        with pytest.raises(InvalidRequest):
            await stores.desk.deliveries(DeliveryQuery("local", cursor="x"))

        await stores.rows.sweep(jobs[-1].created_at)
        assert [each.job_id for each in await stores.all()] == [jobs[-1].id]
