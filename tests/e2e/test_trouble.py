"""A full disk, a broken picture, a cancel at every moment: clear words, and nothing promised that is not kept."""

import io
import json
import os
import random
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

from tests.service import Service, post_picture
from tests.support import poll

SLOW = """
[models.slow]
backend = "simulated"
path = "slow"
batch = 2
"""


def _noise(width: int, height: int) -> bytes:
    """A picture that no format makes small."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(1).randbytes(width * height * 3)).save(stream, "PNG")
    return stream.getvalue()


def _slow_service(folder: Path, step_s: float) -> Service:
    service = Service(folder, models=SLOW)
    service.simulate("slow", {"fixed_s": step_s, "row_s": 0.0})
    return service


def _cancel(service: Service, job_id: str) -> int:
    request = urllib.request.Request(f"{service.url}/api/jobs/{job_id}/cancel", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _until(service: Service, job_id: str, moment: str) -> None:
    if moment != "accepted":
        poll(lambda: service.job(job_id)["status"] != "queued", within_s=20)
    if moment == "under way":
        poll(lambda: (service.job(job_id)["progress"] or {}).get("step", 9) > 2, within_s=20)


def test_what_does_not_fit_on_the_disk_is_not_accepted(tmp_path: Path) -> None:
    with Service(tmp_path, most_file_kib=2048) as service:
        status, problem = post_picture(service.url, _noise(1000, 1000), model_name="quick", prompt="x")
        stored = [path for path in (service.data_dir / "blobs" / "inputs").rglob("*") if path.is_file()]
        _, listed = service.get("/api/jobs")
        small, accepted = post_picture(service.url, _noise(40, 40), model_name="quick", prompt="x")
        poll(lambda: service.job(accepted["id"])["status"] == "succeeded", within_s=20)

    assert status == 503
    assert problem["type"] == "urn:sfumato:problem:try-again"
    assert stored == []
    assert json.loads(listed)["jobs"] == []
    assert small == 202


def test_a_cancel_holds_at_every_moment_of_a_job(tmp_path: Path) -> None:
    with _slow_service(tmp_path, step_s=0.05) as service:
        answered = {}
        for number in range(12):
            _, accepted = post_picture(service.url, _noise(32, 32), model_name="slow", prompt=f"{number}")
            job_id = accepted["id"]
            _until(service, job_id, ("accepted", "started", "under way")[number % 3])
            answered[job_id] = _cancel(service, job_id)

        def ended() -> dict[str, str] | None:
            states = {job_id: service.job(job_id)["status"] for job_id in answered}
            return states if set(states.values()) <= {"succeeded", "canceled"} else None

        states = poll(ended, within_s=30)
        links = {job_id: service.get(f"/api/jobs/{job_id}/result")[0] for job_id in answered}

    assert set(answered.values()) <= {200, 409}
    assert 200 in answered.values()
    for job_id, status in answered.items():
        assert states[job_id] == ("canceled" if status == 200 else "succeeded")
        assert links[job_id] == (410 if status == 200 else 200)


def test_a_canceled_job_leaves_the_worker_within_a_step(tmp_path: Path) -> None:
    with _slow_service(tmp_path, step_s=1.0) as service:
        _, first = post_picture(
            service.url, _noise(32, 32), model_name="slow", prompt="long", num_inference_steps="150"
        )
        poll(lambda: service.job(first["id"])["status"] == "running", within_s=20)
        assert _cancel(service, first["id"]) == 200
        assert _cancel(service, first["id"]) == 200, "a cancel may be repeated"

        def idle() -> bool:
            (model,) = json.loads(service.get("/api/models")[1])["models"]
            return bool(model["backlog"]["running"] == 0)

        poll(idle, within_s=8)


def test_a_cancel_holds_while_its_worker_dies(tmp_path: Path) -> None:
    with _slow_service(tmp_path, step_s=0.5) as service:
        _, accepted = post_picture(service.url, _noise(32, 32), model_name="slow", prompt="x", num_inference_steps="60")
        poll(lambda: service.job(accepted["id"])["status"] == "running", within_s=20)
        os.kill(service.roles()["worker"], 9)
        assert _cancel(service, accepted["id"]) == 200
        poll(lambda: service.job(accepted["id"])["status"] == "canceled", within_s=20)
        _, after = post_picture(service.url, _noise(32, 32), model_name="slow", prompt="y", num_inference_steps="3")
        poll(lambda: service.job(after["id"])["status"] == "succeeded", within_s=20)


def test_a_device_that_is_gone_costs_a_worker_and_no_job(tmp_path: Path) -> None:
    service = Service(tmp_path, models=SLOW)
    service.simulate("slow", {"fixed_s": 0.005, "dies_after_calls": 20})
    with service:
        jobs = [
            post_picture(service.url, _noise(32, 32), model_name="slow", prompt="x", num_inference_steps="40")[1]["id"]
            for _ in range(6)
        ]
        poll(lambda: all(service.job(job)["status"] in ("succeeded", "failed") for job in jobs), within_s=90)
        states = [service.job(job)["status"] for job in jobs]

    assert states == ["succeeded"] * 6
    assert service.log.read_text().count("the simulated device is gone.; this process ends") >= 2


def test_a_picture_that_breaks_off_ends_failed_with_its_reason(tmp_path: Path) -> None:
    whole = _noise(64, 64)
    with Service(tmp_path) as service:
        status, accepted = post_picture(service.url, whole[: len(whole) // 2], model_name="quick", prompt="x")
        assert status == 202
        job = poll(lambda: (job := service.job(accepted["id"]))["status"] == "failed" and job, within_s=20)
        gone, problem = service.get(accepted["result_url"])
    assert "truncated" in job["error"]["detail"] or "broken" in job["error"]["detail"], job["error"]
    assert gone == 410
    assert json.loads(problem)["status"] == 410
