"""Submitting over HTTP: what is taken, what is refused, and that a refusal leaves nothing behind."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sfumato.core.job import State
from sfumato.models.registry import Model
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.sample_pictures import animated, giant_png, picture
from tests.support import job_id


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as running:
        yield running


def _nothing_left(service: GatewayService) -> bool:
    return not service.world.blobs and not any(topic.jobs for topic in service.world.topics.values())


def test_a_picture_is_stored_and_its_job_published_before_the_answer(service: GatewayService) -> None:
    response = service.submit(priority="high", strength=0.5, seed=3, metadata='{"mine": 1}')
    answer = response.json()
    (job,) = service.published()
    assert response.status_code == 202
    assert answer["status"] == "queued"
    assert response.headers["location"] == answer["status_url"]
    assert (job.id, job.priority, job.owner, job.metadata) == (answer["id"], "high", "local", {"mine": 1})
    assert (job.params.strength, job.params.seed) == (0.5, 3)
    assert job.expires_at - job.created_at == 86_400
    assert service.world.blobs[job.input.key][0] == picture()
    assert job.input.key.startswith(f"inputs/{job.id}/")
    assert (job.input.width, job.input.height, job.input.media_type) == (64, 48, "image/png")


def test_cost_is_pixels_times_steps_that_run(service: GatewayService) -> None:
    service.accepted(strength=0.5, num_inference_steps=10, width=64, height=128)
    assert service.published()[0].cost == 64 * 128 * 5


def test_parameters_may_stand_in_the_form(service: GatewayService) -> None:
    files = {"image": ("a.png", picture(), "image/png")}
    response = service.client.post("/api/diffusion", data={"model_name": MODEL, "seed": "5"}, files=files)
    assert response.status_code == 202, response.text
    assert service.published()[0].params.seed == 5


def test_query_and_form_may_not_contradict_each_other(service: GatewayService) -> None:
    files = {"image": ("a.png", picture(), "image/png")}
    query = {"model_name": MODEL, "seed": "6"}
    response = service.client.post("/api/diffusion", params=query, data={"seed": "5"}, files=files)
    problem(response, 422, "invalid-parameters")


def test_the_picture_may_be_the_body(service: GatewayService) -> None:
    response = service.client.post(
        "/api/diffusion",
        params={"model_name": MODEL},
        content=picture("JPEG"),
        headers={"Content-Type": "image/jpeg"},
    )
    assert response.status_code == 202, response.text
    assert service.published()[0].input.media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("query", "status", "slug"),
    [
        ({"strength": "nan"}, 422, "invalid-parameters"),
        ({"strength": "1e999"}, 422, "invalid-parameters"),
        ({"strength": "2"}, 422, "invalid-parameters"),
        ({"strength": "0.01", "num_inference_steps": "1"}, 422, "invalid-parameters"),
        ({"num_inference_steps": "100000"}, 422, "invalid-parameters"),
        ({"seed": "-1"}, 422, "invalid-parameters"),
        ({"seed": str(2**63)}, 422, "invalid-parameters"),
        ({"width": "64"}, 422, "invalid-parameters"),
        ({"width": "65", "height": "64"}, 422, "invalid-parameters"),
        ({"priority": "urgent"}, 422, "invalid-parameters"),
        ({"sampler": "magic"}, 422, "invalid-parameters"),
        ({"prompt": "x" * 10_000}, 422, "invalid-parameters"),
        ({"metadata": "no"}, 422, "invalid-parameters"),
        ({"steps": "5"}, 422, "unknown-parameter"),
    ],
)
def test_bad_parameters_leave_nothing(service: GatewayService, query: dict[str, Any], status: int, slug: str) -> None:
    problem(service.submit(**query), status, slug)
    assert _nothing_left(service)


@pytest.mark.parametrize(
    ("image", "status", "slug"),
    [
        (b"", 422, "missing-image"),
        (b"hello", 415, "unsupported-picture"),
        (picture("GIF"), 415, "unsupported-picture"),
        (picture("JPEG"), 415, "mislabeled-picture"),
        (giant_png(), 422, "too-many-pixels"),
        (animated("PNG"), 422, "animated-picture"),
        (picture() + bytes(300_000), 413, "body-too-large"),
        (picture() + bytes(1_000_000), 413, "body-too-large"),
    ],
    ids=["empty", "text", "gif", "lies", "giant", "moves", "too long", "far too long"],
)
def test_bad_pictures_leave_nothing(service: GatewayService, image: bytes, status: int, slug: str) -> None:
    problem(service.submit(image=image), status, slug)
    assert _nothing_left(service)


def test_an_unknown_model_is_answered_with_the_known_ones(service: GatewayService) -> None:
    body = problem(service.submit(model_name="nope"), 404, "unknown-model")
    assert set(body["known_models"]) == {MODEL, "small"}
    assert _nothing_left(service)


@pytest.mark.parametrize(
    ("body", "kind", "status", "slug"),
    [
        (b"", "", 422, "missing-image"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported-body"),
        (b"{}", "application/json", 415, "unsupported-body"),
        (b"--b\r\n", "multipart/form-data; boundary=b", 400, "bad-multipart"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 422, "missing-image"),
        (b"x", "multipart/form-data", 400, "bad-multipart"),
    ],
)
def test_bodies_without_a_picture(service: GatewayService, body: bytes, kind: str, status: int, slug: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = service.client.post("/api/diffusion", params={"model_name": MODEL}, content=body, headers=headers)
    problem(response, status, slug)
    assert _nothing_left(service)


def test_a_body_over_the_limit_is_not_read_to_its_end(service: GatewayService) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield picture()
        while True:
            read += 10_000
            yield bytes(10_000)

    async def post(headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            url = f"/api/diffusion?model_name={MODEL}"
            return await client.post(url, content=endless(), headers={"Content-Type": "image/png", **headers})

    response = asyncio.run(post({}))
    problem(response, 413, "body-too-large")
    assert read < 40_000_000
    assert response.headers["connection"] == "close"

    problem(asyncio.run(post({"Content-Length": "900000000"})), 413, "body-too-large")


def test_the_same_key_is_the_same_job(service: GatewayService) -> None:
    key = {"Idempotency-Key": "k1"}
    first, second = service.accepted(headers=key), service.accepted(headers=key)
    assert first == second
    assert len({job.model_dump_json() for job in service.published()}) == 1


def test_the_same_key_publishes_nothing_once_the_job_has_ended(service: GatewayService) -> None:
    key = {"Idempotency-Key": "k1"}
    first = service.accepted(headers=key)
    service.end(first["id"])
    again = service.accepted(headers=key)
    assert again == first | {"status": "succeeded"}
    assert len(service.published()) == 1


@pytest.mark.parametrize("change", [{"prompt": "other"}, {"image": picture(size=(65, 48))}, {"priority": "low"}])
def test_the_same_key_with_another_request_is_refused(service: GatewayService, change: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "k1"}
    service.accepted(headers=key)
    problem(service.submit(headers=key, **change), 422, "idempotency-mismatch")
    assert len(service.published()) == 1


@pytest.mark.parametrize("fault", ["put requests", "put inputs", "stored inputs", "publish", "published"])
def test_a_store_that_fails_is_answered_503_and_the_retry_works(service: GatewayService, fault: str) -> None:
    key = {"Idempotency-Key": "k1"}
    service.faults.failing.add(fault)
    refused = service.submit(headers=key)
    problem(refused, 503, "try-again")
    assert refused.headers["retry-after"] == "1"

    service.faults.failing.clear()
    answer = service.accepted(headers=key)
    assert {job.id for job in service.published()} == {answer["id"]}


def test_prefer_wait_answers_with_the_end_when_it_comes(service: GatewayService) -> None:
    service.accepted(headers={"Idempotency-Key": "k1"})
    service.end(service.published()[0].id)
    response = service.submit(headers={"Idempotency-Key": "k1", "Prefer": "wait=5"})
    assert response.status_code == 200
    assert response.headers["preference-applied"]
    assert response.json()["status"] == "succeeded"


def test_prefer_wait_answers_202_when_it_does_not_come(service: GatewayService) -> None:
    assert service.submit(headers={"Prefer": "wait=0"}).status_code == 202
    assert service.submit(headers={"Prefer": "wait=1"}).status_code == 202


def test_a_full_model_answers_429_before_the_body_is_read(service: GatewayService) -> None:
    for _ in range(2):
        service.accepted(model_name="small")
    response = service.submit(model_name="small")
    body = problem(response, 429, "backlog-full")
    assert 1 <= int(response.headers["retry-after"]) <= 5
    assert body["eta_s"] is None
    assert "of work" not in body["detail"]
    assert len(service.published("small")) == 2


def test_a_full_model_says_when_there_is_room(service: GatewayService) -> None:
    for _ in range(2):
        service.accepted(model_name="small")
    cost = service.published("small")[0].cost
    service.stand("small", waiting=2, waiting_cost=2 * cost, cost_per_s=cost / 20)
    response = service.submit(model_name="small")
    body = problem(response, 429, "backlog-full")
    assert (body["eta_s"], response.headers["retry-after"]) == (40.0, "20")
    assert "about 40 s of work" in body["detail"]


def test_many_at_once_do_not_pass_the_limit_together(service: GatewayService) -> None:
    async def take_turns(_what: str) -> None:
        await asyncio.sleep(0)

    async def submit(client: httpx.AsyncClient) -> int:
        files = {"image": ("a.png", picture(), "image/png")}
        return (await client.post("/api/diffusion?model_name=small", files=files)).status_code

    async def nine() -> list[int]:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await asyncio.gather(*(submit(client) for _ in range(9)))

    service.world.io = take_turns
    assert sorted(asyncio.run(nine())) == [202] * 2 + [429] * 7


def test_all_that_is_wrong_is_said_at_once(service: GatewayService) -> None:
    wrong: dict[str, Any] = {"strength": "nan", "num_inference_steps": "9999", "sampler": "magic", "width": "x"}
    detail = problem(service.submit(height="64", **wrong), 422, "invalid-parameters")["detail"]
    for name in ("strength is 'nan'; it must be a finite number.", "num_inference_steps is 9999", "width is 'x'"):
        assert name in detail
    assert "sampler magic is not one of this model's: euler" in detail
    assert "flow_match_euler" not in detail
    assert "both" not in detail


def test_a_parameter_given_twice_is_refused(service: GatewayService) -> None:
    body = problem(service.submit(prompt=["a", "b"]), 422, "invalid-parameters")
    assert "prompt: more than once" in body["detail"]
    assert _nothing_left(service)


@pytest.mark.parametrize("prompt", ["%ff%fe", "%00"])
def test_a_prompt_that_is_no_text_is_refused(service: GatewayService, prompt: str) -> None:
    files = {"image": ("a.png", picture(), "image/png")}
    response = service.client.post(f"/api/diffusion?model_name={MODEL}&prompt={prompt}", files=files)
    problem(response, 422, "invalid-parameters")
    assert _nothing_left(service)


def test_a_picture_in_another_field_is_told_where_it_belongs(service: GatewayService) -> None:
    files = {"picture": ("cat.jpg", picture("JPEG"), "image/jpeg")}
    response = service.client.post("/api/diffusion", params={"model_name": MODEL}, files=files)
    assert "called image" in problem(response, 422, "unknown-parameter")["detail"]


def test_without_a_model_the_models_are_named(service: GatewayService) -> None:
    response = service.client.post("/api/diffusion", files={"image": ("a.png", picture(), "image/png")})
    body = problem(response, 422, "invalid-parameters")
    assert body["detail"] == f"model_name is missing; give one of: {MODEL}, small."


def test_json_with_a_data_url(service: GatewayService) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    asked = {"model_name": MODEL, "image": url, "seed": 4, "metadata": {"a": [1]}}
    response = service.client.post("/api/jobs", json=asked)
    assert response.status_code == 202, response.text
    (job,) = service.published()
    assert (job.params.seed, job.metadata) == (4, {"a": [1]})
    assert service.world.blobs[job.input.key][0] == picture()


def test_json_with_an_upload(service: GatewayService) -> None:
    upload = service.client.post("/api/uploads").json()
    put = service.client.put(upload["put_url"], content=picture("WEBP"), headers={"Content-Type": "image/webp"})
    assert put.json()["size_bytes"] == len(picture("WEBP"))
    response = service.client.post("/api/jobs", json={"model_name": MODEL, "image": upload["id"]})
    assert response.status_code == 202, response.text
    (job,) = service.published()
    assert service.world.blobs[job.input.key][0] == picture("WEBP")


def test_uploads_are_checked_like_any_picture(service: GatewayService) -> None:
    upload = service.client.post("/api/uploads").json()
    problem(service.client.put(upload["put_url"], content=b"no picture"), 415, "unsupported-picture")
    problem(service.client.put(upload["put_url"], content=bytes(300_000)), 413, "body-too-large")
    problem(service.client.put(f"/api/uploads/{upload['id']}?token=x", content=picture()), 404, "not-found")
    assert _nothing_left(service)


@pytest.mark.parametrize(
    ("image", "status", "slug"),
    [
        ("../../etc/passwd", 422, "missing-image"),
        ("00000000-0000-7000-8000-000000000000", 404, "not-found"),
        ("data:image/png;base64,%%%", 422, "missing-image"),
        ("data:image/png,abc", 422, "missing-image"),
        ("data:image/png;base64,aGVsbG8=", 415, "unsupported-picture"),
    ],
)
def test_json_with_a_bad_image(service: GatewayService, image: str, status: int, slug: str) -> None:
    problem(service.client.post("/api/jobs", json={"model_name": MODEL, "image": image}), status, slug)
    assert _nothing_left(service)


def test_too_many_bodies_at_once_are_refused(tmp_path: Path) -> None:
    with gateway_service(tmp_path, max_body_bytes_in_flight=1) as service:
        in_flight = service.app.state.gateway.in_flight
        with in_flight.holding(1) as hold:
            hold.grow(1)
            response = service.submit()
        problem(response, 503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert service.submit().status_code == 202


def test_canceled_is_a_state_that_idempotent_retries_see(service: GatewayService) -> None:
    first = service.accepted(headers={"Idempotency-Key": "k"})
    service.end(first["id"], State.CANCELED)
    assert service.accepted(headers={"Idempotency-Key": "k"})["status"] == "canceled"


def test_an_ended_job_can_be_run_again_as_a_new_one(service: GatewayService) -> None:
    first = service.accepted(prompt="neon", priority="low", seed="7", metadata='{"order": 4}')
    service.record()
    service.end(first["id"], State.FAILED)
    service.app.state.gateway.live.forget(first["id"])

    response = service.client.post(f"/api/jobs/{first['id']}/retry")

    assert response.status_code == 202
    old, new = service.published()
    assert new.id == response.json()["id"] != old.id
    assert new.retry_of == old.id
    assert (new.params, new.priority, new.metadata, new.owner) == (old.params, old.priority, old.metadata, old.owner)
    assert service.world.blobs[new.input.key][0] == service.world.blobs[old.input.key][0]
    assert service.client.get(response.json()["status_url"]).json()["retry_of"] == old.id


def test_a_job_is_run_again_once_however_often_it_is_asked_with_one_key(service: GatewayService) -> None:
    first = service.accepted()
    service.record()
    service.end(first["id"], State.CANCELED)

    answers = [
        service.client.post(f"/api/jobs/{first['id']}/retry", headers={"Idempotency-Key": "again"}) for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_size_that_was_asked_for_is_asked_for_again(service: GatewayService) -> None:
    first = service.accepted(width="64", height="128")
    service.record()
    service.end(first["id"])

    service.client.post(f"/api/jobs/{first['id']}/retry")

    old, new = service.published()
    assert new.params == old.params
    assert new.params.exact


def test_a_repeated_request_is_answered_alike_when_the_first_input_is_gone_meanwhile(service: GatewayService) -> None:
    first = service.accepted()
    service.record()
    service.end(first["id"])
    again = {"Idempotency-Key": "again"}
    answer = service.client.post(f"/api/jobs/{first['id']}/retry", headers=again)
    for key in list(service.world.blobs):
        if key.startswith(f"inputs/{first['id']}/"):
            del service.world.blobs[key]

    repeated = service.client.post(f"/api/jobs/{first['id']}/retry", headers=again)

    assert (answer.status_code, repeated.status_code) == (202, 202)
    assert answer.json()["id"] == repeated.json()["id"]


def test_one_key_is_not_good_for_two_jobs_to_be_run_again(service: GatewayService) -> None:
    jobs = [service.accepted(prompt="neon") for _ in range(2)]
    service.record()
    for job in jobs:
        service.end(job["id"])
    answers = [
        service.client.post(f"/api/jobs/{job['id']}/retry", headers={"Idempotency-Key": "again"}) for job in jobs
    ]
    assert answers[0].status_code == 202
    problem(answers[1], 422, "idempotency-mismatch")


def test_an_ended_job_that_is_not_recorded_yet_is_to_be_tried_again(service: GatewayService) -> None:
    first = service.accepted()
    service.end(first["id"])
    service.app.state.gateway.live.forget(first["id"])

    problem(service.client.post(f"/api/jobs/{first['id']}/retry"), 503, "try-again")


def test_what_can_not_be_run_again_is_told(service: GatewayService) -> None:
    first = service.accepted()
    service.record()
    problem(service.client.post(f"/api/jobs/{first['id']}/retry"), 409, "job-not-ended")
    service.end(first["id"])
    for key in list(service.world.blobs):
        if key.startswith("inputs/"):
            del service.world.blobs[key]
    problem(service.client.post(f"/api/jobs/{first['id']}/retry"), 410, "picture-gone")
    problem(service.client.post(f"/api/jobs/{job_id(9)}/retry"), 404, "not-found")


def test_a_prompt_without_a_word_that_the_model_knows_is_taken_and_warned_of(
    service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "knows", lambda model, prompt: "mosaic" in prompt)

    known, unknown = service.submit(prompt="as a mosaic"), service.submit(prompt="as a dog")

    assert known.status_code == unknown.status_code == 202
    assert "warnings" not in known.json()
    (said,) = unknown.json()["warnings"]
    assert said.startswith("The prompt has no word that quick knows, so the picture stays nearly as it is.")
