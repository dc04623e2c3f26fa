"""The jobs there were, on a real `sfumato up`: cancel, delete, lists, exports and purges as their users meet them."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.sample_pictures import picture
from tests.service import Answer, Service, answered, picture_request, stream
from tests.support import poll

MODELS = """
[models.quick]
backend = "simulated"

[models.slow]
backend = "simulated"
path = "slow"
"""
UNKNOWN = "00000000-0000-7000-8000-00000000abcd"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One model is so slow that its jobs can be met while they run."""
    running = Service(tmp_path, models=MODELS)
    running.simulate("slow", {"fixed_s": 0.1, "row_s": 0.0})
    with running:
        yield running


def sfumato(service: Service, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    about = {"SFUMATO_DATA_DIR": str(service.data_dir), "SFUMATO_URL": service.url, "SFUMATO_API_KEY": key}
    command = [sys.executable, "-m", "sfumato", *words]
    environment = dict(os.environ) | about  # noqa: TID251 - the child's
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def key_of(service: Service, owner: str, scope: str = "submit,read") -> str:
    return sfumato(service, "keys", "create", owner, "--scope", scope).stdout.strip()


def asked(service: Service, method: str, path: str, key: str = "") -> Answer:
    request = urllib.request.Request(service.url + path, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    return answered(request)


def submitted(service: Service, key: str = "", model: str = "quick", **query: str) -> dict[str, str]:
    request = picture_request(service.url, picture(), model_name=model, **({"prompt": "neon"} | query))
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    answer = answered(request)
    assert answer.status == 202, answer.body
    accepted: dict[str, str] = json.loads(answer.body)
    return accepted


def stored(service: Service, job_id: str) -> list[str]:
    """Kinds of what is stored about a job, its pictures and whatever else."""
    blobs = service.data_dir / "blobs"
    files = [path.relative_to(blobs) for path in blobs.rglob("*") if path.is_file()]
    return sorted(path.parts[0] for path in files if job_id in str(path))


def ended(service: Service, accepted: Mapping[str, str]) -> None:
    poll(lambda: service.get(accepted["result_url"])[0] == 200, within_s=30)


def test_no_picture_is_left_after_cancel_and_delete(service: Service) -> None:
    job = submitted(service, model="slow", num_inference_steps="200", strength="1")
    # A worker that comes later than who watches hears of him only after a while.
    poll(lambda: service.job(job["id"])["status"] == "running", within_s=30)
    events = stream(f"{job['events_url']}&previews=true")
    assert any(kind == "preview" for kind, _ in events)
    assert stored(service, job["id"]) == ["inputs", "previews"]

    assert asked(service, "DELETE", f"/api/jobs/{job['id']}").status == 409
    assert asked(service, "POST", f"/api/jobs/{job['id']}/cancel").status == 200

    # Of a canceled job there is neither result nor preview; what it was made of stays for a retry, until it is deleted.
    poll(lambda: stored(service, job["id"]) == ["inputs"], within_s=10)
    assert [kind for kind, _ in events][-1] == "final"
    assert asked(service, "DELETE", f"/api/jobs/{job['id']}").status == 204
    assert stored(service, job["id"]) == []
    assert service.get(job["result_url"])[0] == 410


def test_no_picture_is_left_when_the_cancel_meets_the_end(service: Service) -> None:
    jobs = [submitted(service, num_inference_steps="8", strength="1") for _ in range(12)]
    statuses = [asked(service, "POST", f"/api/jobs/{job['id']}/cancel").status for job in jobs]
    assert set(statuses) <= {200, 409}
    for job, status in zip(jobs, statuses, strict=True):
        kinds = ["inputs"] if status == 200 else ["inputs", "outputs"]
        poll(lambda job=job, kinds=kinds: stored(service, job["id"]) == kinds)  # type: ignore[misc]  # in this turn
        assert asked(service, "DELETE", f"/api/jobs/{job['id']}").status == 204
    assert [stored(service, job["id"]) for job in jobs] == [[]] * len(jobs)


def test_another_owner_can_neither_cancel_nor_delete(service: Service) -> None:
    alice, bob = key_of(service, "alice"), key_of(service, "bob")
    poll(lambda: asked(service, "GET", "/api/jobs", alice).status == 200, within_s=30)
    running = submitted(service, alice, "slow", num_inference_steps="60", strength="1")["id"]
    done = submitted(service, alice)
    ended(service, done)
    for job in (running, done["id"]):
        for method, rest in (("POST", "/cancel"), ("DELETE", "")):
            others = asked(service, method, f"/api/jobs/{job}{rest}", bob)
            unknown = asked(service, method, f"/api/jobs/{UNKNOWN}{rest}", bob)
            assert (others.status, others.body) == (404, unknown.body)
    assert service.get(done["result_url"])[0] == 200
    assert "outputs" in stored(service, done["id"])
    assert asked(service, "POST", f"/api/jobs/{running}/cancel", alice).status == 200


def test_everybody_exports_the_own_jobs_and_admins_all(service: Service, tmp_path: Path) -> None:
    alice, bob, admin = key_of(service, "alice"), key_of(service, "bob"), key_of(service, "root", "admin")
    poll(lambda: asked(service, "GET", "/api/jobs", admin).status == 200, within_s=30)
    prompt = "=1+1,\nin two lines"
    hers = [submitted(service, alice, prompt=prompt) for _ in range(3)]
    his = [submitted(service, bob) for _ in range(2)]
    for job in (*hers, *his):
        ended(service, job)

    def succeeded() -> bool:
        listed = sfumato(service, "jobs", "--json", "--status", "succeeded", key=admin).stdout
        return len(listed.splitlines()) == 5

    poll(succeeded, within_s=30)

    file = tmp_path / "jobs.csv"
    done = sfumato(service, "jobs", "export", "--format", "csv", "--since", "1d", "-o", str(file), key=alice)
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stderr
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["id"] for row in rows] == [job["id"] for job in reversed(hers)]
    assert {row["prompt"] for row in rows} == {f"'{prompt}"}

    everything = sfumato(service, "jobs", "export", "--format", "jsonl", key=admin).stdout.splitlines()
    assert sorted(json.loads(line)["owner"] for line in everything) == ["alice"] * 3 + ["bob"] * 2
    some = sfumato(service, "jobs", "export", "--format", "jsonl", "--owner", "bob", key=admin).stdout.splitlines()
    assert {json.loads(line)["id"] for line in some} == {job["id"] for job in his}

    refused = sfumato(service, "jobs", "export", "--format", "csv", "--owner", "bob", key=alice)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "need a key with the scope admin" in refused.stderr
    assert sfumato(service, "jobs", "export", "--format", "csv", key="").returncode == 1


def test_purge_deletes_old_ended_jobs_of_a_running_service_with_their_pictures(service: Service) -> None:
    old, young = submitted(service), submitted(service)
    ended(service, old)
    ended(service, young)
    waiting = submitted(service, model="slow", num_inference_steps="200", strength="1")
    poll(lambda: all(service.job(job["id"])["status"] == "succeeded" for job in (old, young)), within_s=30)
    poll(lambda: service.job(waiting["id"])["status"] == "running", within_s=30)
    made_older(service, old["id"], waiting["id"])

    tried = sfumato(service, "jobs", "purge", "--older-than", "1h", "--dry-run")
    assert (tried.returncode, tried.stdout) == (0, "1 ended jobs would be deleted\n")
    assert stored(service, old["id"]) == ["inputs", "outputs"]

    done = sfumato(service, "jobs", "purge", "--older-than", "1h", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"found": 1, "jobs": 1, "pictures": 2, "busy": 0, "dry_run": False}
    assert "1/1" in done.stderr
    assert stored(service, old["id"]) == []
    assert stored(service, young["id"]) == ["inputs", "outputs"]
    listed = json.loads(service.get("/api/jobs")[1])["jobs"]
    assert {job["id"] for job in listed} == {young["id"], waiting["id"]}
    assert service.get(old["result_url"])[0] == 410  # its outcome is left as a tombstone
    assert asked(service, "POST", f"/api/jobs/{waiting['id']}/cancel").status == 200
    assert "Traceback" not in service.log.read_text()


def made_older(service: Service, *job_ids: str) -> None:
    """Let these jobs have been accepted a day ago, as the rows tell."""
    with closing(sqlite3.connect(service.data_dir / "rows.sqlite", timeout=10)) as connection, connection:
        for job_id in job_ids:
            connection.execute("UPDATE jobs SET created_at = created_at - 86400 WHERE id = ?", (job_id,))
