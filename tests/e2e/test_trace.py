"""`sfumato trace`: a real job's path, past the API, from what the service has on its disk."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.sample_pictures import picture
from tests.service import Service, post_picture
from tests.support import job_id, poll


def traced(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sfumato", "trace", *arguments, "--data-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def ended(service: Service, image: bytes, key: str = "") -> str:
    """The id of a job that has ended and is in the rows as such."""
    _, accepted = post_picture(service.url, image, key=key, model_name="quick", prompt="x", num_inference_steps="4")
    poll(lambda: service.job(accepted["id"])["status"] in ("succeeded", "failed"), within_s=20)
    return str(accepted["id"])


def test_path_of_a_job_is_told_from_objects_logs_and_outcome_in_order_of_time(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        job = ended(service, picture(), key="mine")
        done = traced(service.data_dir, job, "--json")
        text = traced(service.data_dir, job)

    path: dict[str, Any] = json.loads(done.stdout)
    steps = path["steps"]
    assert path["job"]["id"] == job
    assert path["state"] == "succeeded"
    assert {(step["place"], step["what"]) for step in steps} == {
        ("object", "request with its key stored"),
        ("object", "input stored"),
        ("log", "accepted"),
        ("log", "dispatched"),
        ("log", "started"),
        ("object", "picture stored"),
        ("outcome", "decided, succeeded"),
        ("log", "ended, succeeded"),
    }
    assert steps == sorted(steps, key=lambda step: step["at"])
    assert abs(path["seconds"] - sum(step["after_s"] or 0 for step in steps)) < 1e-4
    assert text.returncode == 0
    assert len(text.stdout.splitlines()) == 1 + len(steps)
    assert text.stdout.startswith(f"job {job} of quick, normal: succeeded")


def test_path_of_a_failed_job_says_why(tmp_path: Path) -> None:
    whole = picture()
    with Service(tmp_path) as service:
        job = ended(service, whole[: len(whole) - 60])
        done = traced(service.data_dir, job)

    assert done.returncode == 0, done.stderr
    assert "decided, failed" in done.stdout
    assert "broken" in done.stdout or "truncated" in done.stdout


def test_unknown_job_or_folder_is_a_clear_error(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        unknown = traced(service.data_dir, job_id(1))
        none = traced(service.data_dir, "../up.lock")
    nowhere = traced(tmp_path / "nowhere", job_id(1))

    known = f"nothing is known of a job {job_id(1)}"
    for done, says in ((unknown, known), (none, "is no job's id"), (nowhere, "--data-dir")):
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "nowhere").exists()
