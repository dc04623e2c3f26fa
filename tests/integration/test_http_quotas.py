"""A key's limits at the gateway: what is refused, how, and that it costs next to nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request

from sfumato.core.events import Ended, advance, new_row
from sfumato.core.keys import Quota
from sfumato.gateway.submit import SubmitRoutes
from sfumato.gateway.uploads import Form
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.metrics import value
from tests.sample_pictures import picture
from tests.support import job_id, make_job


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway that needs keys."""
    with gateway_service(tmp_path, auth="keys") as gateway:
        yield gateway


def test_requests_over_the_rate_are_refused_with_the_fields_of_the_draft(service: GatewayService) -> None:
    alice, other = service.key(quota=Quota(rate=3)), service.key(quota=Quota(rate=3))
    answers = [service.client.get("/api/models", headers=alice) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert problem(answers[3], 429, "rate-exceeded")["violated_policies"] == ["requests"]
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].headers["ratelimit-policy"] == '"requests";q=3;w=1'
    assert answers[3].headers["ratelimit"] == '"requests";r=0;t=1'
    assert service.client.get("/api/models", headers=other).status_code == 200


def test_jobs_in_flight_are_limited_until_one_ends(service: GatewayService) -> None:
    alice = service.key(quota=Quota(in_flight=2))
    first = service.accepted(headers=alice)["id"]
    service.accepted(headers=alice)
    refused = service.submit(headers=alice)
    assert problem(refused, 429, "quota-exceeded")["violated_policies"] == ["jobs-in-flight"]
    assert refused.headers["ratelimit-policy"] == '"jobs-in-flight";q=2'
    service.record()
    assert service.client.post(f"/api/jobs/{first}/cancel", headers=alice).status_code == 200
    ended = Ended(job_id=first, at=0.0, attempt=0, delivery=0, outcome=service.world.outcomes[first])
    service.world.rows[first] = advance(service.world.rows[first], ended, 9)  # the recorder's work
    service.app.state.gateway.quotas._owners["alice"].read_at = float("-inf")
    service.accepted(headers=alice)


def test_refusals_are_counted_by_what_was_used_up(service: GatewayService) -> None:
    def counted(policy: str) -> float:
        return value(service.client.get("/metrics").text, f'sfumato_quota_refusals_total{{policy="{policy}"}}') or 0.0

    before = {policy: counted(policy) for policy in ("requests", "jobs-in-flight", "pixel-steps")}
    for quota in (Quota(rate=0.1), Quota(in_flight=1), Quota(per_day=2**23)):
        key = service.key(str(quota.rate or quota.in_flight or "day"), quota=quota)
        while service.submit(headers=key, num_inference_steps=50, strength=1.0).status_code == 202:
            pass
    assert {policy: counted(policy) for policy in before} == {policy: count + 1 for policy, count in before.items()}


