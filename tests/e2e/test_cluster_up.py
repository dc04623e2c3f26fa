"""`sfumato cluster up` as its users meet it: real servers below one command, pictures through the one door."""

import base64
import io
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai import APITimeoutError, OpenAI
from PIL import Image
from replicate.client import Client as ReplicateClient
from webuiapi import WebUIApi

from sfumato import Client
from sfumato.cluster.minio import minio
from sfumato.cluster.s3 import new_place
from sfumato.cluster.server import ServerMissing
from sfumato.config import inherited_environment
from tests.cluster import Cluster
from tests.sample_pictures import picture
from tests.service import SIMULATED, post_picture, stream
from tests.support import passable_folder, poll

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

PICTURES = Path(__file__).parents[2] / "images"
MODELS = f"""{SIMULATED}
[models.slow]
backend = "simulated"
path = "slow"

[models.restyle]
"""
STOPS_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with passable_folder() as folder:
        cluster = Cluster(folder, models=MODELS)
        cluster.simulate("slow", {"fixed_s": 0.1, "row_s": 0.0})
        with cluster:
            yield cluster


def _result(cluster: Cluster, link: str) -> bytes | None:
    status, body = cluster.get(link)
    assert status in (200, 202), body
    return body if status == 200 else None


def _send(method: str, url: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_every_role_and_server_runs_below_the_one_parent(cluster: Cluster) -> None:
    wanted = {
        **{"gateway": 2, "dispatcher": 1, "recorder": 1, "controller": 1, "worker": 3},
        **{"kafka": 1, "seaweedfs": 1, "postgres": 1, "nginx": 1},
    }

    def all_there() -> bool:
        return {name: len(cluster.pids(name)) for name in wanted} == wanted

    poll(all_there, within_s=20)


def test_a_photo_becomes_a_picture_behind_its_access_link(cluster: Cluster) -> None:
    photo = min(PICTURES.glob("*.jpg"))
    status, accepted = post_picture(
        cluster.url, photo.read_bytes(), media_type="image/jpeg", model_name="restyle", prompt="stained glass"
    )
    assert status == 202, accepted
    assert accepted["result_url"].startswith(f"{cluster.url}/api/jobs/"), "the link leads through the door"

    made = poll(lambda: _result(cluster, accepted["result_url"]), within_s=90)

    with Image.open(io.BytesIO(made)) as result, Image.open(photo) as given:
        assert abs(result.width / result.height - given.width / given.height) < 0.02
    assert b"compositeWithTrainedAlgorithmicMedia" in made


def test_a_job_is_listed_with_its_end(cluster: Cluster) -> None:
    _, accepted = post_picture(cluster.url, picture(), model_name="quick", prompt="listed")
    poll(lambda: cluster.job(accepted["id"])["status"] == "succeeded")

    def listed() -> dict[str, Any] | None:
        jobs = json.loads(cluster.get("/api/jobs?model_name=quick")[1])["jobs"]
        return next((job for job in jobs if job["id"] == accepted["id"] and job["status"] == "succeeded"), None)

    assert poll(listed)["result_url"].startswith(cluster.url)


def test_the_same_key_is_the_same_job(cluster: Cluster) -> None:
    def submit(prompt: str) -> tuple[int, dict[str, Any]]:
        return post_picture(cluster.url, picture(), key="the same key", model_name="quick", prompt=prompt)

    answers = [submit("once") for _ in range(3)]
    other, problem = submit("twice")

    assert [status for status, _ in answers] == [202] * 3
    assert len({answer["id"] for _, answer in answers}) == 1
    assert other == 422
    assert problem["type"] == "urn:sfumato:problem:idempotency-mismatch"


def test_a_cancel_holds_and_its_link_says_so(cluster: Cluster) -> None:
    _, accepted = post_picture(
        cluster.url, picture(), model_name="slow", prompt="long", num_inference_steps="150", priority="high"
    )
    poll(lambda: cluster.job(accepted["id"])["status"] == "running")

    canceled, _ = _send("POST", f"{cluster.url}/api/jobs/{accepted['id']}/cancel")

    assert canceled == 200
    assert cluster.job(accepted["id"])["status"] == "canceled"
    assert cluster.get(accepted["result_url"])[0] == 410


def test_who_follows_a_job_sees_its_steps_its_previews_and_its_end(cluster: Cluster) -> None:
    _, accepted = post_picture(
        cluster.url, picture(size=(90, 60)), model_name="slow", prompt="neon", num_inference_steps="60"
    )

    events = list(stream(f"{accepted['events_url']}&previews=true"))

    previews = [data for kind, data in events if kind == "preview"]
    steps = [data["step"] for kind, data in events if kind == "progress"]
    assert steps == sorted(steps)
    assert len(previews) >= 2
    assert events[-1][0] == "final"
    with Image.open(io.BytesIO(base64.b64decode(previews[-1]["image"].partition(",")[2]))) as shown:
        assert shown.format == "JPEG"


def test_a_picture_is_uploaded_first_and_used_by_several_jobs(cluster: Cluster) -> None:
    _, upload = _send("POST", f"{cluster.url}/api/uploads", b"")
    put, told = _send("PUT", upload["put_url"], picture(), **{"Content-Type": "image/png"})
    assert put == 200, told

    job = {"model_name": "quick", "image": upload["id"]}
    answers = [
        _send("POST", f"{cluster.url}/api/jobs", json.dumps(job | {"prompt": prompt}).encode())
        for prompt in ("red", "green")
    ]

    assert [status for status, _ in answers] == [202, 202], answers
    made = [poll(partial(_result, cluster, answer["result_url"])) for _, answer in answers]
    assert made[0] != made[1]


def test_the_client_library_works_through_the_door(cluster: Cluster, tmp_path: Path) -> None:
    with Client(cluster.url) as client:
        result = client.generate(picture(), "quick", prompt="by the library")
        saved = result.save(tmp_path / "made")
    with Image.open(saved) as made:
        assert abs(made.width / made.height - 64 / 48) < 0.02


def test_clients_of_other_services_work_through_the_door(cluster: Cluster) -> None:
    photo = min(PICTURES.glob("*.jpg")).read_bytes()
    slow = {"model": "slow", "extra_body": {"num_inference_steps": 120, "strength": 1}}
    with (
        OpenAI(base_url=f"{cluster.url}/v1", api_key="none", max_retries=0) as openai,
        openai.images.edit(image=photo, prompt="neon", stream=True, partial_images=1, **slow) as events,
    ):
        assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    a1111 = WebUIApi(baseurl=f"{cluster.url}/sdapi/v1")
    with a1111.session:
        # Options that one gateway took are there on the other.
        a1111.set_options({"sd_model_checkpoint": "restyle"})
        assert {a1111.util_get_current_model() for _ in range(6)} == {"restyle"}
        image = Image.open(io.BytesIO(photo))
        made = a1111.img2img(images=[image], prompt="neon", sampler_name="DPM++ 2M", batch_size=2)
    assert [each.size for each in made.images] == [(512, 512)] * 2
    replicate = ReplicateClient(api_token="none", base_url=cluster.url)
    with replicate._client:
        (made_here,) = replicate.run("sfumato/restyle", input={"image": io.BytesIO(photo), "prompt": "neon"})
        assert Image.open(io.BytesIO(made_here.read())).format == "PNG"


def test_a_client_that_leaves_a_call_leaves_no_job_behind_the_door(cluster: Cluster) -> None:
    endless = {"model": "slow", "extra_body": {"num_inference_steps": 200, "strength": 1}}
    with (
        OpenAI(base_url=f"{cluster.url}/v1", api_key="none", max_retries=0, timeout=1.5) as openai,
        pytest.raises(APITimeoutError),
    ):
        openai.images.edit(image=picture(), prompt="left behind", **endless)

    def ended() -> Any:
        listed = json.loads(cluster.get("/api/jobs?limit=5")[1])["jobs"]
        return [job["status"] for job in listed if job["prompt"] == "left behind"] == ["canceled"]

    poll(ended, within_s=10)


def test_results_outlive_a_restart_of_the_whole_cluster_with_minio(tmp_path: Path) -> None:
    try:
        minio(tmp_path / "probe", new_place(1))
    except ServerMissing as error:
        pytest.skip(error.detail)  # Its project ships no binaries any more, so a fresh machine has none.
    with passable_folder() as folder:
        with Cluster(folder, "--s3", "minio", models=SIMULATED) as cluster:
            _, accepted = post_picture(cluster.url, picture(), model_name="quick", prompt="kept", key="kept")
            before = poll(lambda: _result(cluster, accepted["result_url"]))
            stopped = cluster.stop(within_s=STOPS_WITHIN_S)
            cluster.ends_whole(within_s=1.0)
        with Cluster(folder, "--s3", "minio", models=SIMULATED) as cluster:
            link = accepted["result_url"].partition("/api/")[2]
            after = _result(cluster, f"/api/{link}")
            _, again = post_picture(cluster.url, picture(), model_name="quick", prompt="kept", key="kept")
            _, new = post_picture(cluster.url, picture(), model_name="quick", prompt="new")
            poll(lambda: _result(cluster, new["result_url"]), within_s=20)
            listed = poll(lambda: len(json.loads(cluster.get("/api/jobs")[1])["jobs"]) == 2)

    assert stopped == 0
    assert after == before
    assert again["id"] == accepted["id"]
    assert listed


def _made(cluster: Cluster, prompt: str) -> None:
    """A picture is made; a 503 on the way is answered as clients do, by the same request again."""

    def accepted() -> str:
        status, answer = post_picture(cluster.url, picture(), key=prompt, model_name="quick", prompt=prompt)
        assert status in (202, 503), answer
        return str(answer["result_url"]) if status == 202 else ""

    link = poll(accepted, within_s=30, every_s=0.2)
    poll(lambda: cluster.get(link)[0] == 200, within_s=30, every_s=0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere no system ends a child with its parent")
def test_three_brokers_make_pictures_and_end_with_their_killed_parent() -> None:
    with passable_folder() as folder, Cluster(folder, "--brokers", "3", models=SIMULATED) as cluster:
        assert len(cluster.pids("kafka")) == 3
        _made(cluster, "with all of them")
        cluster.kill("kafka", which=1)
        _made(cluster, "with one killed")
        assert cluster.process is not None
        cluster.process.send_signal(signal.SIGKILL)
        cluster.process.wait()
        cluster.ends_whole()


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "sfumato", "cluster", "up", "--port", "0", "--data-dir", str(tmp_path / "data")],
        env=inherited_environment() | {"KAFKA_HOME": str(tmp_path / "kafka")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Apache Kafka is not on this machine" in ended.stderr
    assert "set KAFKA_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr
