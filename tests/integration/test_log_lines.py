"""What the roles of a real service log about a job: one line of JSON an event, and the job's id in each."""

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

from tests.sample_pictures import picture
from tests.service import Service, answered, post_picture
from tests.support import poll


def test_every_role_says_which_job_it_speaks_of(tmp_path: Path) -> None:
    spoken = {"SFUMATO_LOG_FORMAT": "json", "SFUMATO_LOG_LEVEL": "debug", "SFUMATO_JOB_WAIT_S": "3"}
    with Service(tmp_path, environment=spoken) as service:
        made, canceled, expired = (submitted(service, number) for number in ("makes it", "is canceled", "expires"))
        poll(lambda: service.job(expired)["status"] == "failed", within_s=20)
        os.kill(service.roles()["worker"], signal.SIGCONT)
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]

    assert said(lines, made) >= {
        ("gateway", "accepted for quick, normal"),
        ("dispatcher", "handed out to"),
        ("worker", "succeeded after"),
    }
    assert ("gateway", "canceled") in said(lines, canceled)
    assert ("dispatcher", "expired: no worker") in said(lines, expired)


def submitted(service: Service, fate: str) -> str:
    """The id of a job that makes it, is canceled while its worker stands still, or expires meanwhile."""
    _, accepted = post_picture(service.url, picture(), model_name="quick", prompt=fate, num_inference_steps="4")
    job = str(accepted["id"])
    if fate == "makes it":
        poll(lambda: service.job(job)["status"] == "succeeded", within_s=20)
        os.kill(service.roles()["worker"], signal.SIGSTOP)
    if fate == "is canceled":
        # From here on nobody gets a job.
        poll(lambda: json.loads(service.get("/api/models")[1])["models"][0]["workers"] == 0, within_s=20)
        assert answered(urllib.request.Request(f"{service.url}/api/jobs/{job}/cancel", method="POST")).status == 200
    return job


def said(lines: list[dict[str, Any]], job: str) -> set[tuple[str, str]]:
    """Role and first words of each line about this job."""
    known = ("accepted for quick, normal", "handed out to", "succeeded after", "canceled", "expired: no worker")
    of_job = [line for line in lines if line.get("job") == job]
    return {(line["role"], word) for line in of_job for word in known if line["message"].startswith(word)}
