"""OpenAI's image edits at the gateway: what becomes of a form, and how everything that is wrong with it is told."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import Job, State, preview_key
from sfumato.core.keys import Quota
from sfumato.gateway.compat.openai import STANDARD_SIZES
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service
from tests.sample_pictures import picture
from tests.support import poll

File = tuple[str, tuple[str | None, bytes] | tuple[str, bytes, str]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as gateway:
        yield gateway


def image(data: bytes | None = None, field: str = "image") -> File:
    return field, ("in.png", picture() if data is None else data, "image/png")


def edit(service: GatewayService, *files: File, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """POST /v1/images/edits with a good picture, unless told otherwise."""
    plain = {"prompt": "as a mosaic"} | {name: str(value) for name, value in fields.items()}
    return service.client.post("/v1/images/edits", data=plain, files=list(files or (image(),)), headers=headers)


def taken(service: GatewayService, count: int) -> list[Job]:
    """The jobs that came, once there are so many."""
    jobs: list[Job] = poll(lambda: (found := service.published()) and len(found) == count and found)
    return jobs


def edited(service: GatewayService, *files: File, count: int = 1, **fields: Any) -> tuple[list[Job], Any]:
    """The jobs of an edit whose pictures are all made, and its answer."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service, *files, **fields)
        jobs = taken(service, count)
        for number, job in enumerate(jobs):
            service.end(job.id, data=b"picture %d" % number)
        return jobs, answer.result(10)


def wrong(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The error that the answer must be, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    return error


def test_an_edit_is_an_ordinary_job_and_its_answer_has_the_picture(service: GatewayService) -> None:
    jobs, answer = edited(service)

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert base64.b64decode(body["data"][0]["b64_json"]) == b"picture 0"
    assert (body["size"], body["output_format"], body["usage"]["total_tokens"]) == ("64x48", "png", 0)
    (job,) = jobs
    assert (job.model, job.owner, job.params.prompt, job.protocol) == (MODEL, "local", "as a mosaic", "openai")
    assert not job.params.exact


def test_own_fields_go_beside_those_of_openai(service: GatewayService) -> None:
    fields: dict[str, Any] = {
        "strength": 0.4,
        "num_inference_steps": 9,
        "guidance_scale": 1.5,
        "seed": 5,
        "sampler": "ddim",
    }
    more: dict[str, Any] = {
        "negative_prompt": "blur",
        "priority": "high",
        "metadata": '{"order":7}',
        "resize_mode": "fill",
    }
    (job,), _ = edited(service, **fields, **more, size="128x64", output_format="webp", user="u", quality="high")

    shown = job.params.model_dump(mode="json")
    assert {name: shown[name] for name in fields} == fields
    assert (shown["negative_prompt"], shown["resize_mode"], shown["output_format"]) == ("blur", "fill", "webp")
    assert (job.params.width, job.params.height, job.params.exact) == (128, 64, True)
    assert (job.priority, job.metadata) == ("high", {"order": 7})


def test_each_image_is_made_n_times_in_order_and_no_two_have_one_seed(service: GatewayService) -> None:
    other = picture(size=(32, 32))
    jobs, answer = edited(service, image(field="image[]"), image(other, field="image[]"), count=4, n=2, seed=10)

    assert [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]] == [
        b"picture 0",
        b"picture 1",
        b"picture 2",
        b"picture 3",
    ]
    assert [job.params.seed for job in jobs] == [10, 11, 12, 13]
    assert [job.input.width for job in jobs] == [64, 64, 32, 32]
    assert len({job.call for job in jobs}) == 1


@pytest.mark.parametrize("seed", [2**62, "+7", "7.0", 0])
def test_pictures_of_one_seed_differ_however_the_seed_is_written(service: GatewayService, seed: int | str) -> None:
    jobs, _ = edited(service, count=3, n=3, seed=seed)
    first = int(float(seed)) if isinstance(seed, str) else seed
    assert [job.params.seed for job in jobs] == [first, first + 1, first + 2]


def test_a_seed_that_leaves_no_room_for_the_other_pictures_is_refused(service: GatewayService) -> None:
    assert "seed" in wrong(edit(service, n=2, seed=2**63 - 1), 400, "invalid-parameters")["message"]


