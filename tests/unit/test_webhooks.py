"""What is sent, signed by what, and when it is tried again."""

import asyncio
import dataclasses
import json
from collections.abc import Sequence

import pytest
from standardwebhooks import Webhook

from sfumato.core.events import Started, advance, new_row
from sfumato.core.links import Links
from sfumato.core.webhooks import (
    WAITS_S,
    Attempt,
    Claimed,
    Delivery,
    DeliveryState,
    Due,
    Hook,
    Pending,
    Room,
    delivery_id,
    hook_of,
    shared_out,
    wait_after,
)
from sfumato.net.addresses import Allowed
from sfumato.net.fetcher import Fetcher
from sfumato.recorder.webhooks import PAYLOAD_BYTES, Payloads, Sender, signed
from sfumato.storage.secrets import new_webhook_secret
from tests.support import NOW, make_job, make_params

PAYLOADS = Payloads(Links([b"secret"]), "", 1000.0, lambda name: f"the version of {name}")


def claimed(**changes: object) -> Claimed:
    job = make_job(1, link_base="https://sfumato.example", **changes)
    started = Started(job_id=job.id, at=NOW + 1, attempt=0, delivery=0, worker="w")
    row = advance(new_row(job), started, 1)
    delivery = Delivery("m", job.id, Hook.STARTED, "job", "", NOW, DeliveryState.PENDING, 0, NOW, None, "")
    return Claimed(delivery, "host", row, (), "")


def test_waits_grow_to_a_day_and_end() -> None:
    waits = [wait_after(attempts, 0.0) for attempts in range(1, len(WAITS_S) + 2)]

    assert waits == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400, None]
    assert wait_after(1, 0.999) == 5 * (1 + 0.2 * 0.999)


def test_id_follows_from_job_event_attempt_and_endpoint() -> None:
    row = new_row(make_job(1))
    again = row.model_copy(update={"attempt": 1})

    ids = [delivery_id(row, Hook.STARTED, "job"), delivery_id(row, Hook.RETRIED, "job")]
    ids += [delivery_id(row, Hook.STARTED, "ep_1"), delivery_id(again, Hook.STARTED, "job")]
    assert len(set(ids)) == 4
    assert ids[0] == delivery_id(row, Hook.STARTED, "job")


def test_event_that_changes_nothing_tells_nothing() -> None:
    row = claimed().row
    again = Started(job_id=row.id, at=NOW, attempt=0, delivery=0, worker="w")

    assert hook_of(row, advance(row, again, 1)) is None


def test_body_shows_the_job_with_its_links() -> None:
    told = json.loads(PAYLOADS.of(claimed()))

    assert (told["type"], told["data"]["status"], told["data"]["prompt"]) == ("job.started", "running", "as a mosaic")
    assert told["data"]["result_url"].startswith("https://sfumato.example/api/jobs/")


def test_body_is_small_however_long_the_prompts_are() -> None:
    params = make_params(prompt="\N{GRINNING FACE}" * 4000, negative_prompt="\N{GRINNING FACE}" * 4000)
    body = PAYLOADS.of(claimed(params=params, metadata={"x": "\N{GRINNING FACE}" * 250}))

    assert len(body) <= PAYLOAD_BYTES
    assert json.loads(body)["cut"] == ["prompt", "negative_prompt"]


def test_body_of_a_job_that_came_as_a_prediction_is_one() -> None:
    told = json.loads(PAYLOADS.of(claimed(protocol="replicate")))

    assert (told["status"], told["model"], told["input"]["prompt"]) == ("processing", "sfumato/restyle", "as a mosaic")
    assert told["urls"]["get"] == f"https://sfumato.example/v1/predictions/{told['id']}"
    assert told["version"] == "the version of restyle"


def test_an_endpoint_is_told_of_all_jobs_in_one_shape() -> None:
    mine = claimed(protocol="replicate")
    delivery = dataclasses.replace(mine.delivery, endpoint="ep_1")

    assert json.loads(PAYLOADS.of(dataclasses.replace(mine, delivery=delivery)))["type"] == "job.started"


def test_body_of_a_prediction_is_small_however_long_the_prompts_are() -> None:
    params = make_params(prompt="\N{GRINNING FACE}" * 4000, negative_prompt="\N{GRINNING FACE}" * 4000)
    body = PAYLOADS.of(claimed(params=params, protocol="replicate", metadata={"x": "\N{GRINNING FACE}" * 250}))

    assert len(body) <= PAYLOAD_BYTES
    assert json.loads(body)["cut"] == ["prompt", "negative_prompt"]


def test_every_secret_signs() -> None:
    import time

    secrets = [new_webhook_secret(), new_webhook_secret()]
    body = b'{"type":"job.started"}'
    headers = signed("msg_1", time.time(), body, secrets)

    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == {"type": "job.started"}


def due(owner: str, count: int) -> list[Due]:
    return [Due(f"{owner}{n}", f"h{n}.{owner}", owner, 0) for n in range(count)]


def test_an_owner_alone_gets_half_of_the_places() -> None:
    assert len(shared_out(due("one", 100), Room(64, 64, 4))) == 32


def test_however_many_owners_hang_the_next_one_finds_a_place() -> None:
    room = Room(64, 64, 4)
    for number in range(5):
        taken = shared_out(due(f"o{number}", 100), room)
        room = Room(room.free - len(taken), 64, 4, owners={**room.owners, f"o{number}": len(taken)})
    assert shared_out(due("late", 100), room)


def test_a_host_and_those_that_failed_before_get_their_share() -> None:
    mixed = [Due(f"d{n}", "host", "one", n % 2) for n in range(20)]
    assert shared_out(mixed, Room(64, 1, 4, {"host": 1})) == ["d0", "d1", "d2"]


class Troubled:
    """An outbox with one delivery, which first fails to say so."""

    def __init__(self) -> None:
        self.settled: asyncio.Queue[Attempt] = asyncio.Queue()
        self.calls = 0

    async def claim(self, room: Room, lease_s: float) -> Sequence[Claimed]:
        del room, lease_s
        self.calls += 1
        if self.calls == 1:
            raise ValueError("this row can't be read")
        return [claimed(webhook_url="https://receiver.example/")] if self.calls == 2 else []

    async def settle(self, given: Claimed, attempt: Attempt) -> None:
        del given
        self.settled.put_nowait(attempt)

    async def pending(self) -> Pending:
        return Pending(0, 0.0, 0.0)


def test_what_nobody_foresaw_ends_neither_the_sender_nor_comes_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.recorder.webhooks.TROUBLE_S", 0.0)

    async def run() -> Attempt:
        sending = asyncio.create_task(Sender(outbox, Fetcher(Allowed()), PAYLOADS, ["whsec_x"]).run())
        async with asyncio.timeout(10):
            attempt = await outbox.settled.get()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return attempt

    outbox = Troubled()
    attempt = asyncio.run(run())
    assert (attempt.delivered, attempt.wait_s is None) == (False, False)
    assert "log" in attempt.error
