"""`sfumato up` as its users meet it: one command, a picture in, a picture out, nothing left behind."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.service import Service, post_picture
from tests.support import poll

PICTURES = Path(__file__).parents[2] / "images"


def _picture(width: int = 96, height: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_photo_becomes_a_picture_behind_its_access_link(tmp_path: Path) -> None:
    photo = next(iter(sorted(PICTURES.glob("*.jpg"))))
    with Service(tmp_path, models="") as service:
        status, accepted = post_picture(
            service.url,
            photo.read_bytes(),
            media_type="image/jpeg",
            model_name="restyle",
            prompt="stained glass",
            priority="high",
        )
        assert status == 202, accepted
        begin = time.monotonic()
        picture = poll(lambda: _result(service, accepted["result_url"]), within_s=60)

    with Image.open(io.BytesIO(picture)) as result, Image.open(photo) as given:
        assert abs(result.width / result.height - given.width / given.height) < 0.02
        assert b"compositeWithTrainedAlgorithmicMedia" in picture
    assert time.monotonic() - begin < 60


def _result(service: Service, link: str) -> bytes | None:
    status, body = service.get(link)
    assert status in (200, 202), body
    return body if status == 200 else None


def test_sigterm_ends_every_child_in_time(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        roles = poll(lambda: service.roles() if len(service.roles()) == 5 else None)
        status = service.stop(within_s=10)

    assert set(roles) == {"gateway", "dispatcher", "recorder", "controller", "worker"}
    assert status == 0
    assert not [pid for pid in roles.values() if _lives(pid)]


def test_children_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        roles = poll(lambda: service.roles() if len(service.roles()) == 5 else None)
        assert service.process is not None
        service.process.kill()
        poll(lambda: not [pid for pid in roles.values() if _lives(pid)], within_s=15)


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = poll(lambda: service.roles().get("worker"))
        os.kill(first, signal.SIGKILL)
        second = poll(lambda: (pid := service.roles().get("worker")) != first and pid)
        status, accepted = post_picture(service.url, _picture(), model_name="quick", prompt="x")
        assert status == 202
        poll(lambda: service.job(accepted["id"])["status"] == "succeeded", within_s=20)
    assert second != first


def test_jobs_wait_through_a_restart_of_the_whole_service(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        os.kill(poll(lambda: service.roles().get("worker")), signal.SIGSTOP)
        _, accepted = post_picture(service.url, _picture(), model_name="quick", prompt="x")
    with Service(tmp_path) as service:
        poll(lambda: service.job(accepted["id"])["status"] == "succeeded", within_s=20)


def test_a_model_added_to_models_toml_is_served(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        models = service.data_dir / "models.toml"
        models.write_text(models.read_text() + '\n[models.second]\nbackend = "simulated"\n')

        job_id = poll(lambda: _accepted(service, "second"), within_s=20, every_s=0.3)
        poll(lambda: service.job(job_id)["status"] == "succeeded", within_s=30)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--port", "{port}"], "Choose another --port"), (["--data-dir", "{folder}"], "another service runs on")],
)
def test_what_is_taken_is_named_at_start(tmp_path: Path, arguments: list[str], says: str) -> None:
    with Service(tmp_path / "first") as service:
        other = ["--data-dir", str(tmp_path / "second")] if "--port" in arguments else ["--port", "0"]
        port = service.url.rsplit(":", 1)[1]
        filled = [part.format(port=port, folder=service.data_dir) for part in arguments]
        ended = _up(*filled, *other)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_folder_that_cannot_be_written_is_named_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ended = _up("--port", "0", "--data-dir", str(tmp_path / "file" / "data"))
    assert ended.returncode == 1
    assert "can't be written" in ended.stderr


def _up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sfumato", "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def _accepted(service: Service, model: str) -> str | None:
    """The id of a job, when the gateway answers and knows the model."""
    with suppress(OSError):
        status, answer = post_picture(service.url, _picture(), model_name=model, prompt="x")
        return str(answer["id"]) if status == 202 else None
    return None


def test_a_list_of_models_that_comes_later_is_served_by_every_role(tmp_path: Path) -> None:
    with Service(tmp_path, models=None) as service:
        (service.data_dir / "models.toml").write_text('[models.later]\nbackend = "simulated"\n')
        os.kill(poll(lambda: service.roles().get("gateway")), signal.SIGKILL)

        job_id = poll(lambda: _accepted(service, "later"), within_s=20, every_s=0.3)
        poll(lambda: service.job(job_id)["status"] == "succeeded", within_s=30)


def test_a_broken_list_of_models_stops_nobody_from_being_started_again(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        roles = poll(lambda: service.roles() if len(service.roles()) == 5 else None)
        (service.data_dir / "models.toml").write_text("[models.quick\n")
        for pid in roles.values():
            os.kill(pid, signal.SIGKILL)

        job_id = poll(lambda: _accepted(service, "quick"), within_s=20, every_s=0.3)
        poll(lambda: service.job(job_id)["status"] == "succeeded", within_s=30)


def test_a_model_that_changed_gets_a_new_worker(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = poll(lambda: service.roles().get("worker"))
        models = service.data_dir / "models.toml"
        models.write_text(models.read_text().replace("batch = 4", "batch = 2"))
        poll(lambda: service.roles().get("worker") not in (None, first), within_s=20)