def test_a_url_is_the_access_link(service: GatewayService) -> None:
    (job,), answer = edited(service, response_format="url")

    (made,) = answer.json()["data"]
    assert made.keys() == {"url"}
    assert job.id in made["url"]
    assert service.client.get(made["url"]).content == b"picture 0"


def test_previews_are_shown_evenly_apart_and_no_more_than_asked_for(service: GatewayService) -> None:
    def shown(preview: int) -> None:
        """Let the job be so far, and the stream look twice at that."""
        service.world.blobs[preview_key(job.id)] = (b"step %d" % preview, time.time())
        service.start(job.id, step=preview, steps=10, preview=preview)
        looks = service.faults.asked.count("outcome") + 4
        poll(lambda: service.faults.asked.count("outcome") >= looks)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service, stream=True, partial_images=1)
        (job,) = taken(service, 1)
        for preview in (2, 6, 10):
            shown(preview)
        service.end(job.id)
        events = [json.loads(line[6:]) for line in answer.result(20).text.splitlines() if line.startswith("data: ")]

    assert [event["type"] for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert [base64.b64decode(event["b64_json"]) for event in events] == [b"step 6", b"the picture"]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"n": 1000}, "invalid-parameters", "n is '1000'"),
        ({"n": 0}, "invalid-parameters", "n is '0'"),
        ({"size": "100000x100000"}, "invalid-parameters", "10000000000 pixels"),
        ({"size": "64"}, "invalid-parameters", "size is '64'"),
        ({"size": "63x64"}, "invalid-parameters", "the width in size is 63; it must be a positive multiple of"),
        ({"sampler": "eular"}, "invalid-parameters", "sampler eular is not one of this model's: euler, "),
        ({"strength": "2"}, "invalid-parameters", "strength is 2.0; it must be above 0 and at most 1"),
        ({"strength": "much"}, "invalid-parameters", "strength is 'much'"),
        ({"response_format": "gif"}, "invalid-parameters", "response_format"),
        ({"background": "transparent"}, "invalid-parameters", "background"),
        ({"partial_images": 4}, "invalid-parameters", "partial_images is '4'"),
        ({"colour": "red"}, "unknown-parameter", "colour is not known here"),
        ({"metadata": "{"}, "invalid-parameters", "metadata"),
    ],
)
def test_a_bad_field_is_a_bad_request_in_the_gateway_s_words(
    service: GatewayService, fields: dict[str, Any], code: str, words: str
) -> None:
    error = wrong(edit(service, **fields), 400, code)
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert not service.world.topics.get(MODEL) or not service.published()


def test_an_unknown_model_is_told_in_the_word_that_programs_look_for(service: GatewayService) -> None:
    error = wrong(edit(service, model="gpt-image-9"), 404, "model_not_found")
    assert error["message"] == "model 'gpt-image-9' is unknown. Choose one of: quick, small."


@pytest.mark.parametrize("field", ["mask", "markup"])
def test_a_mask_is_refused_in_words(service: GatewayService, field: str) -> None:
    error = wrong(edit(service, image(), image(field=field)), 400, "unknown-parameter")
    assert error["message"].startswith("mask is not taken: this service changes whole pictures")
    assert error["param"] == field


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GIF89a" + b"x" * 100, "unsupported-picture"),
        (b"", "missing-image"),
        (picture()[:30], "unsupported-picture"),
        (picture(size=(1001, 1000)), "too-many-pixels"),
    ],
)
def test_what_is_no_picture_is_a_bad_request(service: GatewayService, data: bytes, code: str) -> None:
    wrong(edit(service, image(data)), 400, code)


def test_a_size_of_openai_s_own_is_as_large_as_the_model_makes_it(service: GatewayService) -> None:
    jobs = [edited(service, size=size, count=count)[0][-1] for count, size in enumerate(STANDARD_SIZES, 1)]

    assert [(job.params.width, job.params.height) for job in jobs] == [
        (512, 512),
        (608, 416),
        (416, 608),
        (512, 512),
        (256, 256),
    ]


