"""OpenAI's own client, as it is, against the whole service."""

import asyncio
import base64
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)
from PIL import Image

from sfumato import Client
from tests.reader import ROOT
from tests.sample_pictures import picture
from tests.service import Service, sfumato
from tests.support import poll

CAT = (ROOT / "images" / "cat.jpg").read_bytes()
SLOW = """
[models.slow]
backend = "simulated"
path = "slow"

[models.restyle]
"""
LONG = {"num_inference_steps": 200, "strength": 1}
"""A job of the slow model that lasts for 20 s."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a model that is slow, and the bundled one."""
    service = Service(tmp_path_factory.mktemp("up"), models=SLOW)
    service.simulate("slow", {"fixed_s": 0.1, "row_s": 0.0})
    with service:
        yield service


def client(service: Service, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{service.url}/v1", **({"api_key": "none", "max_retries": 0} | options))


def opened(made: Any) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(made.b64_json)))


def jobs(service: Service) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(service.get("/api/jobs")[1])["jobs"]
    return listed


def newest(service: Service, prompt: str) -> dict[str, Any]:
    """The job with this prompt, once it runs."""
    found: dict[str, Any] = poll(
        lambda: next((job for job in jobs(service) if job["prompt"] == prompt and job["status"] == "running"), None)
    )
    return found


def test_a_picture_is_edited(service: Service) -> None:
    answer = client(service).images.edit(image=("cat.jpg", CAT), prompt="watercolor", model="restyle")

    (made,) = answer.data or []
    with opened(made) as shown:
        assert f"{shown.width}x{shown.height}" == answer.size
        assert shown.format == "PNG"


def test_several_pictures_are_edited_several_times_each_to_a_size_and_a_file_type(service: Service) -> None:
    answer = client(service).images.edit(
        image=[("cat.jpg", CAT), io.BytesIO(picture())],
        prompt="neon",
        model="restyle",
        n=2,
        size="256x192",
        output_format="jpeg",
        extra_body={"seed": 3, "strength": 0.4, "num_inference_steps": 6},
    )

    shown = [opened(made) for made in answer.data or []]
    assert [(each.size, each.format) for each in shown] == [((256, 192), "JPEG")] * 4
    assert len({each.tobytes() for each in shown}) == 4


def test_the_same_seed_makes_the_same_picture_as_the_service_s_own_route(service: Service) -> None:
    mine = client(service).images.edit(
        image=("cat.jpg", CAT), prompt="neon", model="restyle", extra_body={"seed": 5}, response_format="b64_json"
    )
    with Client(service.url) as own:
        theirs = own.generate(CAT, "restyle", prompt="neon", seed=5).data
    assert base64.b64decode((mine.data or [])[0].b64_json or "") == theirs


def test_a_stream_shows_the_picture_coming_and_then_the_picture(service: Service) -> None:
    events = list(
        client(service).images.edit(
            image=("cat.jpg", CAT),
            prompt="neon",
            model="slow",
            stream=True,
            partial_images=2,
            extra_body={"num_inference_steps": 80, "strength": 1},
        )
    )

    *partial, last = events
    assert [each.type for each in partial] == ["image_edit.partial_image"] * len(partial)
    assert [each.partial_image_index for each in partial] == list(range(len(partial)))
    assert 1 <= len(partial) <= 2
    for each in partial:
        with opened(each) as shown:
            assert (shown.format, each.output_format) == ("JPEG", "jpeg")
    assert last.type == "image_edit.completed"
    with opened(last) as shown:
        assert last.size == f"{shown.width}x{shown.height}"
    assert last.usage.total_tokens == 0


def test_what_is_wrong_is_told_by_the_client_s_own_exceptions(service: Service) -> None:
    edit = client(service).images.edit
    with pytest.raises(BadRequestError, match="n is '1000'") as refused:
        edit(image=("cat.jpg", CAT), prompt="neon", n=1000)
    assert refused.value.code == "invalid-parameters"
    with pytest.raises(BadRequestError, match="mask is not taken") as masked:
        edit(image=("cat.jpg", CAT), prompt="neon", mask=("mask.png", picture()))
    assert masked.value.param == "mask"
    with pytest.raises(NotFoundError, match="Choose one of: slow, restyle") as unknown:
        edit(image=("cat.jpg", CAT), prompt="neon", model="gpt-image-9")
    assert unknown.value.code == "model_not_found"


