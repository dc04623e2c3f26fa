"""Keys at the gateway: who comes in, who does not, and what is told of it."""

import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import Priority
from sfumato.core.keys import key_text
from sfumato.gateway.door import OPEN
from tests.integration.gateway_service import GatewayService, gateway_service, problem


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway that needs keys."""
    with gateway_service(tmp_path, auth="keys") as gateway:
        yield gateway


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def text_of(header: dict[str, str]) -> str:
    return header["Authorization"].removeprefix("Bearer ")


def prefix(header: dict[str, str]) -> str:
    return text_of(header).split("_")[1]


def test_a_good_key_comes_in_by_either_header(service: GatewayService) -> None:
    alice = service.key()
    service.accepted(headers=alice)
    assert service.client.get("/api/jobs", headers={"X-API-Key": text_of(alice)}).status_code == 200
    assert service.client.get("/api/jobs", headers={"authorization": f"bEaReR {text_of(alice)}"}).status_code == 200
    assert service.published()[0].owner == "alice"


def test_every_bad_key_gets_the_same_answer(service: GatewayService) -> None:
    alice, over, gone = service.key(), service.key(expires_at=time.time() - 1), service.key(revoked_at=time.time())
    text = text_of(alice)
    other = text[:-1] + ("A" if text[-1] != "A" else "E")
    shown: list[Any] = [
        {},
        bearer(key_text(os.urandom(37))),
        bearer(other),
        over,
        gone,
        bearer(""),
        bearer("x" * 10_000),
        bearer(f"{text} {text}"),
        bearer(f"{text}\t"[:-1] + "é".encode().decode("latin-1")),
        {"Authorization": "Basic YWxpY2U6c2VjcmV0"},
        {"Authorization": text},
        {"X-API-Key": f"Bearer {text}"},
        {"X-API-Key": text, **alice},
        [("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")],
        [("Authorization", f"Bearer {text}"), ("Authorization", "Basic YWxpY2U6c2VjcmV0")],
        [("X-API-Key", text), ("X-API-Key", text)],
        {"Cookie": f"api_key={text}"},
    ]
    answers = []
    for headers in shown:
        if isinstance(headers, dict):
            headers = [(name, value.encode("latin-1")) for name, value in headers.items()]  # noqa: PLW2901
        answers.append(service.client.get("/api/jobs", headers=headers))
    for answer in answers:
        problem(answer, 401, "unauthorized")
    assert {answer.content for answer in answers} == {answers[0].content}
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="sfumato"'}


def test_every_route_but_those_listed_needs_a_key(service: GatewayService) -> None:
    tried = 0
    for path, item in service.app.openapi()["paths"].items():
        for method in item:
            answer = service.client.request(method, re.sub(r"\{\w+\}", "x", path))
            assert (answer.status_code != 401) == (path in OPEN), (method, path, answer.text)
            tried += 1
    assert tried > 15
    for path in (
        "/static",
        "/index.html",
        "/api",
        "/api/jobs/",
        "//api/jobs",
        "/API/jobs",
        "/api/../api/jobs",
        "/nothing",
    ):
        problem(service.client.get(path), 401, "unauthorized")
    assert service.client.get("/docs").status_code == 200
    for path in ("/", "/static/app.js", "/static-offline-docs/swagger-ui.css"):
        assert service.client.get(path).status_code == 200


def test_the_hot_routes_need_a_key_before_the_body_is_looked_at(service: GatewayService) -> None:
    problem(service.submit(), 401, "unauthorized")
    problem(service.submit(image=b"no picture"), 401, "unauthorized")
    problem(service.client.post("/api/jobs", content=b"{"), 401, "unauthorized")
    assert service.world.blobs == {}


def test_a_key_does_only_what_its_scopes_say(service: GatewayService) -> None:
    reader, sender = service.key("alice", "read"), service.key("alice", "submit")
    refused = problem(service.submit(headers=reader), 403, "forbidden")
    assert "scope submit" in refused["detail"]
    job_id = service.accepted(headers=sender)["id"]
    service.record()
    assert "scope read" in problem(service.client.get("/api/jobs", headers=sender), 403, "forbidden")["detail"]
    assert service.client.get(f"/api/jobs/{job_id}", headers=reader).status_code == 200
    problem(service.client.post(f"/api/jobs/{job_id}/cancel", headers=reader), 403, "forbidden")
    problem(service.client.delete(f"/api/jobs/{job_id}", headers=reader), 403, "forbidden")
    assert service.client.get("/api/models", headers=reader).status_code == 200


def test_a_priority_over_the_keys_is_forbidden_and_the_default_gives_way(service: GatewayService) -> None:
    low = service.key("alice", max_priority=Priority.LOW)
    assert "low at most" in problem(service.submit(headers=low, priority="normal"), 403, "forbidden")["detail"]
    service.accepted(headers=low)
    service.accepted(headers=low, priority="low")
    assert [str(job.priority) for job in service.published()] == ["low", "low"]


def test_a_job_carries_the_weight_of_the_key_it_came_with(service: GatewayService) -> None:
    for headers in (service.key("alice", weight=3.0), service.key("bob")):
        service.accepted(headers=headers)
    assert [job.weight for job in service.published()] == [3.0, 1.0]


def test_a_revoked_key_is_refused_after_the_next_reading(service: GatewayService) -> None:
    alice = service.key()
    assert service.client.get("/api/jobs", headers=alice).status_code == 200
    assert service.client.portal is not None
    service.client.portal.call(service.keys.revoke, prefix(alice), time.time())
    service.read_keys()
    problem(service.client.get("/api/jobs", headers=alice), 401, "unauthorized")


def test_while_the_database_is_away_known_keys_go_on_and_unknown_ones_are_503(service: GatewayService) -> None:
    alice = service.key()
    service.faults.failing |= {"keys", "usage"}
    service.accepted(headers=alice)
    time_is_up = service.app.state.gateway.keyring
    time_is_up._asked_at = float("-inf")
    for _ in range(2):
        answer = service.client.get("/api/jobs", headers=bearer(key_text(os.urandom(37))))
        problem(answer, 503, "try-again")
        assert answer.headers["retry-after"] == "1"
    problem(service.client.get("/api/jobs"), 401, "unauthorized")


def test_a_new_key_works_at_once(service: GatewayService) -> None:
    alice = service.key()
    key = service.keys.kept.pop(prefix(alice))
    service.read_keys()
    service.app.state.gateway.keyring._asked_at = float("-inf")
    service.keys.kept[key.prefix] = key
    assert service.client.get("/api/jobs", headers=alice).status_code == 200


def test_a_key_in_the_address_is_refused_wherever_it_stands(service: GatewayService) -> None:
    alice = service.key()
    text = text_of(alice)
    for address in (
        f"/api/jobs?api_key={text}",
        f"/api/jobs?x={text.replace('_', '%5F')}",
        f"/api/jobs/{text}",
        f"/healthz?{text}",
    ):
        problem(service.client.get(address, headers=alice), 400, "key-in-address")
    problem(service.submit(headers=alice, prompt=f"my {text}"), 400, "key-in-address")
    service.accepted(headers=alice, prompt="the word sfu_mato")


def test_no_key_is_ever_logged(service: GatewayService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    alice = service.key()
    text, bad = text_of(alice), key_text(os.urandom(37))
    service.accepted(headers=alice)
    service.client.get("/api/jobs", headers=bearer(bad))
    service.client.get(f"/api/jobs/{text}?token={text}", headers=alice)
    service.faults.failing |= {"keys", "row"}
    service.app.state.gateway.keyring._asked_at = float("-inf")
    service.client.get("/api/jobs", headers=bearer(bad))
    service.client.get(f"/api/jobs/{'0' * 8}-0000-7000-8000-{'0' * 12}", headers=alice)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    assert ours
    assert [line for line in ours if text in line or bad in line or text[13:] in line] == []
    assert text not in str(vars(service.app.state.gateway.keyring))


# Where no key is needed


def test_on_loopback_all_is_open_until_there_is_a_key(tmp_path: Path) -> None:
    with gateway_service(tmp_path) as service:
        answer = service.accepted(headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"})
        assert service.client.get(f"/api/jobs/{answer['id']}").status_code == 200
        assert service.published()[0].owner == "local"

        boss = service.key("boss", "admin")

        problem(service.submit(), 401, "unauthorized")
        assert service.client.get(f"/api/jobs/{answer['id']}", headers=boss).status_code == 200
        assert service.client.get(answer["status_url"]).status_code == 200


def test_revoking_the_last_key_does_not_open_the_service(tmp_path: Path) -> None:
    with gateway_service(tmp_path) as service:
        service.key(revoked_at=1.0)
        problem(service.client.get("/api/jobs"), 401, "unauthorized")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.internal"])  # noqa: S104 - nothing listens
def test_beyond_loopback_a_key_is_needed_from_the_start(tmp_path: Path, host: str) -> None:
    with gateway_service(tmp_path, host=host) as service:
        problem(service.client.get("/api/jobs"), 401, "unauthorized")
        assert service.client.get("/healthz").status_code == 200


def test_told_to_be_open_it_is_open_to_everybody(tmp_path: Path) -> None:
    with gateway_service(tmp_path, host="192.0.2.1", auth="open") as service:
        service.key()
        service.accepted()
        service.accepted(headers=bearer(key_text(os.urandom(37))))
        assert {job.owner for job in service.published()} == {"local"}


def test_a_gateway_that_never_read_the_keys_opens_to_nobody(tmp_path: Path) -> None:
    with gateway_service(tmp_path) as service:
        keyring = service.app.state.gateway.keyring
        service.faults.failing.add("keys")
        keyring._keys, keyring._asked_at = None, float("-inf")
        problem(service.client.get("/api/jobs"), 503, "try-again")
        assert service.client.get("/healthz").status_code == 200


def test_the_openapi_document_says_where_a_key_goes(service: GatewayService) -> None:
    described = service.client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert {"key": []} in described["security"]
    unsecured = {
        path for path, item in described["paths"].items() if any(each.get("security") == [] for each in item.values())
    }
    assert unsecured == OPEN & described["paths"].keys()


@pytest.mark.parametrize(
    ("told", "foreign"),
    [
        ({}, False),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "http://testserver"}, False),
        ({"Origin": "https://pictures.example"}, False),
        ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}, False),
    ],
)
@pytest.mark.parametrize("auth", ["auto", "open"])
def test_a_page_of_another_site_changes_nothing_on_an_open_service(
    tmp_path: Path, auth: str, told: dict[str, str], foreign: bool
) -> None:
    with gateway_service(tmp_path, auth=auth, public_url="https://pictures.example") as service:
        if foreign:
            problem(service.submit(headers=told), 403, "foreign-page")
            added = service.client.post("/api/webhooks/endpoints", json={"url": "https://evil.example/"}, headers=told)
            problem(added, 403, "foreign-page")
            assert (service.webhooks.made, service.world.blobs) == ({}, {})
        else:
            service.accepted(headers=told)
        assert service.client.get("/api/jobs", headers=told).status_code == 200


def test_a_page_of_another_site_that_has_a_key_is_served(service: GatewayService) -> None:
    service.accepted(headers=service.key() | {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"})


def test_keys_that_nobody_can_read_are_our_fault_and_open_nothing(
    service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable() -> None:
        raise ValueError("'paint' is no scope")

    monkeypatch.setattr(service.keys, "keys", unreadable)
    service.app.state.gateway.keyring._keys = None
    service.app.state.gateway.keyring._asked_at = float("-inf")
    told = problem(service.client.get("/api/jobs", headers=bearer(key_text(os.urandom(37)))), 500, "internal-error")
    assert "paint" not in str(told)
