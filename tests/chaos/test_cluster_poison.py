"""A job that kills its workers, in a batch of innocents: it is found by running alone, and they are made as well."""

import json
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.cluster import Cluster
from tests.ledger import Ledger
from tests.sample_pictures import picture
from tests.service import answered, post_picture, stream
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]


def _dead(cluster: Cluster, verb: str, *arguments: str) -> str:
    """What `sfumato dead …` prints."""
    command = [sys.executable, "-m", "sfumato", "dead", verb, *arguments, "--url", cluster.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _buried(cluster: Cluster) -> list[dict[str, Any]]:
    """The dead letters in Kafka, read as any other system would."""
    settings = {"bootstrap.servers": cluster.setting("kafka_servers"), "group.id": "others"}
    consumer: Any = Consumer(settings | {"auto.offset.reset": "earliest", "enable.partition.eof": True})
    letters: list[dict[str, Any]] = []
    try:
        consumer.assign([TopicPartition("sfumato.dead.poisoned", 0, OFFSET_BEGINNING)])
        while (message := consumer.poll(10.0)) is not None and message.error() is None:
            letters.append(json.loads(message.value()))
    finally:
        consumer.close()
    return letters


def test_a_job_that_kills_its_workers_becomes_a_dead_letter_and_its_neighbours_are_made(cluster: Cluster) -> None:
    neighbours, known = Ledger(cluster.url, "poisoned", "neighbours"), len(cluster.log.read_text())
    neighbours.submit_all(range(2))
    _, poison = post_picture(cluster.url, picture(), model_name="poisoned", prompt="poison")
    neighbours.submit_all(range(2, 5))

    events = list(stream(poison["events_url"]))
    neighbours.settle(within_s=60)
    link = answered(urllib.request.Request(poison["result_url"]))

    assert events[-1][0] == "final"
    assert events[-1][1]["status"] == "failed"
    assert link.status == 410
    assert json.loads(link.body)["error"]["type"] == "urn:sfumato:problem:dead-letter"
    neighbours.assert_all_succeeded(5)
    deaths = cluster.log.read_text()[known:].count("worker poisoned 0 ended with status -9")
    assert deaths == 4, "one in company, three alone"

    assert [letter["job"]["id"] for letter in _buried(cluster)] == [poison["id"]], "for consumers of other systems"
    assert poison["id"] in _dead(cluster, "list", "--model", "poisoned")
    again = _dead(cluster, "retry", poison["id"]).split()[-1]
    canceled = answered(urllib.request.Request(f"{cluster.url}/api/jobs/{again}/cancel", method="POST"))
    assert canceled.status == 200, "before it kills again"
    _dead(cluster, "drop", poison["id"])
    assert _dead(cluster, "list", "--model", "poisoned") == "no dead letters\n"
    poll(lambda: cluster.job(again)["status"] == "canceled", within_s=30)
