"""Calls for several pictures: all of their jobs are taken in, or none is left to run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import State
from sfumato.core.keys import Quota
from tests.integration.gateway_service import GatewayService, gateway_service
from tests.sample_pictures import picture
from tests.support import poll

PICTURE = picture()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as gateway:
        yield gateway


def edit(service: GatewayService, count: int, headers: dict[str, str] | None = None) -> Any:
    """POST /v1/images/edits for so many pictures."""
    asked = {"prompt": "x", "n": str(count)}
    return service.client.post("/v1/images/edits", data=asked, files={"image": PICTURE}, headers=headers)


def test_of_more_pictures_than_the_key_may_have_jobs_none_is_begun(service: GatewayService) -> None:
    answer = edit(service, 4, service.key(quota=Quota(in_flight=3)))

    # To send it again would never help, so it is no 429.
    assert answer.status_code == 400
    told = "The call asks for 4 pictures; this key may have 3 jobs at once. Ask for fewer."
    assert answer.json()["error"]["message"] == told
    assert service.published() == []


def test_of_more_pictures_than_the_key_has_room_for_now_none_is_begun(service: GatewayService) -> None:
    headers = service.key(quota=Quota(in_flight=3))
    service.accepted(headers=headers)
    answer = edit(service, 3, headers)

    assert answer.status_code == 429
    assert answer.json()["error"]["message"].startswith(
        "1 jobs have not ended and this call makes 3; this key may have 3."
    )
    assert len(service.published()) == 1


def test_of_more_pictures_than_the_key_has_cost_for_none_is_begun(service: GatewayService) -> None:
    service.accepted()
    (other,) = service.published()
    answer = edit(service, 4, service.key(quota=Quota(per_day=4 * other.cost - 1)))

    assert answer.status_code == 429
    assert f"this call takes {4 * other.cost}" in answer.json()["error"]["message"]
    assert service.published() == [other]


def test_a_picture_of_which_nobody_knows_whether_it_was_taken_is_canceled_with_the_others(
    service: GatewayService,
) -> None:
    service.faults.failing.add("published")  # the log has it, and the gateway does not hear so
    answer = edit(service, 2)

    assert answer.status_code == 503
    (job,) = service.published()
    poll(lambda: job.id in service.world.outcomes)
    assert service.world.outcomes[job.id].state is State.CANCELED
