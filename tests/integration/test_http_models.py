"""What a gateway tells of a model that can't be served, while it serves the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.events import Alive
from tests.integration.gateway_service import MODELS, GatewayService, gateway_service, problem
from tests.support import poll

LOST = f"""{MODELS}
[models.lost]
backend = "simulated"
path = "weights"
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, LOST) as running:
        yield running


def shown(service: GatewayService, name: str) -> dict[str, Any]:
    (found,) = [model for model in service.client.get("/api/models").json()["models"] if model["name"] == name]
    return dict(found)


def test_model_without_its_folder_is_shown_broken_and_the_others_are_served(service: GatewayService) -> None:
    lost = shown(service, "lost")

    assert (lost["state"], lost["workers"], lost["backlog"]["waiting"]) == ("broken", 0, 0)
    assert "weights' is no folder" in lost["trouble"]
    assert shown(service, "quick")["trouble"] is None
    assert service.accepted()["status"] == "queued"


def test_submit_to_a_model_without_its_folder_is_told_why(service: GatewayService) -> None:
    response = service.submit(model_name="lost")

    assert "weights' is no folder" in problem(response, 503, "broken-model")["detail"]
    assert int(response.headers["retry-after"]) >= 30  # longer than clients try by themselves
    problem(service.submit(model_name="lost", strength=7), 503, "broken-model")
    problem(service.client.get("/api/scale/lost"), 503, "broken-model")


def test_jobs_of_a_broken_model_are_listed_all_the_same(service: GatewayService) -> None:
    assert service.client.get("/api/jobs", params={"model_name": "lost"}).json() == {"jobs": [], "next": None}


def test_model_is_served_when_its_folder_is_there_again(service: GatewayService, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()

    poll(lambda: shown(service, "lost")["state"] == "idle")
    assert service.accepted(model_name="lost")["status"] == "queued"


def test_trouble_of_a_worker_is_shown_until_one_lives(service: GatewayService) -> None:
    live = service.app.state.gateway.live
    now = service.app.state.gateway.clock()
    live.apply("quick", 1, Alive(at=now, worker="w", slots=0, lanes=(), draining=True, trouble="no unet"), now)
    broken = shown(service, "quick")
    live.apply("quick", 2, Alive(at=now, worker="x", slots=1, lanes=(0,)), now)

    assert (broken["state"], broken["trouble"]) == ("broken", "no unet")
    assert (shown(service, "quick")["state"], shown(service, "quick")["trouble"]) == ("ready", None)
    assert broken["rules"]["shapes"]
