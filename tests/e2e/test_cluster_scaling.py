"""On a whole cluster, over a real Kafka: a burst for one model raises its workers, its end lowers them."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.sample_pictures import picture
from tests.service import post_picture
from tests.support import passable_folder, poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

MODELS = """
[models.busy]
backend = "simulated"
path = "busy"
batch = 2
slots = 2
max_workers = 4

[models.calm]
backend = "simulated"
"""
JOBS = 200


def test_burst_raises_the_workers_of_its_model_and_the_end_lowers_them() -> None:
    environment = {"SFUMATO_SCALE_DOWN_S": "2", "SFUMATO_PLACES": "4"}
    with passable_folder() as folder:
        cluster = Cluster(folder, models=MODELS, environment=environment)
        cluster.simulate("busy", {"fixed_s": 0.4})
        with cluster:
            with ThreadPoolExecutor(8) as clients:
                jobs = list(clients.map(lambda _: _submit(cluster, "busy"), range(JOBS)))
            most = 0

            def ended() -> bool:
                nonlocal most
                most = max(most, len(cluster.pids("worker busy")))
                return _explained(cluster)["desired_replicas"] <= 1 and _states(cluster, jobs) == {"succeeded": JOBS}

            poll(ended, within_s=150, every_s=0.5)
            poll(lambda: len(cluster.pids("worker busy")) <= 1, within_s=60)

            (calm,) = [_submit(cluster, "calm")]
            poll(lambda: _states(cluster, [calm]) == {"succeeded": 1}, within_s=30)
    assert most >= 3


def _submit(cluster: Cluster, model: str) -> str:
    status, accepted = post_picture(cluster.url, picture(), model_name=model, prompt="x", num_inference_steps="8")
    assert status == 202, accepted
    return str(accepted["id"])


def _states(cluster: Cluster, jobs: list[str]) -> Counter[str]:
    return Counter(cluster.job(job)["status"] for job in jobs)


def _explained(cluster: Cluster) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(cluster.get("/api/scale/busy")[1])
    return parsed
