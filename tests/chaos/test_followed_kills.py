"""Gateways and the recorder of a real cluster are killed while clients follow their jobs and webhooks are sent."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.cluster import Cluster
from tests.receivers import Received, Receiver, receiving
from tests.sample_pictures import picture
from tests.service import post_picture
from tests.sse import Stream, Told
from tests.support import poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

JOBS = 16
ROUNDS = 4
LIFE = ("queued", "started", "returned", "retried", "final")


def _submit(cluster: Cluster, number: int, **query: Any) -> dict[str, str]:
    """The client's own rule: no answer, or 503, means try again with the same key."""

    def accepted() -> dict[str, str]:
        try:
            status, answer = post_picture(
                cluster.url, picture(), key=f"{query} {number}", prompt=f"number {number}", **query
            )
        except OSError:
            return {}
        assert status in (202, 502, 503), answer
        return answer if status == 202 else {}

    answer: dict[str, str] = poll(accepted, within_s=60, every_s=0.2)
    return answer


def _kill(cluster: Cluster, names: tuple[str, ...], done: threading.Event) -> Counter[str]:
    """One after the other, whether or not what was killed before is back."""
    killed, dice = Counter[str](), random.Random(7)
    for _ in range(ROUNDS):
        for name in names:
            if not done.wait(dice.uniform(0.5, 2.0)):
                cluster.kill(name)
                killed[name] += 1
    return killed


def test_followers_lose_and_repeat_no_event_while_gateways_and_recorder_are_killed(cluster: Cluster) -> None:
    streams: list[Stream] = []
    done, everything = threading.Event(), Stream(f"{cluster.url}/api/events")
    with ThreadPoolExecutor(JOBS + 1) as clients, ThreadPoolExecutor(1) as killer:
        of_all = clients.submit(everything.follow, 180, _all_ended(streams))
        poll(lambda: everything.told, within_s=30)
        killing = killer.submit(_kill, cluster, ("gateway", "recorder", "gateway"), done)
        following = []
        try:
            for number in range(JOBS):
                answer = _submit(cluster, number, model_name="slow", strength="1", num_inference_steps="10")
                streams.append(Stream(answer["events_url"]))
                following.append(clients.submit(streams[-1].follow, 120))
            for each in following:
                each.result()
            of_all.result()
        finally:
            done.set()
        killed = killing.result()
    assert killed["gateway"] >= 2, killed
    assert killed["recorder"] >= 1, killed
    assert max(stream.connections for stream in streams) > 1, "nobody was interrupted"
    for stream in streams:
        again = Stream(stream.url)
        poll(lambda again=again, stream=stream: _replayed(again) == stream.life, within_s=30, every_s=0.5)  # type: ignore[misc]  # in this turn
        kinds = [kind for kind, _ in stream.life]
        assert kinds[0] == "queued"
        assert "started" in kinds
        assert kinds.count("final") == 1
        assert len(set(stream.life)) == len(stream.life)
        assert stream.told[-1].data["status"] == "succeeded"
    mine = Counter((stream.job_id, kind) for stream in streams for kind, _ in stream.life)
    lives = Counter((told.data.get("job_id", ""), told.kind) for told in everything.told if told.kind in LIFE)
    ours = {stream.job_id for stream in streams}
    lives = Counter({line: count for line, count in lives.items() if line[0] in ours})
    assert lives == mine, "the stream of all jobs lost or repeated something"


def _all_ended(streams: Sequence[Stream]) -> Callable[[Sequence[Told]], bool]:
    """Whether all jobs of this test have ended; those of another one may end late."""

    def ended(told: Sequence[Told]) -> bool:
        finals = {each.data["job_id"] for each in told if each.kind == "final"}
        return len(streams) == JOBS and {stream.job_id for stream in streams} <= finals

    return ended


def _replayed(stream: Stream) -> list[tuple[str, str]]:
    """What somebody is told who comes only now."""
    stream.told.clear()
    stream.last_id = ""
    stream.follow(within_s=20)
    return stream.life


def _firsts(receiver: Receiver, job: str) -> list[str]:
    """The events of a job by when each first came."""
    return list(dict.fromkeys(receiver.of(job)))


def test_webhooks_come_in_order_under_the_same_id_while_the_recorder_is_killed(cluster: Cluster) -> None:
    done = threading.Event()
    with receiving() as own, ThreadPoolExecutor(1) as killer:
        killing = killer.submit(_kill, cluster, ("recorder",), done)
        try:
            jobs = [_submit(cluster, n, model_name="quick", webhook_url=own.url)["id"] for n in range(3 * JOBS)]
            killed = killing.result()
        finally:
            done.set()
        poll(lambda: len({each.id for each in own.got}) >= 2 * len(jobs), within_s=90)

        assert killed["recorder"] == ROUNDS
        # One webhook-id for each event of each job, however often it was sent.
        assert Counter((each.event["data"]["id"], each.event["type"]) for each in _by_id(own)) == Counter(
            (job, kind) for job in jobs for kind in ("job.started", "job.succeeded")
        )
        assert [_firsts(own, job) for job in jobs] == [["job.started", "job.succeeded"]] * len(jobs)
        _verified(cluster, own)


def test_what_happens_while_the_recorder_stands_still_is_told_after_in_order(cluster: Cluster) -> None:
    with receiving() as own:
        with cluster.paused("recorder"):
            answers = [_submit(cluster, n, model_name="quick", webhook_url=own.url) for n in range(JOBS)]
            for answer in answers:
                poll(lambda answer=answer: cluster.get(answer["result_url"])[0] == 200, within_s=60)  # type: ignore[misc]  # in this turn
            before = len(own.got)
        poll(lambda: len({each.id for each in own.got}) >= 2 * JOBS, within_s=90)

        assert before == 0
        assert [_firsts(own, answer["id"]) for answer in answers] == [["job.started", "job.succeeded"]] * JOBS
        _verified(cluster, own)


def _by_id(receiver: Receiver) -> list[Received]:
    return list({each.id: each for each in receiver.got}.values())


def _verified(cluster: Cluster, receiver: Receiver) -> None:
    """By the library that receivers use."""
    secret = (Path(cluster.data_dir) / "webhook-secret").read_text()
    for each in receiver.got:
        if abs(time.time() - each.at) < 250:  # the library takes nothing older than five minutes
            assert Webhook(secret).verify(each.body, each.headers)["type"].startswith("job.")
