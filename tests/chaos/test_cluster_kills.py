"""Processes of a real cluster are killed and paused under load; no accepted job may be lost. The ledger is our own."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster import ROLES, Cluster
from tests.ledger import Ledger

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

NAMES = (*ROLES, "kafka", "seaweedfs", "postgres", "nginx")


def _kill_now_and_then(cluster: Cluster, dice: random.Random, rounds: int) -> Counter[str]:
    """Each role and server once a round, in random order, whether or not what was killed before is back."""
    killed: Counter[str] = Counter()
    pause = threading.Event()
    for _ in range(rounds):
        for name in dice.sample(NAMES, len(NAMES)):
            pause.wait(dice.uniform(0.2, 3.0))
            cluster.kill(name)
            killed[name] += 1
    return killed


def test_no_accepted_job_is_lost_while_every_role_and_server_is_killed(
    cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("--long")
    jobs, rounds = (10_000, 20) if long else (1_000, 2)
    ledger, killed_all = Ledger(cluster.url, "quick", "kills"), threading.Event()
    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(_kill_now_and_then, cluster, random.Random(2026), rounds)
        killing.add_done_callback(lambda _: killed_all.set())
        # Spread over the killing, and what is left of it at once.
        ledger.submit_all(range(jobs), pace=killed_all, pace_s=8 * 12.0 * rounds / jobs)
        killed = killing.result()
    ledger.settle(within_s=300 if long else 90)
    ledger.look_again()

    assert killed == dict.fromkeys(NAMES, rounds)
    ledger.assert_all_succeeded(jobs)
    ledger.assert_polite()
