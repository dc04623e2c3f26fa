"""`sfumato up` followed by the example of the how-to, which knows nothing but Python."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sample_pictures import picture
from tests.service import Service, post_picture
from tests.sse import Stream
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
MODELS = '[models.quick]\nbackend = "simulated"\n[models.slow]\nbackend = "simulated"\npath = "slow"\n'


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, models=MODELS)
    service.simulate("slow", {"fixed_s": 0.2})
    with service:
        yield service


def submit(service: Service) -> str:
    status, answer = post_picture(service.url, picture(), model_name="quick", prompt="x")
    assert status == 202, answer
    return str(answer["id"])


def test_all_jobs_are_followed_over_the_deaths_of_gateway_and_recorder(service: Service, tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = [sys.executable, "-m", "examples.follow", service.url]
    with told.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT) as follower:
        try:
            poll(lambda: "open" in told.read_text())
            jobs = []
            for role in ("gateway", "recorder", "gateway"):
                jobs += [submit(service) for _ in range(5)]
                os.kill(service.roles()[role], signal.SIGKILL)
                poll(lambda: service.get("/readyz")[0] == 200, within_s=30)
            poll(lambda: told.read_text().count("final ") >= len(jobs), within_s=60)
            wanted = Counter({(kind, job): 1 for kind in ("queued", "started", "final") for job in jobs})
            assert lifecycle(told.read_text()) == wanted
        finally:
            follower.kill()


def test_one_jobs_stream_is_whole_over_the_deaths_of_gateway_and_recorder(service: Service) -> None:
    links = []
    for _ in range(5):
        answer = post_picture(service.url, picture(), model_name="slow", strength="1", num_inference_steps="20")[1]
        links.append(answer["events_url"])
    with ThreadPoolExecutor(len(links)) as clients:
        streams = [Stream(link) for link in links]
        following = [clients.submit(stream.follow, 60) for stream in streams]
        poll(lambda: all(stream.told for stream in streams), within_s=30)
        for role in ("gateway", "recorder", "gateway"):
            os.kill(service.roles()[role], signal.SIGKILL)
            poll(lambda: service.get("/readyz")[0] == 200, within_s=30)
        for each in following:
            each.result()
    assert max(stream.connections for stream in streams) > 1
    for stream in streams:
        assert [kind for kind, _ in stream.life] == ["queued", "started", "final"]
        assert len({place for _, place in stream.life}) == 3


def lifecycle(text: str) -> Counter[tuple[str, str]]:
    """How often each (kind, job) was told."""
    lines = [line.partition(" ") for line in text.splitlines()]
    told = [(kind, data.partition("'job_id': '")[2][:36]) for kind, _, data in lines]
    return Counter(each for each in told if each[0] in ("queued", "started", "returned", "retried", "final"))


def test_how_to_shows_the_example_as_it_is() -> None:
    assert (ROOT / "examples" / "follow.py").read_text() in (ROOT / "docs" / "how-to" / "follow.md").read_text()
