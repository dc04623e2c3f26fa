"""A job's trace, from its accept to its stored picture, as a collector gets it from a real service."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.collector import Collector, Taken, collecting
from tests.sample_pictures import picture
from tests.service import Service, answered, picture_request
from tests.support import poll

PARTS = {
    "accept": {"store", "publish"},
    "run": {"fetch", "decode", "generate", "filter", "encode", "store", "decide"},
}
"""Span → the spans in it. There is a `store` in each: the input's and the picture's."""


def made(service: Service, **headers: str) -> str:
    """The id of a job that has succeeded."""
    request = picture_request(service.url, picture(), model_name="quick", prompt="x", num_inference_steps="4")
    for name, value in headers.items():
        request.add_header(name, value)
    answer = answered(request)
    assert answer.status == 202, answer.body
    job_id = str(answer.headers["Location"]).rpartition("/")[2].partition("?")[0]
    poll(lambda: service.job(job_id)["status"] == "succeeded", within_s=20)
    return job_id


def spans_of(collector: Collector, job_id: str) -> list[Taken]:
    trace = next(span.trace for span in collector.spans if span.attributes.get("sfumato.job") == job_id)
    return [span for span in collector.spans if span.trace == trace]


def children(spans: list[Taken], parent: Taken) -> dict[str, Taken]:
    return {span.name: span for span in spans if span.parent == parent.id}


def test_spans_of_one_job_are_one_trace_with_each_part_in_its_place(tmp_path: Path) -> None:
    with collecting() as collector:
        with Service(tmp_path, environment={"SFUMATO_OTLP_ENDPOINT": collector.url}) as service:
            first, second = made(service), made(service)
        spans = spans_of(collector, first)

    (accept,) = [span for span in spans if span.name == "accept"]
    assert accept.parent == ""
    assert children(spans, accept).keys() == PARTS["accept"] | {"wait", "run"}
    run, wait = children(spans, accept)["run"], children(spans, accept)["wait"]
    assert children(spans, run).keys() == PARTS["run"]
    assert len(spans) == 3 + len(PARTS["accept"]) + len(PARTS["run"])
    assert {span.service for span in spans} == {"sfumato-gateway", "sfumato-worker"}
    assert run.attributes["sfumato.attempt"] == 0
    for part in children(spans, run).values():
        assert run.began_at <= part.began_at <= part.ended_at <= run.ended_at
    assert accept.began_at <= wait.began_at <= wait.ended_at
    assert {span.trace for span in spans}.isdisjoint({span.trace for span in spans_of(collector, second)})


def test_the_callers_trace_goes_on(tmp_path: Path) -> None:
    trace, parent = "1" * 32, "2" * 16
    with collecting() as collector:
        # The variable that OpenTelemetry's own programs read.
        with Service(tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as service:
            job_id = made(service, traceparent=f"00-{trace}-{parent}-01")
            other = made(service, traceparent="nonsense")
        spans = spans_of(collector, job_id)

    assert {span.trace for span in spans} == {trace}
    assert [span.parent for span in spans if span.name == "accept"] == [parent]
    assert {span.trace for span in spans_of(collector, other)} != {trace}


def test_a_collector_that_is_away_holds_up_nobody(tmp_path: Path) -> None:
    with Service(tmp_path, environment={"SFUMATO_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as service:
        made(service)
        assert service.stop(within_s=10) == 0
        assert "is killed" not in service.log.read_text()


@pytest.mark.parametrize("role", ["gateway.app", "worker.worker", "dispatcher.dispatcher", "recorder.recorder"])
def test_without_an_endpoint_nothing_that_sends_traces_is_loaded(role: str) -> None:
    # The API alone comes with FastAPI.
    script = (
        "SENDING = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        f"import sys, sfumato.{role}; from sfumato.observability import setup_tracing, span; setup_tracing('x', '')\n"
        "with span('accept'): print([name for name in sys.modules if name.startswith(SENDING)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_it_is_said_and_pictures_are_made(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from sfumato.observability import setup_logging, setup_tracing, traceparent\n"
        "setup_logging('worker', 'info', 'text'); setup_tracing('worker', 'http://127.0.0.1:9'); print(traceparent())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert "pip install 'sfumato[otel]'" in done.stderr
