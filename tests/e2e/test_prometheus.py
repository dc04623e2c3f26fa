"""Every query of the dashboards and rules, asked of a real Prometheus after a real run with its share of trouble."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

import sfumato
from tests.prometheus import Prometheus, expressions, prometheus, selectors
from tests.sample_pictures import picture
from tests.service import Service, post_picture
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

SOURCE = Path(sfumato.__file__).parent
MODELS = """
[models.quick]
backend = "simulated"
path = "quick"
batch = 4
output_filter = "picky:look"

[models.poisoned]
backend = "simulated"
path = "poisoned"

[models.lonely]
backend = "simulated"
output_filter = "nowhere:nothing"

[models.gone]
path = "nowhere"
"""
PICKY = """
def look(pixels, prompt):
    if prompt == "glitch":
        raise ValueError("a glitch")
    return None if prompt == "refused" else pixels
"""
FATES = ("made", "made", "refused", "made", "glitch")
PRIORITIES = ("high", "normal", "low")

ELSEWHERE = {"sfumato_gpu_memory_used_bytes", "sfumato_gpu_memory_total_bytes"}
"""What only a machine with a GPU shows."""
if not (SOURCE / "controller" / "controller.py").exists():
    ELSEWHERE |= {"sfumato_desired_replicas", "sfumato_replicas"}


def asked_here(expression: str) -> bool:
    return not any(selector.partition("{")[0] in ELSEWHERE for selector in selectors(expression))


EXPRESSIONS = [(where, expression) for where, expression in expressions() if asked_here(expression)]


@contextmanager
def traffic(service: Service) -> Iterator[None]:
    """Jobs of all priorities, some of which fail, and requests that are refused, four times a second."""
    enough, small = threading.Event(), picture()

    def send() -> None:
        for fate, priority in zip(itertools.cycle(FATES), itertools.cycle(PRIORITIES), strict=False):
            with suppress(OSError):
                post_picture(
                    service.url, small, model_name="quick", prompt=fate, priority=priority, num_inference_steps="8"
                )
                post_picture(service.url, small, model_name="unknown", prompt=fate)
                post_picture(service.url, small, model_name="gone", prompt=fate)
            if enough.wait(0.25):
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "picky.py").write_text(PICKY)
    settings = {
        "PYTHONPATH": f"{folder}:{SOURCE.parent}",
        "SFUMATO_JOB_WAIT_S": "40",
    }
    service = Service(folder, models=MODELS, environment=settings)
    for name, costs in {"quick": {"fixed_s": 0.02}, "poisoned": {"dies_for_prompt": "poison"}}.items():
        (service.data_dir / name).mkdir()
        (service.data_dir / name / "simulated.json").write_text(json.dumps(costs))
    with service:
        yield service


def has_grown(watch: Prometheus, expression: str) -> bool:
    return sum(watch.values(expression).values()) > 0


@pytest.fixture(scope="module")
def watching(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after a run in which whatever is counted has happened, and while more of it happens."""
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, service.url.removeprefix("http://")) as watch, traffic(service):
        for model, prompt in (("lonely", "waits"), ("poisoned", "poison")):
            status, answer = post_picture(service.url, picture(), model_name=model, prompt=prompt)
            assert status == 202, answer
        for counted in ("sfumato_dead_letters_total", "sfumato_expired_total", "sfumato_retries_total"):
            poll(partial(has_grown, watch, counted), within_s=90, every_s=0.5)
        yield watch


def test_prometheus_takes_what_the_service_shows(watching: Prometheus) -> None:
    (target,) = watching.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize("expression", [each for _, each in EXPRESSIONS], ids=[where for where, _ in EXPRESSIONS])
def test_query_has_an_answer(watching: Prometheus, expression: str) -> None:
    assert poll(lambda: watching.values(expression), within_s=10, every_s=0.5)


def test_what_went_wrong_is_seen(watching: Prometheus) -> None:
    for name in ("retries", "redeliveries", "expired", "dead_letters", "restarts"):
        poll(partial(has_grown, watching, f"increase(sfumato_{name}_total[15m])"), every_s=0.5)


def test_alerts_fire_for_what_they_are_about_and_for_nothing_else(service: Service, watching: Prometheus) -> None:
    post_picture(service.url, picture(), model_name="lonely", prompt="waits too")
    expected = {
        ("NoWorkerForWaitingJobs", "lonely"),
        ("DeadLetters", "poisoned"),
        ("ManyFailedJobs", "quick"),
        ("RequestsFail", ""),
        ("ProcessesEnd", "worker"),
    }
    # Two fail wholly: of one the only job is a dead letter, of the other the only one has expired.
    silent = {"ManyDuplicates", "OldestJobTooOld", "RecorderLag", "NothingToScrape"}

    poll(lambda: expected <= watching.firing(), within_s=20, every_s=0.5)
    assert not {name for name, _ in watching.firing()} & silent


def test_alerts_fire_for_a_service_that_is_gone(service: Service, watching: Prometheus) -> None:
    service.stop()
    gone = {"NothingToScrape", "RecorderLag"}
    poll(lambda: gone <= {name for name, _ in watching.firing()}, within_s=20, every_s=0.5)
