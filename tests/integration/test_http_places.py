"""Which place people are told their waiting job has, in status and in events, while others flood the queue."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.events import Share, Standing
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as running:
        yield running


def told(service: GatewayService, **changes: Any) -> None:
    """The dispatcher writes into the log how its queue stands."""
    plain: dict[str, Any] = {"slots": 1, "workers": 1, "oldest_created_at": None, "seconds_per_job": 1.0, "running": 1}
    standing = Standing(at=time.time(), **(plain | changes))
    service.world.topic(MODEL).events.append(standing.model_dump_json())


def test_a_single_job_is_not_told_that_it_waits_behind_the_flood(service: GatewayService) -> None:
    cost = 1_000.0
    flood = Share(owner="flood", jobs=(0, 3_000, 0), cost=round(3_000 * cost), charge=3_000 * cost, lead=cost)
    service.stand(waiting=3_000, running=1, running_cost=1_000, shares=(flood,), cost_per_s=cost)
    single = service.accepted()["id"]
    assert service.client.get(f"/api/jobs/{single}").json()["estimate"]["position"] == 1


def test_the_second_job_of_an_owner_stands_behind_the_first(service: GatewayService) -> None:
    share = Share(owner="local", jobs=(0, 2, 0), cost=2_000, charge=2_000.0)
    ids = [service.accepted()["id"] for _ in range(2)]
    service.fold()
    service.stand(waiting=2, running=1, running_cost=1_000, shares=(share,), cost_per_s=1_000.0)

    estimates = [service.client.get(f"/api/jobs/{job_id}").json()["estimate"] for job_id in ids]

    assert [each["position"] for each in estimates] == [1, 2]


def test_who_follows_a_waiting_job_is_told_its_place_whenever_it_moves_up(service: GatewayService) -> None:
    first, second = service.accepted(), service.accepted()
    cost = service.published()[0].cost
    service.stand(waiting=2, front=(first["id"], second["id"]), front_costs=(cost, cost), cost_per_s=cost / 4)
    front = {"front": (second["id"],), "front_costs": (cost,), "running_cost": cost, "cost_per_s": cost / 4}
    threading.Timer(0.3, told, [service], {"waiting": 1} | front).start()
    threading.Timer(0.6, told, [service], {"waiting": 1} | front).start()
    threading.Timer(0.9, service.start, [second["id"]]).start()
    service.end_soon(second["id"], after_s=1.2)

    text = service.client.get(second["events_url"]).text

    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    assert [block["event"] for block in blocks] == [
        *("queued", "waiting", "waiting", "started", "final"),
    ], "an unchanged one once"
    assert [json.loads(block["data"]) for block in blocks[1:3]] == [
        {"position": 2, "eta_s": 8.0},
        {"position": 1, "eta_s": 6.0},
    ]
    assert "id" not in blocks[1]
