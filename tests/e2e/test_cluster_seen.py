"""What can be seen of a cluster from outside: metrics on one port, a lag that grows and shrinks, a job's path."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sfumato.cluster.server import free_ports
from tests.cluster import Cluster
from tests.metrics import shown, value
from tests.sample_pictures import picture
from tests.service import SIMULATED, post_picture
from tests.support import passable_folder, poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

LAG = "sfumato_recorder_lag_seconds"


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Cluster]:
    with (
        passable_folder() as folder,
        Cluster(folder, models=SIMULATED, environment={"SFUMATO_METRICS_PORT": str(port)}) as cluster,
    ):
        yield cluster


def made(cluster: Cluster) -> str:
    """The id of a job that has succeeded."""
    status, accepted = post_picture(cluster.url, picture(), model_name="quick", prompt="x", num_inference_steps="4")
    assert status == 202, accepted
    poll(lambda: cluster.job(accepted["id"])["status"] == "succeeded", within_s=30)
    return str(accepted["id"])


def test_one_port_shows_what_all_processes_counted(cluster: Cluster, port: int) -> None:
    made(cluster)
    cluster.kill("recorder")
    restarted = poll(
        lambda: value(text := shown(port), 'sfumato_restarts_total{role="recorder"}') and text, within_s=20
    )
    assert value(restarted, 'sfumato_outcomes_total{model="quick",state="succeeded"}') == 1
    assert value(restarted, 'sfumato_accepts_total{model="quick",priority="normal"}') == 1


def test_lag_grows_while_the_database_is_away_and_is_gone_when_it_is_back(cluster: Cluster) -> None:
    gateway = cluster.setting("port")
    made(cluster)
    poll(lambda: value(shown(gateway), LAG) == 0, within_s=20)
    with cluster.without("postgres"):
        status, _ = post_picture(cluster.url, picture(), model_name="quick", prompt="meanwhile")
        assert status == 202
        poll(lambda: (value(shown(gateway), LAG) or 0) > 4, within_s=30, every_s=0.2)
    poll(lambda: value(shown(gateway), LAG) == 0, within_s=60, every_s=0.2)


def test_path_of_a_job_is_told_from_kafka_the_bucket_and_the_database(cluster: Cluster) -> None:
    job = made(cluster)
    script = f'set -a; . {cluster.data_dir}/cluster/env; set +a; exec "$@"'
    command = [sys.executable, "-m", "sfumato", "trace", job, "--json", "--data-dir", str(cluster.data_dir)]
    done = subprocess.run(
        ["bash", "-c", script, "--", *command], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    steps = [(step["place"], step["what"]) for step in json.loads(done.stdout)["steps"]]
    assert {
        ("log", "accepted"),
        ("log", "dispatched"),
        ("log", "started"),
        ("outcome", "decided, succeeded"),
        ("log", "ended, succeeded"),
        ("object", "input stored"),
        ("object", "picture stored"),
    } == set(steps)
