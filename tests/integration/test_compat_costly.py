"""Requests in other services' words that are made to cost the gateway much: each is refused soon, in few words."""

import base64
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.gateway.compat.automatic1111.asked import as_url
from tests.integration.gateway_service import GatewayService, gateway_service
from tests.sample_pictures import picture

PICTURE = picture()
ENCODED = base64.b64encode(PICTURE).decode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, max_upload_bytes=20_000_000) as gateway:
        yield gateway


def refused(service: GatewayService, path: str, body: str, status: int = 422) -> str:
    """The words in which this body is refused, which are few."""
    answer = service.client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text[:300]
    assert len(answer.content) < 4000
    assert service.app.state.gateway.in_flight.held_bytes == 0
    told: dict[str, Any] = answer.json()
    return str(told["detail"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sdapi/v1/img2img", '{"init_images": [%s]}'),
        ("/v1/predictions", '{"version": "quick", "input": {}, "webhook_events_filter": [%s]}'),
    ],
)
def test_of_a_list_with_a_million_wrong_values_one_is_told(service: GatewayService, path: str, body: str) -> None:
    assert "must be" in refused(service, path, body % ",".join(["1"] * 1_000_000))


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/jobs", "{%s}"), ("/v1/predictions", "{%s}"), ("/v1/models/sfumato/quick/predictions", '{"input": {%s}}')],
)
def test_three_hundred_thousand_unknown_fields_are_counted_and_not_told(
    service: GatewayService, path: str, body: str
) -> None:
    assert "things are wrong" in refused(service, path, body % ",".join(f'"k{n}":0' for n in range(300_000)))


@pytest.mark.parametrize("sent", ['"sd_model_checkpoint": "%s"', '"override_settings": {"sd_model_checkpoint": "%s"}'])
def test_a_checkpoint_of_blanks_is_unknown_at_once(service: GatewayService, sent: str) -> None:
    # By a pattern that tries every blank as the first one this takes hours, and the test's own time ends it.
    path = "/sdapi/v1/img2img" if "override" in sent else "/sdapi/v1/options"
    body = f'{{"init_images": ["{ENCODED}"], {sent % (" " * 1_000_000)}}}'

    assert "is unknown" in refused(service, path, body, 404)


@pytest.mark.parametrize("picture", ["é", "data:image/png;base64,é", f"{ENCODED}٣"])
def test_base64_that_is_no_ascii_is_refused_in_words(service: GatewayService, picture: str) -> None:
    assert "no valid base64" in refused(service, "/sdapi/v1/img2img", json.dumps({"init_images": [picture]}))
    input_ = {"image": picture if picture.startswith("data:") else f"data:;base64,{picture}"}
    assert "no valid base64" in refused(service, "/v1/predictions", json.dumps({"version": "quick", "input": input_}))


def test_a_picture_with_a_blank_behind_every_few_letters_takes_no_more_than_its_size() -> None:
    apart = "ABC " * 500_000
    tracemalloc.start()
    try:
        assert as_url(apart) == "data:;base64," + "ABC" * 500_000
        assert tracemalloc.get_traced_memory()[1] < 4 * len(apart)
    finally:
        tracemalloc.stop()
