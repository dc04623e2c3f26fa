"""Processes of a real cluster are killed and paused under load; no accepted job may be lost. The ledger is our own."""

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster import ROLES, Cluster
from tests.ledger import Ledger
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PACE = 32
"""Eight clients, and eight kills a round with half of the longest pause between them."""
NAMES = (*ROLES, "kafka", "seaweedfs", "postgres", "nginx")


def _kill_now_and_then(cluster: Cluster, dice: random.Random, rounds: int, longest_pause_s: float) -> Counter[str]:
    """Each role and server once a round, in random order, whether or not what was killed before is back."""
    killed: Counter[str] = Counter()
    pause = threading.Event()
    for _ in range(rounds):
        for name in dice.sample(NAMES, len(NAMES)):
            pause.wait(dice.uniform(0.2, longest_pause_s))
            cluster.kill(name)
            killed[name] += 1
    return killed


def _recorded(cluster: Cluster) -> dict[str, str]:
    """Job → state, as the rows have it."""
    states, page = dict[str, str](), "?model_name=quick&limit=100"
    while page:
        status, body = cluster.get(f"/api/jobs{page}")
        told = json.loads(body) if status == 200 else {"jobs": [], "next": None}
        states |= {job["id"]: job["status"] for job in told["jobs"]}
        page = f"?model_name=quick&limit=100&cursor={told['next']}" if told["next"] else ""
    return states


def test_no_accepted_job_is_lost_while_every_role_and_server_is_killed(
    cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("--long")
    jobs, rounds, longest_pause_s = (10_000, 8, 8.0) if long else (1_000, 2, 3.0)
    ledger, killed_all = Ledger(cluster.url, "quick", "kills"), threading.Event()
    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(_kill_now_and_then, cluster, random.Random(2026), rounds, longest_pause_s)
        killing.add_done_callback(lambda _: killed_all.set())
        # Spread over the killing, and what is left of it at once.
        ledger.submit_all(range(jobs), pace=killed_all, pace_s=PACE * rounds * longest_pause_s / jobs)
        killed = killing.result()
    ledger.settle(within_s=300 if long else 90)
    ledger.look_again()
    ours = {entry.job_id: "succeeded" for entry in ledger.entries.values()}
    poll(lambda: ours.items() <= _recorded(cluster).items(), within_s=60, every_s=0.5)

    assert killed == dict.fromkeys(NAMES, rounds)
    ledger.assert_all_succeeded(jobs)
    ledger.assert_polite()