def test_another_size_is_made_as_it_is_or_refused_with_one_that_would_do(service: GatewayService) -> None:
    error = wrong(edit(service, size="1024x1056"), 400, "invalid-parameters")
    assert error["message"] == "size is 1081344 pixels; this model makes at most 262144, such as 512 x 512."
    assert error["param"] == "size"


def test_a_picture_is_what_its_bytes_are_and_not_what_its_name_claims(service: GatewayService) -> None:
    (job,), _ = edited(service, ("image", ("cat.jpg", picture(), "image/jpeg")))
    assert job.input.media_type == "image/png"
    wrong(edit(service, ("image", ("cat.txt", picture(), "text/plain"))), 400, "unsupported-picture")


def test_the_field_at_fault_is_named(service: GatewayService) -> None:
    assert wrong(edit(service, size="63x64"), 400, "invalid-parameters")["param"] == "size"
    assert wrong(edit(service, strength="2"), 400, "invalid-parameters")["param"] == "strength"
    assert wrong(edit(service, model="gpt"), 404, "model_not_found")["param"] == "model"
    assert wrong(edit(service, image(b"GIF89a")), 400, "unsupported-picture")["param"] == "image"


def test_who_leaves_v1_out_of_the_address_is_told_to_add_it(service: GatewayService) -> None:
    error = wrong(service.client.post("/images/edits"), 404, "no-such-route")
    assert error["message"].endswith("by a client whose base_url ends in /v1.")


def test_a_form_without_a_picture_says_so(service: GatewayService) -> None:
    error = wrong(edit(service, ("user", (None, b"u"))), 400, "missing-image")
    assert error["param"] == "image"


def test_what_is_no_form_is_told_what_to_send(service: GatewayService) -> None:
    answer = service.client.post("/v1/images/edits", json={"prompt": "as a mosaic"})
    assert "send multipart/form-data" in wrong(answer, 400, "unsupported-body")["message"]


def test_more_pictures_than_a_call_may_have_are_refused(service: GatewayService) -> None:
    assert "over 16 times" in wrong(edit(service, *[image()] * 17), 400, "invalid-parameters")["message"]
    told = wrong(edit(service, image(), image(), n=9), 400, "invalid-parameters")
    assert "image 2 times n 9 is 18 pictures; at most 16 are made in one call" in told["message"]


def test_pictures_too_large_together_are_refused(service: GatewayService) -> None:
    large = picture(size=(64, 48)) + b"x" * 90_000
    wrong(edit(service, image(large), image(large), image(large)), 413, "body-too-large")


def test_the_first_picture_that_fails_is_the_end_of_the_call(service: GatewayService) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service, n=2)
        first, second = taken(service, 2)
        service.end(first.id, State.FAILED)
        error = wrong(answer.result(10), 410, "job-failed")
    assert "The picture can't be decoded: It is cut off." in error["message"]
    assert service.world.outcomes[second.id].state is State.CANCELED


def test_a_job_canceled_by_somebody_else_ends_the_call(service: GatewayService) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service)
        (job,) = taken(service, 1)
        assert service.client.post(f"/api/jobs/{job.id}/cancel").status_code == 200
        wrong(answer.result(10), 410, "job-canceled")


def test_a_picture_that_was_deleted_meanwhile_is_told(service: GatewayService) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service)
        (job,) = taken(service, 1)
        service.end(job.id)
        del service.world.blobs[f"outputs/{job.id}/a1b2.png"]
        wrong(answer.result(10), 410, "picture-gone")


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_is_away_while_a_call_waits_is_waited_for(service: GatewayService, stream: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service, stream=stream)
        (job,) = taken(service, 1)
        asked = service.faults.asked.count("outcome")
        service.faults.failing.add("outcome")
        poll(lambda: service.faults.asked.count("outcome") >= asked + 3)
        service.faults.failing.clear()
        service.end(job.id, data=b"late")
        told = answer.result(10)
    assert told.status_code == 200
    assert base64.b64encode(b"late").decode() in told.text


