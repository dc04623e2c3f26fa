"""What is sent, signed by what, and when it is tried again."""

import json

from standardwebhooks import Webhook

from sfumato.core.events import Started, advance, new_row
from sfumato.core.links import Links
from sfumato.core.webhooks import WAITS_S, Claimed, Delivery, DeliveryState, Hook, delivery_id, hook_of, wait_after
from sfumato.recorder.webhooks import PAYLOAD_BYTES, Payloads, signed
from sfumato.storage.secrets import new_webhook_secret
from tests.support import NOW, make_job, make_params

PAYLOADS = Payloads(Links([b"secret"]), "", 1000.0)


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


def test_every_secret_signs() -> None:
    import time

    secrets = [new_webhook_secret(), new_webhook_secret()]
    body = b'{"type":"job.started"}'
    headers = signed("msg_1", time.time(), body, secrets)

    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == {"type": "job.started"}
