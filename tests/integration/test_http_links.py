"""Bytes that go past the gateway: uploads put into the store itself, results served by it after a redirect."""

import asyncio
import dataclasses
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sfumato.core.job import State
from sfumato.storage.s3 import S3Blobs
from sfumato.storage.s3_place import S3Place
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.s3_servers import S3_SERVERS, s3_bucket
from tests.sample_pictures import picture
from tests.simulation.memory import MemoryBlobs

STORE = "https://store.example"
REDIRECT: dict[str, Any] = {"result_delivery": "redirect", "s3_bucket": "b", "s3_public_url": STORE}


class LinkedBlobs(MemoryBlobs):
    """A store that gives links, and does not serve them."""

    async def get_link(self, key: str, lifetime_s: float) -> str | None:
        return f"{STORE}/b/{key}?expires={lifetime_s:g}"

    async def put_link(self, key: str, lifetime_s: float) -> str | None:
        return f"{STORE}/b/{key}?put&expires={lifetime_s:g}"


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway whose store gives links, told to redirect."""
    with gateway_service(tmp_path, blobs=LinkedBlobs, **REDIRECT) as service:
        yield service


def ended(service: GatewayService, state: State = State.SUCCEEDED) -> str:
    """The access link of a job that has ended."""
    answer = service.accepted()
    service.end(answer["id"], state)
    return str(answer["result_url"])


def result(service: GatewayService, link: str, method: str = "GET", **headers: str) -> Any:
    return service.client.request(method, link, headers=headers, follow_redirects=False)


def test_access_link_leads_to_the_store_for_a_minute(linked: GatewayService) -> None:
    answer = result(linked, ended(linked))

    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{STORE}/b/outputs/")
    assert answer.headers["location"].endswith("?expires=60")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == b""


def test_head_of_the_access_link_is_answered_here(linked: GatewayService) -> None:
    answer = result(linked, ended(linked), "HEAD")

    assert (answer.status_code, answer.headers["content-type"], answer.headers["content-length"]) == (
        200,
        "image/png",
        "11",
    )


def test_who_has_the_picture_is_not_sent_for_it_again(linked: GatewayService) -> None:
    link = ended(linked)
    etag = result(linked, link).headers["etag"]

    assert result(linked, link, **{"If-None-Match": etag}).status_code == 304


def test_no_redirect_leads_to_nothing(linked: GatewayService) -> None:
    waiting = linked.accepted()
    deleted = ended(linked)
    for key in [key for key in linked.world.blobs if key.startswith("outputs/")]:
        del linked.world.blobs[key]

    assert result(linked, waiting["result_url"]).status_code == 202
    problem(result(linked, deleted), 410, "picture-gone")
    problem(result(linked, ended(linked, State.FAILED)), 410, "job-failed")


def test_proxied_results_are_served_here_though_the_store_has_links(tmp_path: Path) -> None:
    with gateway_service(tmp_path, blobs=LinkedBlobs) as service:
        answer = result(service, ended(service))
        assert (answer.status_code, answer.content) == (200, b"the picture")


def test_store_without_links_is_served_here_though_told_to_redirect(tmp_path: Path) -> None:
    with gateway_service(tmp_path, **REDIRECT) as service:
        answer = result(service, ended(service))
        assert (answer.status_code, answer.content) == (200, b"the picture")


def test_upload_is_put_where_the_store_says(linked: GatewayService) -> None:
    upload = linked.client.post("/api/uploads").json()

    assert upload["put_url"] == f"{STORE}/b/uploads/{upload['id']}?put&expires=3600"


def test_upload_that_the_store_took_too_large_is_refused_unread(tmp_path: Path) -> None:
    class Unread(LinkedBlobs):
        async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
            raise AssertionError("it was read before its size was known to be good")

    with gateway_service(tmp_path, blobs=Unread) as service:
        upload = service.client.post("/api/uploads").json()
        service.world.blobs[f"uploads/{upload['id']}"] = (bytes(300_000), 0.0)

        answer = service.client.post("/api/jobs", json={"model_name": MODEL, "image": upload["id"]})

        problem(answer, 413, "body-too-large")


# With a real store


@pytest.fixture(params=S3_SERVERS)
def place(request: pytest.FixtureRequest) -> S3Place:
    bucket = s3_bucket(request)
    return dataclasses.replace(bucket, public_url=bucket.endpoint)


@pytest.fixture
def real(place: S3Place, tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway over a real bucket, told to redirect."""
    told: dict[str, Any] = {"result_delivery": "redirect", "s3_bucket": place.bucket, "s3_public_url": place.public_url}
    with gateway_service(tmp_path, blobs=lambda _: S3Blobs(place), **told) as service:
        yield service


def put(url: str, data: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=5) as answer:
        assert answer.status == 200


def stored(place: S3Place, key: str) -> bytes:
    return asyncio.run(S3Blobs(place).get(key))


def test_picture_goes_into_the_store_and_out_of_it_past_the_gateway(real: GatewayService, place: S3Place) -> None:
    upload = real.client.post("/api/uploads").json()
    put(upload["put_url"], picture("WEBP"))
    accepted = real.client.post("/api/jobs", json={"model_name": MODEL, "image": upload["id"]})
    assert accepted.status_code == 202, accepted.text
    put(upload["put_url"], b"swapped after it was taken")
    (job,) = real.published()
    assert stored(place, job.input.key) == picture("WEBP")

    outcome = real.end(job.id)
    assert outcome.picture is not None
    asyncio.run(S3Blobs(place).put(outcome.picture.key, b"the picture"))
    answer = result(real, accepted.json()["result_url"])
    assert answer.status_code == 302
    with urllib.request.urlopen(answer.headers["location"], timeout=5) as served:
        assert (served.read(), served.headers["Content-Type"]) == (b"the picture", "image/png")


def test_what_is_no_picture_is_refused_when_it_is_submitted(real: GatewayService) -> None:
    upload = real.client.post("/api/uploads").json()
    asked = {"model_name": MODEL, "image": upload["id"]}

    problem(real.client.post("/api/jobs", json=asked), 404, "not-found")
    put(upload["put_url"], b"no picture")
    problem(real.client.post("/api/jobs", json=asked), 415, "unsupported-picture")
    put(upload["put_url"], b"")
    problem(real.client.post("/api/jobs", json=asked), 415, "unsupported-picture")
    put(upload["put_url"], bytes(300_000))
    problem(real.client.post("/api/jobs", json=asked), 413, "body-too-large")


def test_deleted_job_is_gone_from_the_store(real: GatewayService, place: S3Place) -> None:
    accepted: httpx.Response = real.submit()
    (job,) = real.published()
    real.record()
    outcome = real.end(job.id)
    assert outcome.picture is not None
    asyncio.run(S3Blobs(place).put(outcome.picture.key, b"the picture"))

    assert real.client.delete(f"/api/jobs/{job.id}").status_code == 204

    problem(result(real, accepted.json()["result_url"]), 410, "picture-gone")