def test_a_gateway_that_stops_tells_who_waits_to_come_again_and_keeps_no_job(service: GatewayService) -> None:
    gateway = service.app.state.gateway
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(edit, service)
        (job,) = taken(service, 1)
        assert service.client.portal is not None
        service.client.portal.call(gateway.stopping.set)
        service.client.portal.call(gateway.live.release)
        error = wrong(answer.result(10), 503, "try-again")
    assert error["message"] == "This gateway stops; send it again."
    assert answer.result().headers["retry-after"] == "1"
    assert service.world.outcomes[job.id].state is State.CANCELED


def test_a_call_that_waited_too_long_says_so_and_its_jobs_are_canceled(tmp_path: Path) -> None:
    with gateway_service(tmp_path, call_wait_s=0.2) as service:
        error = wrong(edit(service), 504, "took-too-long")
        assert error["message"].startswith("No picture within 0.2 s")
        assert error["type"] == "server_error"
        (job,) = service.published()
        assert service.world.outcomes[job.id].state is State.CANCELED


def test_a_call_with_an_idempotency_key_finds_its_jobs_again(service: GatewayService) -> None:
    headers = {"Idempotency-Key": "order-7"}
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(edit, service, headers=headers, n=2) for _ in range(2)]
        ids = poll(lambda: len(found := {job.id for job in service.published()}) == 2 and sorted(found))
        for identity in ids:
            service.end(identity)
        bodies = [answer.result(10).json()["data"] for answer in answers]
    assert edit(service, headers=headers, n=2).json()["data"] == bodies[0] == bodies[1]
    assert {job.id for job in service.published()} == set(ids)
    wrong(edit(service, headers=headers, n=2, prompt="another"), 400, "idempotency-mismatch")


def test_all_pictures_of_a_call_are_taken_or_none(service: GatewayService) -> None:
    error = wrong(edit(service, model="small", n=3), 429, "backlog-full")

    assert error["type"] == "rate_limit_error"
    jobs = service.published("small")
    assert len(jobs) == 2
    assert {service.world.outcomes[job.id].state for job in jobs} == {State.CANCELED}


def test_keys_are_asked_for_in_openai_s_shape(tmp_path: Path) -> None:
    with gateway_service(tmp_path, auth="keys") as service:
        error = wrong(edit(service), 401, "invalid_api_key")
        assert error["type"] == "authentication_error"
        assert "Send a key that is good" in error["message"]
        told = wrong(edit(service, headers=service.key("alice", "read")), 403, "forbidden")
        assert told["type"] == "permission_error"
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(edit, service, headers=service.key("alice"))
            (job,) = taken(service, 1)
            service.end(job.id)
            assert answer.result(10).status_code == 200
        assert job.owner == "alice"


def test_limits_are_told_in_openai_s_shape_with_the_time_to_come_again(tmp_path: Path) -> None:
    with gateway_service(tmp_path, auth="keys") as service:
        slow = service.key("bob", quota=Quota(rate=1.0))
        answers = [edit(service, headers=slow, size="nonsense") for _ in range(4)]
        answer = answers[-1]
        assert wrong(answer, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) >= 1
        assert "requests" in answer.headers["ratelimit-policy"]


def test_who_has_what_a_key_may_have_is_told_so_before_the_pictures_are_read(tmp_path: Path) -> None:
    with gateway_service(tmp_path, auth="keys") as service:
        full = service.key("bob", quota=Quota(in_flight=1))
        assert service.submit(headers=full).status_code == 202
        error = wrong(edit(service, image(b"no picture"), headers=full), 429, "insufficient_quota")
    assert "this key may have 1" in error["message"]


def test_other_addresses_of_openai_are_told_in_its_shape(service: GatewayService) -> None:
    error = wrong(service.client.post("/v1/images/generations", json={}), 404, "no-such-route")
    assert error["message"].startswith("Nothing is at /v1/images/generations")
    wrong(service.client.get("/v1/images/edits"), 405, "method-not-allowed")


def test_a_protocol_that_is_switched_off_is_not_there(tmp_path: Path) -> None:
    with gateway_service(tmp_path, protocols="replicate") as service:
        answer = edit(service)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:sfumato:problem:no-such-route"
