"""One owner drops 3,000 jobs on a real service: the others hardly notice, and all are told the truth about when."""

import base64
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.sample_pictures import picture
from tests.service import Service, answered
from tests.support import passable_folder, poll

pytestmark = pytest.mark.timeout(300)

FLOOD = 3_000
BATCH, STEPS, STEP_S = 4, 8, 0.04
MODELS = f"""
[models.busy]
backend = "simulated"
path = "busy"
batch = {BATCH}
max_workers = 1
"""
CLIENTS = 12
IMAGE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
SINGLES = 6
SLACK_S = 1.0
"""What is told is up to a second old."""
BEAT_S = 0.25
"""What is told of running jobs is as old as that."""


@dataclass
class Crowd:
    """A service with owners, each known by keys of its own."""

    service: Service
    environment: Mapping[str, str]
    keys: dict[str, str] = field(default_factory=dict)
    flood: Sequence[str] = ()

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

    def drop(self, name: str, count: int) -> list[str]:
        """Submit so many jobs as fast as the service takes them; their ids."""
        asked = {"model_name": "busy", "prompt": name, "image": IMAGE}
        body = asked | {"num_inference_steps": STEPS, "strength": 1.0}
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = clients.map(lambda _: self.ask(name, "POST", "/api/jobs", body), range(count))
            return [answer["id"] for answer in answers]

    def job(self, name: str, job_id: str) -> Any:
        return self.ask(name, "GET", f"/api/jobs/{job_id}")

    def finish(self, name: str, jobs: Sequence[str]) -> None:
        """Wait until all of these have succeeded."""
        for job_id in jobs:
            poll(partial(self._succeeded, name, job_id), within_s=60, every_s=0.05)

    def _succeeded(self, name: str, job_id: str) -> bool:
        return bool(self.job(name, job_id)["status"] == "succeeded")

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


@dataclass(frozen=True)
class Foretold:
    """What somebody was told of a job, and when."""

    name: str
    job_id: str
    at: float
    position: int
    eta_s: float


def foretold(crowd: Crowd, name: str, job_id: str) -> Foretold | None:
    """Place 0 of one that runs; None of one that has ended."""
    at, told = time.time(), crowd.job(name, job_id)["estimate"]
    return told and Foretold(name, job_id, at, told["position"], told["eta_s"])


def foretold_soon(crowd: Crowd, name: str, job_id: str) -> Foretold | None:
    """As soon as the gateway asked knows the job, which another one may have accepted; None if it ends before."""

    def told() -> list[Foretold | None]:
        if expected := foretold(crowd, name, job_id):
            return [expected]
        return [None] if crowd.job(name, job_id)["finished_at"] else []

    (found,) = poll(told, within_s=30)
    return found  # type: ignore[no-any-return]  # poll gives what told gave


@pytest.fixture(scope="module", params=["up", pytest.param("cluster", marks=pytest.mark.server)])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """A service that knows how fast its model is, with a flood in its queue."""
    with ExitStack() as stack:
        folder = stack.enter_context(passable_folder())
        service = Cluster(folder, models=MODELS) if request.param == "cluster" else Service(folder, models=MODELS)
        service.simulate("busy", {"fixed_s": STEP_S})
        stack.enter_context(service)
        crowd = Crowd(service, service.environment_of_roles())
        for name in ("flood", "ann"):
            crowd.key(name, name)
        crowd.finish("ann", crowd.drop("ann", 4 * BATCH))
        crowd.flood = crowd.drop("flood", FLOOD)
        yield crowd


def test_single_jobs_wait_no_longer_than_the_running_batch_and_one_more(crowd: Crowd) -> None:
    told = []
    for _ in range(SINGLES):
        (job,) = crowd.drop("ann", 1)
        told.append((job, foretold_soon(crowd, "ann", job)))
        crowd.finish("ann", [job])
    ends = sorted(moment(job["finished_at"]) for job in crowd.ended("flood").values())
    # How many of the flood ended meanwhile is a clock that goes as slowly as the machine.
    before, off, took = [], [0.0], [0.0]
    for job, expected in told:
        shown = crowd.job("ann", job)
        came, ended = moment(shown["created_at"]), moment(shown["finished_at"])
        before.append(bisect(ends, ended) - bisect(ends, came))
        if expected:
            took.append(ended - expected.at)
            off.append(abs(expected.eta_s - took[-1]))

    assert statistics.median(before) <= 3 * BATCH, "the running batch, one more, and its own"
    assert max(before) <= 6 * BATCH, before
    assert all(expected.position <= 2 * BATCH for _, expected in told if expected), told
    assert statistics.median(off) <= statistics.median(took) / 3 + BEAT_S, list(zip(off, took, strict=True))


def test_owners_get_their_weights_and_everybody_is_told_when(crowd: Crowd) -> None:
    crowd.key("heavy", "heavy", "--weight", "3")
    crowd.key("light", "light")
    crowd.key("plain", "mixed")
    crowd.key("low", "mixed", "--max-priority", "low")
    # Low ones last: while no others of theirs wait, their turns are nobody else's.
    sizes = {"plain": 16, "low": 8, "light": 40, "heavy": 40}
    dropped = {name: crowd.drop(name, count) for name, count in sizes.items()}
    poll(lambda: foretold(crowd, "heavy", dropped["heavy"][-1]), within_s=10)
    threading.Event().wait(1.5)  # the dispatcher tells once a second how its queue stands
    gone = len(crowd.ended("flood"))
    asked = [("light", dropped["light"][n]) for n in (19, 29, 39)]
    asked += [("flood", crowd.flood[gone + n]) for n in (25, 45)]
    asked += [("heavy", dropped["heavy"][39])]
    told = [expected for name, job in asked if (expected := foretold(crowd, name, job))]
    last = foretold(crowd, "flood", crowd.flood[-1])
    assert last
    for expected in told:
        crowd.finish(expected.name, [expected.job_id])
    crowd.finish("heavy", dropped["heavy"][-1:])
    ends = [moment(job["finished_at"]) for name in set(crowd.keys) - {"low"} for job in crowd.ended(name).values()]
    took = {
        (each.name, each.job_id): moment(crowd.job(each.name, each.job_id)["finished_at"]) - each.at for each in told
    }
    off = {(each.name, each.position): (each.eta_s, took[each.name, each.job_id]) for each in told}
    assert len(told) >= 4, "the others were too quick to be asked about"
    assert all(abs(eta_s - took_s) <= took_s / 3 + SLACK_S for eta_s, took_s in off.values()), off
    # The last of the flood ends long after this test: as far as was seen, what was told of it holds.
    seen_s = max(took.values())
    done = sum(last.at < at <= last.at + seen_s for at in ends)
    assert last.position / last.eta_s == pytest.approx(done / seen_s, rel=1 / 3)

    began = {
        name: sorted(moment(job["started_at"]) for job in crowd.ended(name).values()) for name in ("heavy", "light")
    }
    light_beside = bisect(began["light"], began["heavy"][-1]) - bisect(began["light"], began["heavy"][0])
    assert 40 / 5 <= light_beside <= 40 / 2, "a weight of 3 beside one of 1"
    mixed = sorted(crowd.ended("plain").values(), key=lambda job: moment(job["started_at"]))
    plain_last = max(place for place, job in enumerate(mixed) if job["priority"] == "normal")
    low_before = [job["priority"] for job in mixed[:plain_last]].count("low")
    assert low_before <= 16 * 5 / 25 + BATCH, "low has 5 turns beside 25"
