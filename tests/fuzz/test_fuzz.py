"""Whatever is sent to a real service: no 5xx, no hang, no file left behind. `make fuzz` sends 100,000 requests."""

import base64
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.fuzz.hostile import HANG_S, exchange, raw_requests
from tests.sample_pictures import picture
from tests.service import Service
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(3_600)]

MODELS = '[models.quick]\nbackend = "simulated"\nmax_backlog = 5000\n'
PICTURE = picture()
DATA_URL = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
OF_PROTOCOLS: dict[str, dict[str, Any]] = {
    "/sdapi/v1/img2img": {"init_images": [DATA_URL], "batch_size": 1, "n_iter": 1},
    "/sdapi/v1/options": {"sd_model_checkpoint": "quick"},
    "/v1/images/edits": {"image": PICTURE, "prompt": "x"},
    "/v1/models/{owner}/{name}/predictions": {"input": {"image": DATA_URL}},
    "/v1/predictions": {"version": "quick", "input": {"image": DATA_URL}},
}
STREAMS = ("/api/events", "/api/jobs/{job_id}/events")
"""They end with the job, or never: what is looked at is how they begin."""


@pytest.fixture
def budget(request: pytest.FixtureRequest) -> int:
    """How many requests to send in all."""
    return 100_000 if request.config.getoption("--long") else 2_000


@pytest.fixture(params=["open", "keys"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service, and the headers with which one may do everything in it."""
    started = Service(tmp_path, models=MODELS, environment={"SFUMATO_AUTH": request.param})
    headers = {}
    if request.param == "keys":
        command = [sys.executable, "-m", "sfumato", "keys", "create", "alice", "--scope", "admin"]
        environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(started.data_dir)}  # noqa: TID251 - the child's
        made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        headers = {"Authorization": f"Bearer {made.stdout.split()[-1]}"}
    with started:
        yield started, headers
        nothing_left_behind(started, headers)


def nothing_left_behind(service: Service, headers: dict[str, str]) -> None:
    """Every job that was accepted ends, and once it is deleted nothing of it is there."""
    with httpx.Client(base_url=service.url, headers=headers, timeout=HANG_S) as client:

        def listed(**query: str) -> list[str]:
            answer = client.get("/api/jobs", params={"limit": "500", **query})
            assert answer.status_code == 200, answer.text
            return [job["id"] for job in answer.json()["jobs"]]

        poll(lambda: not (listed(status="queued") or listed(status="running")), within_s=300, every_s=0.5)
        while jobs := listed():
            for job_id in jobs:
                assert client.delete(f"/api/jobs/{job_id}").status_code == 204
        assert client.get("/readyz").status_code == 200
    blobs = service.data_dir / "blobs"
    left = [path for path in blobs.rglob("*") if path.is_file() and path.relative_to(blobs).parts[0] not in KEPT]
    assert left == []


KEPT = ("uploads", "requests", "options")
"""An upload waits a day for its job; a request's key holds as long as its result would be kept; options stay."""


def sent(count: int, strategy: st.SearchStrategy[Any], send: Callable[[Any], int], statuses: Counter[int]) -> None:
    """Send `count` requests of this kind and count the answers."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(request=strategy)
    def each(request: Any) -> None:
        status = send(request)
        statuses[status] += 1
        assert status < 500, request

    each()


Case = schemathesis.Case[Any]


class Steered:
    """Sends what schemathesis made up; every other time of a real model, a real picture and jobs that are there."""

    def __init__(self, service: Service, headers: dict[str, str]) -> None:
        self._url, self._headers, self._session = service.url, headers, requests.Session()
        self._jobs: list[str] = []
        self._count = 0

    def __call__(self, case: Case) -> int:
        self._count += 1
        if self._count % 2:
            self._steer(case)
        asked = case.as_transport_kwargs(base_url=self._url, headers=self._headers if self._count % 5 else None)
        try:
            with self._session.request(**asked, stream=True, timeout=HANG_S, allow_redirects=False) as answer:
                if case.operation.path not in STREAMS:
                    self._remember(answer)
                return answer.status_code
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return 0  # it could not be sent at all

    def _steer(self, case: Case) -> None:
        if "job_id" in case.path_parameters and self._jobs:
            case.path_parameters["job_id"] = self._jobs[self._count % len(self._jobs)]
        if case.operation.path == "/api/diffusion":
            some = {name: case.query[name] for name in list(case.query)[:2]}
            case.query = {**some, "model_name": "quick", "prompt": "x"}
            case.body, case.media_type = cast("Any", PICTURE), "image/png"
        if (good := OF_PROTOCOLS.get(case.operation.path)) and isinstance(case.body, dict):
            case.body = {**case.body, **good}

    def _remember(self, answer: requests.Response) -> None:
        body = answer.content
        if answer.status_code == 202 and b'"result_url"' in body:
            self._jobs = [*self._jobs[-200:], answer.json()["id"]]


def test_requests_by_the_openapi_document(service: tuple[Service, dict[str, str]], budget: int) -> None:
    schema = schemathesis.openapi.from_url(f"{service[0].url}/openapi.json")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    send, statuses = Steered(*service), Counter[int]()
    for operation in operations:
        # Where every text is good, there is nothing to negate.
        cases = st.one_of(*(operation.as_strategy(mode) for mode in GenerationMode))
        sent(budget // 4 // len(operations), cases, send, statuses)
    assert statuses[202] > 0, statuses
    assert statuses[200] > 0, statuses


def test_requests_that_no_client_sends(service: tuple[Service, dict[str, str]], budget: int) -> None:
    started, headers = service
    host = urlsplit(started.url)
    address = (str(host.hostname), int(host.port or 0))
    statuses: Counter[int] = Counter()
    requests = raw_requests(host.netloc, tuple(f"{name}: {value}" for name, value in headers.items()))
    sent(budget // 4, requests, lambda request: exchange(address, request), statuses)
    assert {400, 404, 405, 422} < statuses.keys(), statuses
