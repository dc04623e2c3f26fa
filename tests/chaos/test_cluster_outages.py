"""What the service says and does while one of its servers is away, and when processes stand still or are replaced."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place
from tests.cluster import Cluster
from tests.ledger import Ledger
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

TAKEOVER_S = 3.0
"""The default of SFUMATO_TAKEOVER_S: the session of a dispatcher and of a worker."""


def _listed(cluster: Cluster, model: str) -> dict[str, str]:
    """Job → state of the model's newest jobs, as the rows have them."""
    status, body = cluster.get(f"/api/jobs?model_name={model}&limit=100")
    return {job["id"]: job["status"] for job in json.loads(body)["jobs"]} if status == 200 else {}


def _pictures_in_store(cluster: Cluster, job_id: str) -> int:
    """How many pictures of this job the object store holds, asked of the store itself."""
    place = S3Place(
        bucket=cluster.setting("s3_bucket"),
        endpoint=cluster.setting("s3_endpoint"),
        access_key_id=cluster.setting("s3_access_key_id"),
        secret_access_key=cluster.setting("s3_secret_access_key"),
    )
    return ask(place, "GET", query={"list-type": "2", "prefix": f"outputs/{job_id}/"}).body.count(b"<Key>")


@pytest.mark.parametrize("server", ["kafka", "seaweedfs"])
def test_while_a_server_of_the_accept_path_is_away_a_submit_is_told_to_come_back(cluster: Cluster, server: str) -> None:
    ledger = Ledger(cluster.url, "quick", f"{server} away")
    with cluster.without(server):
        begin = time.monotonic()
        answer = ledger.ask(0)
        took_s = time.monotonic() - begin
    ledger.submit(0)
    ledger.settle(within_s=30)

    assert answer.status == 503, answer.body
    assert int(answer.headers["Retry-After"]) >= 1
    assert took_s <= 2.5, "2 s, and what the way there takes on a busy machine"
    ledger.assert_all_succeeded(1)


def test_while_postgresql_is_away_jobs_are_accepted_and_made_and_their_rows_catch_up(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url, "quick", "postgres away")
    with cluster.without("postgres"):
        statuses = [ledger.ask(number).status for number in range(10)]
        ledger.settle(within_s=20)
    ours = {entry.job_id: "succeeded" for entry in ledger.entries.values()}

    poll(lambda: ours.items() <= _listed(cluster, "quick").items(), within_s=30, every_s=0.2)

    assert statuses == [202] * 10
    ledger.assert_all_succeeded(10)


def test_while_a_gateway_is_down_the_other_one_answers(cluster: Cluster) -> None:
    ledger, took_s = Ledger(cluster.url, "quick", "one gateway"), []
    old = cluster.kill("gateway")
    for number in range(20):
        begin = time.monotonic()
        ledger.submit(number)
        took_s.append(time.monotonic() - begin)
    ledger.settle(within_s=20)

    assert max(took_s) < 2.0, "a gateway needs longer than that to start"
    ledger.assert_all_succeeded(20)
    poll(lambda: len(cluster.pids("gateway")) == 2 and old not in cluster.pids("gateway"))


@pytest.mark.parametrize(("name", "within_s"), [("dispatcher", TAKEOVER_S + 4), ("kafka", 20.0)])
def test_hand_outs_go_on_soon_after_a_crash(cluster: Cluster, name: str, within_s: float) -> None:
    """Measured on an idle machine of two cores: 3.8 s after the dispatcher's, 3 s after Kafka is ready again (9 s)."""
    ledger = Ledger(cluster.url, "quick", f"{name} died")
    cluster.kill(name)
    ledger.submit(0, within_s)
    ledger.settle(within_s)
    ledger.assert_all_succeeded(1)


def test_what_a_worker_finishes_after_it_was_taken_for_dead_is_ignored(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url, "slow", "worker paused")
    ledger.ask(0)
    job_id = ledger.entries[0].job_id
    poll(lambda: cluster.job(job_id)["status"] == "running", within_s=20)

    with cluster.another("worker slow"):
        with cluster.paused("worker slow"):
            ledger.submit_all(range(1, 4))
            ledger.settle(within_s=60)
        given_up = f"given up: succeeded job={job_id}"
        poll(lambda: given_up in cluster.log.read_text(), within_s=20)
        ledger.look_again()

    ledger.assert_all_succeeded(4)
    assert [_pictures_in_store(cluster, entry.job_id) for entry in ledger.entries.values()] == [1] * 4


def test_a_dispatcher_that_wakes_up_after_another_took_over_gives_way(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url, "quick", "dispatcher paused")
    with cluster.another("dispatcher"):
        with cluster.paused("dispatcher"):
            ledger.submit_all(range(20))
            ledger.settle(within_s=TAKEOVER_S + 20)
            leads = "leads model=quick"
            assert leads in cluster.log_of_another.read_text()
            known = len(cluster.log.read_text())
        poll(lambda: "leaves sfumato.jobs.quick" in cluster.log.read_text()[known:], within_s=20)
        ledger.submit_all(range(20, 40))
        ledger.settle(within_s=30)
        ledger.look_again()

    ledger.assert_all_succeeded(40)
    assert {_pictures_in_store(cluster, entry.job_id) for entry in ledger.entries.values()} == {1}


def test_a_rolling_restart_under_load_loses_nothing_and_answers_everybody(cluster: Cluster) -> None:
    ledger, done = Ledger(cluster.url, "quick", "rolling"), threading.Event()

    def load() -> int:
        number = 0
        while not done.is_set():
            ledger.submit_all(range(number, number + 8), pace=done, pace_s=0.2)
            number += 8
        return number

    with ThreadPoolExecutor(1) as client:
        loading = client.submit(load)
        try:
            for name in ("gateway", "gateway", "worker quick"):
                _replaced(cluster, name)
        finally:
            done.set()
        jobs = loading.result()
    ledger.settle(within_s=60)
    ledger.look_again()

    ledger.assert_all_succeeded(jobs)
    ledger.assert_polite()
    assert ledger.answers["none"] == 0, ledger.answers


def _replaced(cluster: Cluster, name: str) -> None:
    """SIGTERM the oldest of these, and wait until its successor says that it is there."""
    known, how_many = len(cluster.log.read_text()), len(cluster.pids(name))
    old = cluster.signal(name, signal.SIGTERM)
    says = "Listening on" if name == "gateway" else "ready: quick"
    poll(lambda: says in cluster.log.read_text()[known:], within_s=30)
    assert len(cluster.pids(name)) == how_many
    assert old not in cluster.pids(name)
