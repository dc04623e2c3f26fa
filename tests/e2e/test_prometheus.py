"""Every query of the dashboards and rules, asked of a real Prometheus after a real run with its share of trouble."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Self

import pytest

import sfumato
from tests.prometheus import Prometheus, expressions, prometheus, selectors
from tests.sample_pictures import picture
from tests.service import Answer, Service, answered, picture_request
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


def new_key(service: Service, *limits: str) -> str:
    """A new key of an owner, with these limits."""
    command = [sys.executable, "-m", "sfumato", "keys", "create", "alice", *limits]
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(service.data_dir)}  # noqa: TID251 - the child's
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


class Keys(NamedTuple):
    """One that may do all, and one for each limit, used up by its first request."""

    plain: str
    limited: Sequence[str]

    @classmethod
    def of(cls, service: Service) -> Self:
        limits = ("--rate", "0.001"), ("--in-flight", "1"), ("--per-day", "1")
        return cls(new_key(service), [new_key(service, *limit) for limit in limits])


def post(service: Service, key: str, **query: str) -> Answer:
    request = picture_request(service.url, picture(), **query)
    request.add_header("Authorization", f"Bearer {key}")
    return answered(request)


@contextmanager
def receivers() -> Iterator[Sequence[str]]:
    """Addresses of webhooks: one takes what comes, one fails, one wants no more."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield [f"http://127.0.0.1:{server.server_address[1]}/{status}" for status in (204, 500, 410)]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def traffic(service: Service, keys: Keys) -> Iterator[None]:
    """Jobs of all priorities, some of which fail, their webhooks, and requests that are refused, again and again."""
    enough = threading.Event()

    def send(hooks: Sequence[str]) -> None:
        turns = zip(itertools.cycle(FATES), itertools.cycle(PRIORITIES), itertools.cycle(hooks), strict=False)
        for fate, priority, hook in turns:
            with suppress(OSError):
                told = {"prompt": fate, "priority": priority, "num_inference_steps": "8", "webhook_url": hook}
                post(service, keys.plain, model_name="quick", **told)
                post(service, keys.plain, model_name="unknown", prompt=fate)
                post(service, keys.plain, model_name="gone", prompt=fate)
                for key in (*keys.limited, "no-key"):
                    post(service, key, model_name="quick", prompt=fate)
                service.get(f"/api/jobs?key={keys.plain}")
            if enough.wait(0.25):
                return

    with receivers() as hooks:
        thread = threading.Thread(target=send, args=(hooks,))
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
        "SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8",
        "SFUMATO_RATES_URL": "valkey://127.0.0.1:1",  # nothing is there
    }
    service = Service(folder, models=MODELS, environment=settings)
    service.simulate("quick", {"fixed_s": 0.02})
    service.simulate("poisoned", {"dies_for_prompt": "poison"})
    with service:
        yield service


@pytest.fixture(scope="module")
def keys(service: Service) -> Keys:
    return Keys.of(service)


def has_grown(watch: Prometheus, expression: str) -> bool:
    return sum(watch.values(expression).values()) > 0


@pytest.fixture(scope="module")
def watching(service: Service, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after a run in which whatever is counted has happened, and while more of it happens."""
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, service.url.removeprefix("http://")) as watch, traffic(service, keys):
        for model, prompt in (("lonely", "waits"), ("poisoned", "poison")):
            answer = post(service, keys.plain, model_name=model, prompt=prompt)
            assert answer.status == 202, answer
        given_up = 'sfumato_webhook_deliveries_total{result="given_up"}'
        for counted in ("sfumato_dead_letters_total", "sfumato_expired_total", "sfumato_retries_total", given_up):
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


@pytest.mark.parametrize("policy", ["requests", "jobs-in-flight", "pixel-steps"])
def test_each_limit_is_seen_that_was_used_up(watching: Prometheus, policy: str) -> None:
    poll(partial(has_grown, watching, f'sfumato_quota_refusals_total{{policy="{policy}"}}'), every_s=0.5)


@pytest.mark.parametrize("result", ["delivered", "failed", "given_up"])
def test_each_end_of_a_webhook_is_seen(watching: Prometheus, result: str) -> None:
    for name in ("deliveries_total", "attempt_seconds_count"):
        poll(partial(has_grown, watching, f'sfumato_webhook_{name}{{result="{result}"}}'), every_s=0.5)


def test_alerts_fire_for_what_they_are_about_and_for_nothing_else(
    service: Service, keys: Keys, watching: Prometheus
) -> None:
    post(service, keys.plain, model_name="lonely", prompt="waits too")
    expected = {
        ("NoWorkerForWaitingJobs", "lonely"),
        ("DeadLetters", "poisoned"),
        ("ManyFailedJobs", "quick"),
        ("RequestsFail", ""),
        ("ProcessesEnd", "worker"),
        ("KeyInAddress", ""),
        ("RatesCountedAlone", ""),
        ("WebhooksFail", ""),
        ("WebhooksGivenUp", ""),
    }
    # Two fail wholly: of one the only job is a dead letter, of the other the only one has expired.
    silent = {"ManyDuplicates", "OldestJobTooOld", "RecorderLag", "NothingToScrape", "KeysNotRead", "WebhooksLate"}

    poll(lambda: expected <= watching.firing(), within_s=20, every_s=0.5)
    assert not {name for name, _ in watching.firing()} & silent


def test_alerts_fire_for_a_service_that_is_gone(service: Service, watching: Prometheus) -> None:
    service.stop()
    gone = {"NothingToScrape", "RecorderLag"}
    poll(lambda: gone <= {name for name, _ in watching.firing()}, within_s=20, every_s=0.5)
