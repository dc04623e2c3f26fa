"""Processes of a running service are killed at random moments; no accepted job may be lost. The ledger is our own."""

import io
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.service import Service, post_picture
from tests.support import poll

JOBS = 300
KILLS = 24


def _picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (number % 256, number // 256, 90)).save(stream, "PNG")
    return stream.getvalue()


def _submit_until_accepted(service: Service, number: int) -> str:
    """The client's own rule: no answer, or 503, means unknown, so try again with the same key."""

    def attempt() -> str:
        with suppress(OSError):
            status, answer = post_picture(
                service.url, _picture(number), key=f"job {number}", model_name="quick", prompt=f"number {number}"
            )
            assert status in (202, 503), answer
            return str(answer["id"]) if status == 202 else ""
        return ""

    return str(poll(attempt, within_s=60, every_s=0.1))


def _kill_now_and_then(service: Service, dice: random.Random, finished: threading.Event) -> Counter[str]:
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        if finished.wait(dice.uniform(0.2, 0.9)):
            break
        roles = service.roles()
        if roles:
            role = dice.choice(sorted(roles))
            with suppress(ProcessLookupError):
                os.kill(roles[role], signal.SIGKILL)
                killed[role] += 1
    return killed


@pytest.mark.timeout(300)
def test_no_accepted_job_is_lost_while_every_role_is_killed(tmp_path: Path) -> None:
    dice = random.Random(2026)
    finished = threading.Event()
    with Service(tmp_path) as service, ThreadPoolExecutor(8) as clients, ThreadPoolExecutor(1) as killer:
        killing = killer.submit(_kill_now_and_then, service, dice, finished)
        accepted = list(clients.map(lambda number: _submit_until_accepted(service, number), range(JOBS)))
        killed = killing.result()
        finished.set()

        def all_ended() -> Counter[str] | None:
            states = Counter(service.job(job_id)["status"] for job_id in accepted)
            return states if states.keys() <= {"succeeded", "failed", "canceled"} else None

        states = poll(all_ended, within_s=120, every_s=0.5)
        pictures = sum(service.get(f"/api/jobs/{job_id}/result")[0] == 200 for job_id in accepted)

    assert set(killed) >= {"gateway", "dispatcher", "recorder", "worker"}, killed
    assert len(set(accepted)) == JOBS
    assert states == {"succeeded": JOBS}
    assert pictures == JOBS
