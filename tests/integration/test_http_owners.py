"""Many owners on one gateway: each sees and changes the own jobs, links show theirs, admins see all."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import State
from sfumato.core.webhooks import owners_secret
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.sample_pictures import picture

UNKNOWN = "00000000-0000-7000-8000-00000000abcd"
ROUTES = [
    ("GET", ""),
    ("GET", "/input"),
    ("GET", "/result"),
    ("HEAD", "/result"),
    ("GET", "/events"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway that needs keys."""
    with gateway_service(tmp_path, auth="keys") as gateway:
        yield gateway


@pytest.mark.parametrize(("method", "rest"), ROUTES)
@pytest.mark.parametrize("stage", ["accepted", "recorded", "ended", "recorded and ended"])
def test_another_owners_job_is_answered_like_an_unknown_id(
    service: GatewayService, stage: str, method: str, rest: str
) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    job_id = service.accepted(headers=alice)["id"]
    service.app.state.gateway.live.forget(job_id)  # as on a gateway that did not accept it
    if "recorded" in stage:
        service.record()
    if "ended" in stage:
        service.end(job_id)
    before = dict(service.world.blobs)

    others = service.client.request(method, f"/api/jobs/{job_id}{rest}", headers=bob)
    unknown = service.client.request(method, f"/api/jobs/{UNKNOWN}{rest}", headers=bob)

    assert others.status_code == unknown.status_code == 404
    assert others.content == unknown.content
    assert others.headers.keys() == unknown.headers.keys()
    assert service.world.blobs == before
    assert ("ended" in stage) == (job_id in service.world.outcomes)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_owner_sees_and_changes_the_job(service: GatewayService, recorded: bool) -> None:
    alice = service.key("alice")
    job_id = service.accepted(headers=alice)["id"]
    service.app.state.gateway.live.forget(job_id)
    if recorded:
        service.record()
    assert service.client.get(f"/api/jobs/{job_id}", headers=alice).json()["id"] == job_id
    assert service.client.get(f"/api/jobs/{job_id}/result", headers=alice).status_code == 202
    assert service.client.post(f"/api/jobs/{job_id}/cancel", headers=alice).json()["status"] == "canceled"
    problem(service.client.get(f"/api/jobs/{job_id}/result", headers=alice), 410, "job-canceled")


@pytest.mark.parametrize("who", ["nobody", "bob"])
def test_a_link_shows_the_job_and_changes_nothing(service: GatewayService, who: str) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    headers = bob if who == "bob" else {}
    links = service.accepted(headers=alice)
    service.record()
    token = links["status_url"].partition("?")[2]
    service.end(links["id"])

    assert service.client.get(links["status_url"], headers=headers).json()["status"] == "succeeded"
    assert service.client.get(links["result_url"], headers=headers).content == b"the picture"
    assert service.client.head(links["result_url"], headers=headers).status_code == 200
    assert "event: final" in service.client.get(links["events_url"], headers=headers).text
    for method, rest in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        answer = service.client.request(method, f"/api/jobs/{links['id']}{rest}?{token}", headers=headers)
        assert answer.status_code == (404 if who == "bob" else 401), answer.text
    assert service.client.get(links["result_url"]).content == b"the picture"


def test_an_expired_link_shows_the_job_to_its_owner_alone(service: GatewayService) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    job_id = service.accepted(headers=alice)["id"]
    service.record()
    expired = service.app.state.gateway.links.token("job", job_id, time.time() - 1)
    for token in (expired, "nonsense"):
        for rest in ("", "/result", "/events"):
            address = f"/api/jobs/{job_id}{rest}?token={token}"
            problem(service.client.get(address), 404, "not-found")
            problem(service.client.get(address, headers=bob), 404, "not-found")
    assert service.client.get(f"/api/jobs/{job_id}?token={expired}", headers=alice).status_code == 200
    assert service.client.get(f"/api/jobs/{job_id}/result?token={expired}", headers=alice).status_code == 202


