"""One owner drops 3,000 jobs on a real service: the others hardly notice, and all are told the truth about when."""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.sample_pictures import picture
from tests.service import Service, answered
from tests.support import passable_folder, poll

FLOOD = 3_000
BATCH, STEPS, STEP_S = 4, 8, 0.025
MODELS = f"""
[models.busy]
backend = "simulated"
path = "busy"
batch = {BATCH}
max_workers = 1
"""
CLIENTS = 12


@dataclass
class Crowd:
    """A service with owners, each known by keys of its own."""

    service: Service
    environment: Mapping[str, str]
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, name: str, owner: str, *options: str) -> None:
        command = [sys.executable, "-m", "sfumato", "keys", "create", owner, *options]
        made = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(self.environment))
        self.keys[name] = made.stdout.strip()

    def ask(self, name: str, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[name]}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        answer = answered(urllib.request.Request(self.service.url + path, data, headers, method=method))
        assert answer.status < 300, answer
        return json.loads(answer.body)

    def upload(self, name: str) -> str:
        put = self.ask(name, "POST", "/api/uploads")
        request = urllib.request.Request(put["put_url"], picture(), {"Content-Type": "image/png"}, method="PUT")
        assert answered(request).status == 200
        identity: str = put["id"]
        return identity

    def drop(self, name: str, count: int) -> list[str]:
        """Submit so many jobs as fast as the service takes them; their ids."""
        asked = {"model_name": "busy", "prompt": name, "image": self.upload(name)}
        body = asked | {"num_inference_steps": STEPS, "strength": 1.0}
        with ThreadPoolExecutor(CLIENTS) as clients:
            return [answer["id"] for answer in clients.map(lambda _: self.ask(name, "POST", "/api/jobs", body), range(count))]

    def job(self, name: str, job_id: str) -> Any:
        return self.ask(name, "GET", f"/api/jobs/{job_id}")

    def ended(self, name: str) -> dict[str, Any]:
        """The owner's jobs that succeeded, by their ids."""
        found, path = dict[str, Any](), "/api/jobs?status=succeeded&limit=500"
        while path:
            page = self.ask(name, "GET", path)
            found |= {job["id"]: job for job in page["jobs"]}
            path = f"/api/jobs?status=succeeded&limit=500&cursor={page['next']}" if page["next"] else ""
        return found


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture(scope="module", params=["up", pytest.param("cluster", marks=pytest.mark.server)])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    with ExitStack() as stack:
        folder = stack.enter_context(passable_folder())
        service = Cluster(folder, models=MODELS) if request.param == "cluster" else Service(folder, models=MODELS)
        (service.data_dir / "busy").mkdir()
        (service.data_dir / "busy" / "simulated.json").write_text(json.dumps({"fixed_s": STEP_S}))
        stack.enter_context(service)
        yield Crowd(service, service.environment_of_roles())


@dataclass(frozen=True)
class Foretold:
    """What somebody was told of a job, and when."""

    name: str
    job_id: str
    at: float
    position: int
    eta_s: float


def foretold(crowd: Crowd, name: str, job_id: str) -> Foretold:
    at, told = time.time(), crowd.job(name, job_id)["estimate"]
    return Foretold(name, job_id, at, told["position"], told["eta_s"])


@pytest.mark.timeout(240)
def test_singles_beside_a_flood(crowd: Crowd) -> None:
    crowd.key("flood", "flood")
    crowd.key("ann", "ann")
    crowd.key("heavy", "heavy", "--weight", "3")
    crowd.key("light", "light")
    crowd.key("mixed", "mixed")
    crowd.key("mixed low", "mixed", "--max-priority", "low")
    t=time.time()
    warm = crowd.drop("ann", 2 * BATCH)
    poll(lambda: all(crowd.job("ann", job)["status"] == "succeeded" for job in warm), within_s=30)
    print("warm", time.time()-t); t=time.time()
    flood = crowd.drop("flood", FLOOD)
    print("flood", time.time()-t); t=time.time()
    singles=[]
    for _ in range(6):
        (job,) = crowd.drop("ann", 1)
        f = foretold(crowd, "ann", job)
        poll(lambda job=job: crowd.job("ann", job)["status"] == "succeeded", within_s=30)
        singles.append((job, f))
    print("singles", time.time()-t); t=time.time()
    ended = crowd.ended("flood")
    ends=[moment(j["finished_at"]) for j in ended.values()]
    for job, f in singles:
        j = crowd.job("ann", job)
        c, e = moment(j["created_at"]), moment(j["finished_at"])
        print(f, j["timings"], sum(c < x < e for x in ends), "actual", e-f.at)
    dropped = {name: crowd.drop(name, n) for name, n in (("mixed low", 20), ("mixed", 20), ("light", 60), ("heavy", 60))}
    print("mix", time.time()-t); t=time.time()
    time.sleep(1.2)
    n=len(crowd.ended("flood"))
    told=[foretold(crowd, "light", dropped["light"][k]) for k in (10,30, 59)]+[foretold(crowd,"flood",flood[n+k]) for k in (10,30,80)]
    told+=[foretold(crowd, "heavy", dropped["heavy"][k]) for k in (10,30, 59)]
    told+=[foretold(crowd, "mixed", dropped["mixed"][-1]),foretold(crowd, "mixed low", dropped["mixed low"][-1])]
    far=foretold(crowd,"flood",flood[-1])
    for f in told:
        poll(lambda: crowd.job(f.name, f.job_id)["status"] == "succeeded", within_s=60, every_s=.2)
    print("ended", time.time()-t); t=time.time()
    for f in told:
        j=crowd.job(f.name,f.job_id)
        print(f, "actual", moment(j["finished_at"])-f.at)
    print(far, foretold(crowd,"flood",flood[-1]), len(crowd.ended("flood")))
