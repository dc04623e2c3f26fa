"""The gateway's routes about webhooks: what may be asked for, what is shown, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from sfumato.core.webhooks import Delivery, DeliveryState, Hook
from tests.integration.gateway_service import GatewayService, gateway_service, problem
from tests.support import NOW, job_id

URL = "https://receiver.example.com/hook"
ENDPOINTS = "/api/webhooks/endpoints"
DELIVERIES = "/api/webhooks/deliveries"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, webhook_allow="10.0.0.0/8") as service:
        yield service


def test_webhook_travels_with_the_job_and_the_address_it_was_submitted_at(service: GatewayService) -> None:
    service.accepted(webhook_url=URL, webhook_events="failed, succeeded,failed")

    (job,) = service.published()
    assert (job.webhook_url, job.webhook_events) == (URL, ("failed", "succeeded"))
    assert job.link_base == "http://testserver"


def test_host_that_no_name_is_as_long_as_is_kept_with_no_job(service: GatewayService) -> None:
    links = service.accepted(webhook_url=URL, headers={"Host": "x" * 30_000})

    assert len(service.published()[0].link_base) < 100
    assert len(links["status_url"]) < 300


def test_retry_tells_the_same_address(service: GatewayService) -> None:
    answer = service.accepted(webhook_url=URL, webhook_events="failed")
    service.end(answer["id"])
    service.record()
    response = service.client.post(f"/api/jobs/{answer['id']}/retry")

    assert response.status_code == 202, response.text
    assert [(job.webhook_url, job.webhook_events) for job in service.published()] == [(URL, ("failed",))] * 2


def test_another_webhook_under_the_same_key_is_another_request(service: GatewayService) -> None:
    key = {"Idempotency-Key": "k"}
    service.accepted(webhook_url=URL, headers=key)
    service.accepted(webhook_url=URL, headers=key)

    problem(service.submit(headers=key), 422, "idempotency-mismatch")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://[::1]/", "http://0x7f.1/", "http://localhost:9/", "x"])
def test_address_that_leads_inside_is_refused_wherever_it_is_given(service: GatewayService, url: str) -> None:
    problem(service.submit(webhook_url=url), 422, "bad-webhook")
    json_body = {"model_name": "quick", "image": "data:image/png;base64,AA==", "webhook_url": url}
    problem(service.client.post("/api/jobs", json=json_body), 422, "bad-webhook")
    refused = problem(service.client.post(ENDPOINTS, json={"url": url}), 422, "bad-webhook")

    assert "SFUMATO_WEBHOOK_ALLOW" in refused["detail"]
    assert service.published() == []
    assert service.client.get(ENDPOINTS).json() == {"endpoints": []}


def test_address_that_is_allowed_is_taken(service: GatewayService) -> None:
    service.accepted(webhook_url="http://10.1.2.3:8080/")


def test_events_that_do_not_exist_or_lead_nowhere_are_refused(service: GatewayService) -> None:
    refused = problem(service.submit(webhook_url=URL, webhook_events="done"), 422, "invalid-parameters")
    assert "started, succeeded, failed, canceled, retried" in refused["detail"]
    problem(service.submit(webhook_events="failed"), 422, "bad-webhook")
    problem(service.client.post(ENDPOINTS, json={"url": URL, "events": ["done"]}), 422, "invalid-parameters")
    problem(service.client.post(ENDPOINTS, json={"url": ""}), 422, "bad-webhook")
    problem(service.client.post(ENDPOINTS, json={"url": URL, "secret": "x"}), 422, "unknown-parameter")
    problem(service.client.post(ENDPOINTS, content=b"x"), 400, "bad-json")


def test_endpoint_shows_its_secret_once(service: GatewayService) -> None:
    made = service.client.post(ENDPOINTS, json={"url": URL, "events": ["failed", "failed"]})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    assert Webhook(made.json()["secret"])
    assert made.json()["events"] == ["failed"]

    (shown,) = service.client.get(ENDPOINTS).json()["endpoints"]
    assert shown.keys() == made.json().keys() - {"secret"}
    rotated = service.client.post(f"{ENDPOINTS}/{shown['id']}/rotate").json()
    assert rotated["secret"] not in ("", made.json()["secret"])
    assert rotated["overlap_s"] == 86_400
    assert service.client.delete(f"{ENDPOINTS}/{shown['id']}").status_code == 204
    problem(service.client.delete(f"{ENDPOINTS}/{shown['id']}"), 404, "not-found")
    problem(service.client.post(f"{ENDPOINTS}/{shown['id']}/rotate"), 404, "not-found")


def test_endpoints_are_few(service: GatewayService) -> None:
    for _ in range(20):
        assert service.client.post(ENDPOINTS, json={"url": URL}).status_code == 201
    problem(service.client.post(ENDPOINTS, json={"url": URL}), 422, "bad-webhook")


def test_deliveries_are_shown_and_sent_again(service: GatewayService) -> None:
    state, error = DeliveryState.GIVEN_UP, "It answered 500."
    delivery = Delivery("msg_1", job_id(1), Hook.FAILED, "job", URL, NOW, state, 10, None, 500, error)
    service.webhooks.kept.append(delivery)

    (shown,) = service.client.get(DELIVERIES, params={"job_id": job_id(1), "state": "given_up"}).json()["deliveries"]
    assert (shown["id"], shown["attempts"], shown["last_status"], shown["last_error"]) == ("msg_1", 10, 500, error)
    again = service.client.post(f"{DELIVERIES}/msg_1/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    problem(service.client.post(f"{DELIVERIES}/msg_%00/redeliver"), 404, "not-found")
    problem(service.client.get(DELIVERIES, params={"state": "lost"}), 422, "invalid-parameters")
    problem(service.client.get(DELIVERIES, params={"limit": 0}), 422, "invalid-parameters")


def test_while_the_rows_are_away_routes_say_so_and_jobs_are_taken(service: GatewayService) -> None:
    service.faults.failing |= {"endpoints", "deliveries", "redeliver"}

    problem(service.client.get(ENDPOINTS), 503, "try-again")
    problem(service.client.get(DELIVERIES), 503, "try-again")
    service.accepted(webhook_url=URL)
