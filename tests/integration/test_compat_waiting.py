"""Calls that wait for their pictures: what is kept of them meanwhile, and what is told when a store is away."""

import base64
import gc
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import Job, Outcome, State
from sfumato.gateway.asked import AskedJson
from sfumato.gateway.compat.replicate.asked import Wanted
from sfumato.gateway.uploads import Form
from tests.integration.gateway_service import GatewayService, gateway_service
from tests.sample_pictures import picture
from tests.support import poll

PICTURE = picture()
URL = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as gateway:
        yield gateway


@contextmanager
def waiting(
    service: GatewayService, path: str, jobs: int = 1, **sent: Any
) -> Iterator[tuple["Future[Any]", list[Job]]]:
    """A call that waits for its answer, and its jobs, which end with the block."""
    before = len(service.published())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.client.post, path, **sent)
        try:
            poll(lambda: len(service.published()) == before + jobs)
            yield answer, service.published()[before:]
        finally:
            for job in service.published():
                service.end(job.id)


def kept(kind: type[Any]) -> list[Any]:
    """What of a kind the process still has."""
    gc.collect()
    # By its type: to ask an object for its class makes some modules load what they have put off.
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


def test_the_form_of_a_call_is_not_kept_until_its_end(service: GatewayService) -> None:
    with waiting(service, "/v1/images/edits", data={"prompt": "x"}, files={"image": ("in.png", PICTURE, "image/png")}):
        assert kept(Form) == []


def test_neither_is_the_form_or_body_of_one_who_waits_in_the_gateways_own_words(service: GatewayService) -> None:
    params, prefer = {"model_name": "quick", "prompt": "x"}, {"Prefer": "wait=2"}
    with waiting(service, "/api/diffusion", params=params, files={"image": PICTURE}, headers=prefer):
        assert kept(Form) == []
    with waiting(service, "/api/jobs", json=params | {"image": URL}, headers=prefer):
        assert kept(AskedJson) == []


def test_the_picture_of_a_prediction_is_not_kept_until_its_end(service: GatewayService) -> None:
    asked = {"version": "quick", "input": {"image": URL}}
    with waiting(service, "/v1/predictions", json=asked, headers={"Prefer": "wait=2"}):
        assert kept(Wanted) == []


def test_what_is_large_of_a_call_is_not_kept_until_its_end_and_not_told(service: GatewayService) -> None:
    asked: dict[str, Any] = {
        "init_images": [URL],
        "prompt": "x",
        "large": "l" * 100_000,
        "nested": {"a": URL},
        "many": [1],
    }
    asked.update((f"field{number}", number) for number in range(10_000))
    with waiting(service, "/sdapi/v1/img2img", json=asked) as (answer, (job,)):
        service.end(job.id)
        told = answer.result().json()["parameters"]

    assert (told["prompt"], told["init_images"], told["large"], told["many"]) == ("x", None, None, [1])
    assert len(json.dumps(told)) < 150_000


def test_numbers_of_many_digits_are_told_as_they_came(service: GatewayService) -> None:
    body = json.dumps({"init_images": [URL]})[:-1] + ', "number": 1' + "0" * 400 + "}"
    with waiting(service, "/sdapi/v1/img2img", content=body) as (answer, (job,)):
        service.end(job.id)
        assert answer.result().json()["parameters"]["number"] == 10**400


def test_pictures_of_a_call_are_all_told_however_many(service: GatewayService) -> None:
    asked = {"init_images": [URL], "batch_size": 3}
    with waiting(service, "/sdapi/v1/img2img", jobs=3, json=asked) as (answer, jobs):
        for number, job in enumerate(jobs):
            service.end(job.id, data=b"%d" % number)
        assert [base64.b64decode(each) for each in answer.result().json()["images"]] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(("away", "status", "told"), [("outcome", 202, "starting"), ("row", 201, "canceled")])
def test_a_prediction_that_was_taken_is_told_though_a_store_is_away(
    service: GatewayService, away: str, status: int, told: str
) -> None:
    asked = {"version": "quick", "input": {"image": URL}}
    service.faults.failing.add(away)
    with waiting(service, "/v1/predictions", json=asked, headers={"Prefer": "wait=2"}) as (answer, (job,)):
        service.world.outcomes[job.id] = Outcome(job_id=job.id, state=State.CANCELED, at=time.time())
        shown = answer.result()

    assert shown.status_code == status, shown.text
    assert (shown.json()["id"], shown.json()["status"]) == (job.id, told)
