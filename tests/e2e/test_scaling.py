"""Workers come and go with the load: models take turns, all leave, a leader dies, a model can't be loaded."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sfumato.models.registry import FOLDER
from tests.sample_pictures import picture
from tests.service import Service, alive, post_picture
from tests.support import poll

TWO = """
[models.one]
backend = "simulated"
path = "one"
batch = 2

[models.two]
backend = "simulated"
path = "two"
batch = 2
"""
SOON = {"SFUMATO_SCALE_DOWN_S": "1"}


def scaled_service(folder: Path, models: str = TWO, **environment: str) -> Service:
    """A service whose simulated models take 50 ms a step."""
    service = Service(folder, models=models, environment=SOON | environment)
    for name in ("one", "two"):
        service.simulate(name, {"fixed_s": 0.05})
    return service


def submit(service: Service, model: str, steps: int = 8) -> str:
    status, accepted = post_picture(
        service.url, picture(), model_name=model, prompt="x", num_inference_steps=str(steps), strength="1"
    )
    assert status == 202, accepted
    return str(accepted["id"])


def workers(service: Service) -> list[str]:
    """The model of each worker process that lives now."""
    assert service.process is not None
    parent = service.process.pid
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "worker" in words and alive(int(child)):
            found.append(words[words.index("worker") + 1])
    return found


def states(service: Service, jobs: Iterable[str]) -> Counter[str]:
    return Counter(service.job(job)["status"] for job in jobs)


def explained(service: Service, model: str) -> dict[str, Any]:
    status, body = service.get(f"/api/scale/{model}")
    assert status == 200, body
    parsed: dict[str, Any] = json.loads(body)
    return parsed


def test_two_models_take_turns_in_one_place_and_none_stays_when_nothing_is_to_do(tmp_path: Path) -> None:
    with scaled_service(tmp_path, SFUMATO_PLACES="1") as service:
        at_once = 0

        def ended(jobs: list[str]) -> bool:
            nonlocal at_once
            at_once = max(at_once, len(workers(service)))
            return states(service, jobs) == {"succeeded": len(jobs)}

        jobs = [submit(service, model) for model in ("two", "one", "one", "two", "one", "two", "two", "one")]
        poll(lambda: ended(jobs), within_s=90, every_s=0.2)
        poll(lambda: not workers(service), within_s=30)
        assert [explained(service, model)["desired_replicas"] for model in ("one", "two")] == [0, 0]

        for model in ("two", "one"):
            again = submit(service, model)
            poll(partial(ended, [again]), within_s=30, every_s=0.2)
            assert explained(service, model)["why"]

    assert at_once == 1


def test_burst_brings_workers_and_its_end_takes_them_away(tmp_path: Path) -> None:
    with scaled_service(tmp_path, SFUMATO_WORKERS="3", SFUMATO_PLACES="3", SFUMATO_SCALE_DOWN_S="2") as service:
        jobs = [submit(service, "one") for _ in range(250)]
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, workers(service).count("one"))
            return states(service, jobs[-20:]) == {"succeeded": 20}

        poll(ended, within_s=90, every_s=0.5)
        poll(lambda: len(workers(service)) == 0, within_s=60)
        assert states(service, jobs) == {"succeeded": 250}

    assert most == 3


def lease(service: Service) -> tuple[str, float]:
    """Who decides, and when that was written last."""
    with closing(sqlite3.connect(service.data_dir / "rows.sqlite", timeout=10)) as connection:
        (holder,) = connection.execute("SELECT holder FROM leases").fetchone()
        (at,) = connection.execute("SELECT max(at) FROM decisions").fetchone()
    return holder, at


@contextmanager
def another_controller(service: Service) -> Iterator[int]:
    """One more beside the service's own; its process id."""
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(service.data_dir), "SFUMATO_SCALE_DOWN_S": "1"}  # noqa: TID251
    process = subprocess.Popen([sys.executable, "-m", "sfumato", "controller"], env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


def test_when_the_leader_is_killed_another_decides_within_ten_seconds(tmp_path: Path) -> None:
    with scaled_service(tmp_path) as service:
        leader, _ = poll(lambda: lease(service), within_s=20)
        assert f"-{service.roles()['controller']}-" in leader
        with another_controller(service):
            os.kill(service.roles()["controller"], signal.SIGKILL)
            _, killed_at = lease(service)

            def followed() -> bool:
                holder, at = lease(service)
                return holder != leader and at > killed_at

            poll(followed, within_s=10)
            job = submit(service, "two")
            poll(lambda: states(service, [job]) == {"succeeded": 1}, within_s=20)


def test_service_goes_on_when_what_is_decided_can_not_be_read(tmp_path: Path) -> None:
    with scaled_service(tmp_path) as service:
        poll(lambda: len(workers(service)) == 2, within_s=20)
        with closing(sqlite3.connect(service.data_dir / "rows.sqlite", timeout=10)) as connection:
            connection.execute("ALTER TABLE placements RENAME TO lost")
            connection.commit()
        poll(lambda: "the workers stay as they are" in service.log.read_text(), within_s=20)

        job = submit(service, "one")

        poll(lambda: states(service, [job]) == {"succeeded": 1}, within_s=20)
        assert service.stop(within_s=10) == 0


def test_model_that_can_not_be_loaded_does_not_flap_and_its_jobs_fail_with_the_reason(tmp_path: Path) -> None:
    broken = '[models.one]\nbackend = "simulated"\npath = "one"\n\n[models.cut]\npath = "cut"\n'
    service = scaled_service(tmp_path, broken, SFUMATO_PLACES="1", SFUMATO_BROKEN_WAIT_S="4")
    shutil.copytree(FOLDER, service.data_dir / "cut")
    network = service.data_dir / "cut" / "unet" / "model.onnx"
    network.write_bytes(network.read_bytes()[:1000])
    with service:
        cut = [submit(service, "cut") for _ in range(3)]
        poll(lambda: _model(service, "cut")["state"] == "broken", within_s=30)
        fine = submit(service, "one")
        poll(lambda: states(service, [fine]) == {"succeeded": 1}, within_s=60)
        poll(lambda: states(service, cut) == {"failed": 3}, within_s=60)
        error = service.job(cut[0])["error"]
        poll(lambda: not workers(service), within_s=60)

    assert error["type"] == "urn:sfumato:problem:model-broken"
    assert "no worker could load the model" in error["detail"]
    assert service.log.read_text().count("cut can't be served") <= 8


def test_model_whose_worker_is_killed_at_every_start_is_told_of_and_its_jobs_fail(tmp_path: Path) -> None:
    service = scaled_service(tmp_path, SFUMATO_PLACES="1", SFUMATO_BROKEN_WAIT_S="4")
    service.simulate("one", {"dies_at_start": True})
    with service:
        killed, fine = submit(service, "one"), submit(service, "two")
        poll(lambda: _model(service, "one")["state"] == "broken", within_s=40)
        assert "ended with status -9" in _model(service, "one")["trouble"]
        poll(lambda: states(service, [fine]) == {"succeeded": 1}, within_s=60)
        poll(lambda: states(service, [killed]) == {"failed": 1}, within_s=60)
        assert "ended with status -9" in service.job(killed)["error"]["detail"]


def _model(service: Service, name: str) -> dict[str, Any]:
    return next(each for each in json.loads(service.get("/api/models")[1])["models"] if each["name"] == name)


def test_long_job_is_finished_before_its_worker_makes_room_for_another_model(tmp_path: Path) -> None:
    with scaled_service(tmp_path, SFUMATO_PLACES="1", SFUMATO_DRAIN_S="1") as service:
        long = submit(service, "one", steps=150)
        poll(lambda: service.job(long)["status"] == "running", within_s=30)
        others = [submit(service, "two") for _ in range(5)]
        poll(lambda: states(service, [long, *others]) == {"succeeded": 6}, within_s=90)

    assert "handed back" not in service.log.read_text()


def test_service_stops_in_time_though_a_worker_is_leaving_slowly(tmp_path: Path) -> None:
    with scaled_service(tmp_path, SFUMATO_PLACES="1") as service:
        long = submit(service, "one", steps=150)
        poll(lambda: service.job(long)["status"] == "running", within_s=30)
        submit(service, "two")
        poll(lambda: "leaving" in service.log.read_text(), within_s=60)
        assert service.stop(within_s=10) == 0


def test_worker_that_dies_while_it_leaves_does_not_hold_its_place(tmp_path: Path) -> None:
    with scaled_service(tmp_path, SFUMATO_PLACES="1", SFUMATO_DRAIN_S="30") as service:
        long = submit(service, "one", steps=150)
        poll(lambda: service.job(long)["status"] == "running", within_s=30)
        pid = service.roles()["worker"]
        # It is told to leave, and can't: it stands still, and then it is gone.
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGKILL)
        other = submit(service, "two")
        poll(lambda: states(service, [long, other]) == {"succeeded": 2}, within_s=90)