def test_a_bad_key_is_refused_also_beside_a_good_link(service: GatewayService) -> None:
    link = service.accepted(headers=service.key())["status_url"]
    problem(service.client.get(link, headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")


def test_lists_show_the_owners_jobs_and_admins_all(service: GatewayService) -> None:
    alice, bob, boss = service.key("alice"), service.key("bob"), service.key("boss", "admin")
    made = {name: service.accepted(headers=key)["id"] for name, key in (("alice", alice), ("bob", bob))}
    service.record()

    def listed(key: dict[str, str], **query: str) -> list[tuple[str, Any]]:
        jobs = service.client.get("/api/jobs", headers=key, params=query).json()["jobs"]
        return [(job["id"], job.get("owner")) for job in jobs]

    assert listed(alice) == [(made["alice"], None)]
    assert listed(alice, owner="alice") == [(made["alice"], None)]
    assert sorted(listed(boss)) == sorted((job_id, owner) for owner, job_id in made.items())
    assert listed(boss, owner="bob") == [(made["bob"], "bob")]
    answer = service.client.get("/api/jobs", headers=alice, params={"owner": "bob"})
    assert "admin" in problem(answer, 403, "forbidden")["detail"]


def test_a_cursor_of_another_owner_shows_only_the_own_jobs(service: GatewayService) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    mine = service.accepted(headers=bob)["id"]
    for _ in range(3):
        service.accepted(headers=alice)
    service.record()
    cursor = service.client.get("/api/jobs?limit=1", headers=alice).json()["next"]
    jobs = service.client.get("/api/jobs", headers=bob, params={"cursor": cursor}).json()["jobs"]
    assert [job["id"] for job in jobs] == [mine]


def test_admins_see_and_change_every_job(service: GatewayService) -> None:
    boss = service.key("boss", "admin")
    job_id = service.accepted(headers=service.key("alice"))["id"]
    service.record()
    assert service.client.get(f"/api/jobs/{job_id}", headers=boss).json()["owner"] == "alice"
    assert service.client.post(f"/api/jobs/{job_id}/cancel", headers=boss).status_code == 200


def test_another_owners_upload_is_not_there(service: GatewayService) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    upload = service.client.post("/api/uploads", headers=alice).json()
    assert service.client.put(upload["put_url"], content=picture()).status_code == 200  # by its link, without a key
    asked = {"model_name": MODEL, "image": upload["id"]}
    never = service.client.post("/api/uploads", headers=bob).json()["id"]

    others = service.client.post("/api/jobs", json=asked, headers=bob)
    unknown = service.client.post("/api/jobs", json=asked | {"image": never}, headers=bob)

    problem(others, 404, "not-found")
    assert others.content == unknown.content
    assert service.client.post("/api/jobs", json=asked, headers=alice).status_code == 202
    problem(service.client.put(f"/api/uploads/{upload['id']}", content=picture()), 401, "unauthorized")
    problem(service.client.put(f"/api/uploads/{upload['id']}?token=1.x", content=picture()), 404, "not-found")


def test_the_same_idempotency_key_of_two_owners_is_two_jobs(service: GatewayService) -> None:
    alice, second, bob = service.key("alice"), service.key("alice"), service.key("bob")
    key = {"Idempotency-Key": "one"}
    first = service.accepted(headers=alice | key)["id"]
    assert service.accepted(headers=bob | key, prompt="something else")["id"] != first
    assert service.accepted(headers=second | key)["id"] == first
    problem(service.submit(headers=second | key, prompt="something else"), 422, "idempotency-mismatch")


def test_an_admins_retry_is_the_admins_job(service: GatewayService) -> None:
    boss = service.key("boss", "admin")
    hook = "https://alice.example.com/"
    job_id = service.accepted(headers=service.key("alice"), webhook_url=hook)["id"]
    service.record()
    service.client.post(f"/api/jobs/{job_id}/cancel", headers=boss)
    again = service.client.post(f"/api/jobs/{job_id}/retry", headers=boss | {"Idempotency-Key": "k"})
    assert again.status_code == 202
    told = {job.id: (job.owner, job.webhook_url) for job in service.published()}
    assert told == {job_id: ("alice", hook), again.json()["id"]: ("boss", "")}


def test_a_stream_that_began_goes_on_when_its_key_is_revoked(service: GatewayService) -> None:
    alice = service.key("alice")
    job_id = service.accepted(headers=alice)["id"]
    service.record()
    service.end_soon(job_id)

    def revoke() -> None:
        for prefix, key in service.keys.kept.items():
            service.keys.kept[prefix] = dataclasses.replace(key, revoked_at=time.time())
        service.read_keys()

    threading.Timer(0.1, revoke).start()
    told = service.client.get(f"/api/jobs/{job_id}/events", headers=alice)

    assert told.status_code == 200
    assert "event: final" in told.text
    problem(service.client.get(f"/api/jobs/{job_id}/events", headers=alice), 401, "unauthorized")


def test_jobs_from_before_there_were_keys_are_locals(service: GatewayService) -> None:
    local, alice = service.key("local"), service.key("alice")
    answer = service.accepted(headers=local)
    assert not any("/inputs" in key and key.count("/") > 2 for key in service.world.blobs)
    service.app.state.gateway.live.forget(answer["id"])
    assert service.client.get(f"/api/jobs/{answer['id']}", headers=local).status_code == 200
    problem(service.client.get(f"/api/jobs/{answer['id']}", headers=alice), 404, "not-found")
    service.end(answer["id"], State.SUCCEEDED)
    problem(service.client.get(f"/api/jobs/{answer['id']}/result", headers=alice), 404, "not-found")


def test_another_owners_webhooks_are_not_there(service: GatewayService) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    endpoints = "/api/webhooks/endpoints"
    added = service.client.post(endpoints, json={"url": "https://receiver.example.com/"}, headers=alice)
    assert added.status_code == 201, added.text
    identity = added.json()["id"]

    assert service.client.get(endpoints, headers=bob).json() == {"endpoints": []}
    problem(service.client.delete(f"{endpoints}/{identity}", headers=bob), 404, "not-found")
    problem(service.client.post(f"{endpoints}/{identity}/rotate", headers=bob), 404, "not-found")
    problem(service.client.get(endpoints), 401, "unauthorized")

    assert [each["id"] for each in service.client.get(endpoints, headers=alice).json()["endpoints"]] == [identity]


def test_key_that_may_only_read_adds_no_webhook(service: GatewayService) -> None:
    reader = service.key("alice", "read")
    answer = service.client.post(
        "/api/webhooks/endpoints", json={"url": "https://receiver.example.com/"}, headers=reader
    )
    problem(answer, 403, "forbidden")


def test_each_owner_has_another_secret_for_single_jobs(service: GatewayService) -> None:
    def secrets(*key: str) -> Any:
        answer = service.client.post("/api/webhooks/secrets", headers=service.key(*key))
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()["secrets"]

    kept = service.app.state.gateway.webhook_secrets
    assert secrets("alice") == secrets("alice") == [owners_secret(kept[0], "alice")]
    assert secrets("alice") != secrets("bob")
    for key in (("local",), ("alice", "read")):
        answer = service.client.post("/api/webhooks/secrets", headers=service.key(*key))
        problem(answer, 403, "forbidden")
        assert kept[0] not in answer.text


def test_where_no_key_is_needed_nobody_is_told_the_secret(tmp_path: Path) -> None:
    with gateway_service(tmp_path) as service:
        problem(service.client.post("/api/webhooks/secrets"), 403, "forbidden")