def test_a_job_canceled_by_somebody_else_is_told(service: Service) -> None:
    def cancel() -> None:
        with Client(service.url) as own:
            own.cancel(newest(service, "to be canceled")["id"])

    canceler = threading.Thread(target=cancel)
    canceler.start()
    with pytest.raises(APIStatusError, match="The job was canceled") as told:
        client(service).images.edit(image=("c.jpg", CAT), prompt="to be canceled", model="slow", extra_body=LONG)
    canceler.join()
    assert told.value.code == "job-canceled"


def test_a_job_canceled_during_a_stream_is_told_there(service: Service) -> None:
    stream = client(service).images.edit(
        image=("c.jpg", CAT), prompt="streamed, to be canceled", model="slow", stream=True, extra_body=LONG
    )
    with Client(service.url) as own:
        own.cancel(newest(service, "streamed, to be canceled")["id"])
    with pytest.raises(APIError, match="The job was canceled"):
        list(stream)


def test_a_client_that_waits_no_longer_leaves_no_job_behind(service: Service) -> None:
    with pytest.raises(APITimeoutError):
        client(service, timeout=1.0).images.edit(image=("c.jpg", CAT), prompt="left", model="slow", extra_body=LONG)
    job = next(job for job in jobs(service) if job["prompt"] == "left")
    poll(lambda: service.job(job["id"])["status"] == "canceled")


def test_a_stream_that_is_closed_leaves_no_job_behind(service: Service) -> None:
    stream = client(service).images.edit(
        image=("c.jpg", CAT), prompt="closed", model="slow", stream=True, partial_images=3, extra_body=LONG
    )
    assert next(iter(stream)).type == "image_edit.partial_image"
    job = newest(service, "closed")
    stream.close()
    poll(lambda: service.job(job["id"])["status"] == "canceled")


def test_a_client_that_may_come_again_finds_its_job_going_on(service: Service) -> None:
    again = {"Idempotency-Key": "order-1"}
    asked: dict[str, Any] = {"image": ("c.jpg", CAT), "prompt": "kept", "model": "slow", "extra_headers": again}
    asked["extra_body"] = {"num_inference_steps": 30, "strength": 1}
    with pytest.raises(APITimeoutError):
        client(service, timeout=1.0).images.edit(**asked)

    answer = client(service).images.edit(**asked)

    assert len(answer.data or []) == 1
    (job,) = [job for job in jobs(service) if job["prompt"] == "kept"]
    poll(lambda: service.job(job["id"])["status"] == "succeeded")


async def _edited(service: Service) -> Any:
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        return await client.images.edit(image=("cat.jpg", CAT), prompt="mosaic", model="restyle")


def test_the_asynchronous_client_works_too(service: Service) -> None:
    assert len(asyncio.run(_edited(service)).data) == 1


def test_a_gateway_killed_in_mid_wait_is_asked_again_and_finds_the_same_job(tmp_path: Path) -> None:
    killed = Service(tmp_path, models=SLOW)
    killed.simulate("slow", {"fixed_s": 0.1, "row_s": 0.0})
    with killed:

        def kill() -> None:
            newest(killed, "survives")
            os.kill(killed.roles()["gateway"], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        answer = client(killed, max_retries=8).images.edit(
            image=("c.jpg", CAT),
            prompt="survives",
            model="slow",
            extra_headers={"Idempotency-Key": "order-2"},
            extra_body={"num_inference_steps": 60, "strength": 1},
        )
        killer.join()
        assert len(answer.data or []) == 1
        assert len([job for job in jobs(killed) if job["prompt"] == "survives"]) == 1


def test_keys_are_openai_keys(tmp_path: Path) -> None:
    with Service(tmp_path, models=None, environment={"SFUMATO_AUTH": "keys"}) as locked:
        key = sfumato(locked.data_dir, "keys", "create", "alice").stdout.strip()
        with pytest.raises(AuthenticationError, match="Send a key that is good") as refused:
            client(locked, api_key="sk-wrong").images.edit(image=("c.jpg", CAT), prompt="neon")
        assert refused.value.code == "invalid_api_key"
        assert len(client(locked, api_key=key).images.edit(image=("c.jpg", CAT), prompt="neon").data or []) == 1


def test_a_service_that_is_not_there_is_a_connection_error() -> None:
    nowhere = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
    with pytest.raises(APIConnectionError):
        nowhere.images.edit(image=("c.jpg", CAT), prompt="neon")