def test_what_other_gateways_took_while_a_slow_body_came_is_counted(
    service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, receive = service.key(quota=Quota(in_flight=1)), SubmitRoutes._receive

    async def slowly(routes: SubmitRoutes, request: Request) -> Form:
        service.world.rows[job_id(1)] = new_row(make_job(1, owner="alice"))
        service.app.state.gateway.quotas._owners["alice"].read_at -= 60.0
        return await receive(routes, request)

    monkeypatch.setattr(SubmitRoutes, "_receive", slowly)
    problem(service.submit(headers=alice), 429, "quota-exceeded")
    assert service.published() == []


def test_every_way_to_submit_is_limited(service: GatewayService) -> None:
    alice = service.key(quota=Quota(in_flight=1))
    service.accepted(headers=alice)
    service.record()
    job_id = service.published()[0].id
    upload = service.client.post("/api/uploads", headers=alice).json()["id"]
    asked = {"model_name": MODEL, "image": upload}
    problem(service.client.post("/api/jobs", json=asked, headers=alice), 429, "quota-exceeded")
    problem(service.client.post(f"/api/jobs/{job_id}/retry", headers=alice), 429, "quota-exceeded")


def test_pixels_and_steps_of_a_day_are_limited(service: GatewayService) -> None:
    service.accepted(headers=service.key("bob"))
    cost = service.published()[0].cost
    alice = service.key(quota=Quota(per_day=2 * cost + 1))
    service.accepted(headers=alice)
    service.accepted(headers=alice)
    refused = service.submit(headers=alice)
    body = problem(refused, 429, "quota-exceeded")
    assert body["detail"].startswith("1 pixels × steps of ")
    assert refused.headers["ratelimit"].startswith('"pixel-steps";r=1;t=')
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


def test_owners_do_not_share_limits_and_keys_of_an_owner_do(service: GatewayService) -> None:
    one, two = service.key("alice", quota=Quota(in_flight=1)), service.key("alice", quota=Quota(in_flight=1))
    service.accepted(headers=one)
    problem(service.submit(headers=two), 429, "quota-exceeded")
    service.accepted(headers=service.key("bob", quota=Quota(in_flight=1)))


def test_while_the_rows_are_away_what_was_accepted_here_still_counts(service: GatewayService) -> None:
    service.faults.failing |= {"usage", "row"}
    alice = service.key(quota=Quota(in_flight=2))
    service.accepted(headers=alice)
    service.accepted(headers=alice)
    problem(service.submit(headers=alice), 429, "quota-exceeded")


@pytest.mark.parametrize("recorded", [False, True])
def test_the_same_request_again_is_not_another_job(service: GatewayService, recorded: bool) -> None:
    alice = service.key(quota=Quota(in_flight=1)) | {"Idempotency-Key": "one"}
    first = service.accepted(headers=alice)["id"]
    if recorded:
        service.record()
        service.app.state.gateway.quotas._owners["alice"].read_at = float("-inf")
    assert {service.accepted(headers=alice)["id"] for _ in range(5)} == {first}
    problem(service.submit(headers=alice | {"Idempotency-Key": "two"}), 429, "quota-exceeded")


@pytest.mark.parametrize("recorded", [False, True])
def test_a_hundred_submits_at_once_never_pass_the_limit(tmp_path: Path, recorded: bool) -> None:
    with gateway_service(tmp_path, auth="keys") as service:
        alice = service.key(quota=Quota(in_flight=7))
        if recorded:
            service.accepted(headers=alice)
            service.record()

        async def at_once() -> list[int]:
            transport = httpx.ASGITransport(app=service.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                async def one() -> int:
                    files = {"image": ("p.png", picture(), "image/png")}
                    query = {"model_name": MODEL, "prompt": "x"}
                    answer = await client.post("/api/diffusion", params=query, files=files, headers=alice)
                    return answer.status_code

                return await asyncio.gather(*(one() for _ in range(100)))

        assert service.client.portal is not None
        statuses = service.client.portal.call(at_once)
        assert statuses.count(202) == 7 - recorded
        assert statuses.count(429) == 93 + recorded
        assert len(service.published()) == 7


@pytest.mark.parametrize("quota", [Quota(rate=1), Quota(in_flight=1)])
def test_what_is_refused_is_not_read(service: GatewayService, quota: Quota) -> None:
    alice = service.key(quota=quota)
    service.accepted(headers=alice)
    answered_before: list[bool] = []

    async def ask() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            answered_before.append(any(message["type"] == "http.response.start" for message in sent))
            return {"type": "http.request", "body": b"x" * 10, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in alice.items()]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/diffusion",
            "query_string": b"model_name=quick",
            "headers": [*headers, (b"content-length", b"1000"), (b"content-type", b"image/png")],
        }
        await service.app(scope, receive, send)
        return sent

    assert service.client.portal is not None
    sent = service.client.portal.call(ask)
    assert sent[0]["status"] == 429
    assert answered_before in ([], [True])  # thrown away behind the answer
