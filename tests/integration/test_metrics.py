"""Metrics of real processes: on a port of their own, and shared by all processes of one host."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sfumato.cluster.server import free_ports
from sfumato.config import child_environment, load_settings
from sfumato.observability import exposition, forget_process
from tests.metrics import shown, value
from tests.sample_pictures import picture
from tests.service import Service, post_picture
from tests.support import poll

NAMED = """
[models."Quick One"]
backend = "simulated"
batch = 4
"""


def succeeded(service: Service, job_id: str) -> bool:
    return bool(service.job(job_id)["status"] == "succeeded")


@contextmanager
def role(folder: Path, name: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    environment = child_environment(load_settings(data_dir=folder, metrics_port=port))
    with subprocess.Popen([sys.executable, "-m", "sfumato", *name.split()], env=environment) as child:
        yield child
        child.kill()


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("dispatcher", 'sfumato_dead_letters_total{model="restyle"}'),
        ("recorder", "sfumato_recorder_lag_seconds"),
        ("worker restyle", 'sfumato_retries_total{model="restyle"}'),
    ],
)
def test_role_without_http_shows_its_metrics_on_the_port_it_is_given(tmp_path: Path, name: str, series: str) -> None:
    (port,) = free_ports(1)
    with role(tmp_path, name, port) as child:
        text = poll(lambda: value(text := shown(port), series) is not None and text, within_s=30)
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0

    assert value(text, series) == 0
    assert "process_start_time_seconds" in text


def test_port_that_is_taken_is_named_at_start(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with role(tmp_path, "recorder", port):
        poll(lambda: shown(port), within_s=20)
        environment = child_environment(load_settings(data_dir=tmp_path, metrics_port=port))
        command = [sys.executable, "-m", "sfumato", "dispatcher"]
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert second.returncode == 1
    assert "SFUMATO_METRICS_PORT" in second.stderr
    assert "Traceback" not in second.stderr


def test_up_shows_what_all_its_processes_counted_on_one_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Service(tmp_path, models=NAMED, environment={"SFUMATO_METRICS_PORT": str(port)}) as service:
        for priority in ("high", "low"):
            _, accepted = post_picture(
                service.url, picture(), model_name="Quick One", prompt="x", num_inference_steps="4", priority=priority
            )
            poll(partial(succeeded, service, accepted["id"]), within_s=20)
        os.kill(service.roles()["worker"], signal.SIGKILL)
        poll(lambda: value(shown(port), 'sfumato_restarts_total{role="worker"}') == 1, within_s=20)
        text, of_gateway = shown(port), service.get("/metrics")[1].decode()

    for found in (text, of_gateway):
        assert value(found, 'sfumato_accepts_total{model="quick-one",priority="high"}') == 1
        assert value(found, 'sfumato_outcomes_total{model="quick-one",state="succeeded"}') == 2
        assert value(found, 'sfumato_restarts_total{role="worker"}') == 1
    assert set(re.findall(r'model="([^"]*)"', text)) == {"quick-one"}, "the slug, whoever counts"
    stages = set(re.findall(r'stage="(\w+)"', text))
    assert stages == {"fetch", "decode", "generate", "filter", "encode", "store", "decide"}
    assert value(text, 'sfumato_waiting_jobs{model="quick-one",priority="low"}') == 0
    assert value(text, "sfumato_disk_free_bytes")


SETS = """
import sys
from sfumato.observability import count, gauge
gauge("sfumato_running_jobs", float(sys.argv[1]), model="m")
gauge("sfumato_waiting_jobs", float(sys.argv[1]), model="m", priority="low")
count("sfumato_retries_total", model="m")
print("set", flush=True)
sys.stdin.read()
"""


@contextmanager
def setting(number: int, environment: Mapping[str, str]) -> Iterator[int]:
    """A process that shares its metrics and has set two gauges to `number`; its id."""
    command = [sys.executable, "-c", SETS, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"set\n"
        yield child.pid
        child.kill()


def test_gauges_of_several_processes_are_summed_or_the_newest_counts_and_the_dead_have_none(tmp_path: Path) -> None:
    running, waiting = 'sfumato_running_jobs{model="m"}', 'sfumato_waiting_jobs{model="m",priority="low"}'
    environment = child_environment(load_settings(metrics_dir=tmp_path))
    with setting(3, environment):
        with setting(5, environment) as second:
            both = exposition(tmp_path).decode()
        forget_process(second, tmp_path)
        left = exposition(tmp_path).decode()

    assert (value(both, running), value(both, waiting)) == (8, 5)
    assert (value(left, running), value(left, waiting)) == (3, 3)
    assert value(left, 'sfumato_retries_total{model="m"}') == 2, "what was counted has happened"
