"""The clients, the command and the examples against the real service."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

import sfumato
from sfumato.cli import main
from tests.sample_pictures import picture
from tests.service import Service
from tests.support import poll

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("live")) as started:
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[sfumato.Client]:
    with sfumato.Client(service.url) as connected:
        yield connected


def test_a_picture_comes_back_as_a_picture(client: sfumato.Client) -> None:
    result = client.generate(picture(size=(64, 48)), "quick", prompt="neon", output_format="webp", timeout_s=30)
    with Image.open(io.BytesIO(result.data)) as opened:
        assert opened.format == "WEBP"


def test_a_job_is_followed_listed_and_deleted(client: sfumato.Client) -> None:
    job = client.submit(picture(), "quick", prompt="at night", metadata={"order": 7})
    seen = list(client.watch(job, timeout_s=30))
    assert seen[-1].status == "succeeded"
    assert seen[-1].metadata == {"order": 7}
    assert client.wait(job).result is not None
    assert job.id in [one.id for one in client.jobs(status="succeeded", limit=200)]
    client.delete(job)
    with pytest.raises(sfumato.JobFailed):
        client.result(job)


def test_the_same_key_is_the_same_job(client: sfumato.Client) -> None:
    first, second = (client.submit(picture(), "quick", seed=1, idempotency_key="live-1") for _ in range(2))
    assert first.id == second.id


def test_too_late_a_cancel_is_told(client: sfumato.Client) -> None:
    job = client.submit(picture(), "quick", wait_s=30)
    assert job.status == "succeeded"
    with pytest.raises(sfumato.AlreadyEnded):
        client.cancel(job)


def test_refusals_are_their_own_errors(client: sfumato.Client) -> None:
    with pytest.raises(sfumato.UnknownModel) as caught:
        client.submit(picture(), "nameless")
    assert "quick" in caught.value.known
    with pytest.raises(sfumato.InvalidRequest, match="strength"):
        client.submit(picture(), "quick", strength=7.0)
    with pytest.raises(sfumato.InvalidRequest):
        client.submit(b"no picture", "quick")
    with pytest.raises(sfumato.NotFound):
        client.job("0190b0f0-0000-7000-8000-000000000001")


def test_a_misleading_file_name_does_not_matter(client: sfumato.Client, tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(picture("PNG"))
    assert client.generate(path, "quick", timeout_s=30).data


def test_many_at_once_from_asyncio(service: Service) -> None:
    async def many() -> list[sfumato.Result]:
        async with sfumato.AsyncClient(service.url) as client:
            return await asyncio.gather(*(client.generate(picture(), "quick", timeout_s=60) for _ in range(20)))

    assert len(asyncio.run(many())) == 20


def test_jobs_are_counted_and_listed_by_time(client: sfumato.Client) -> None:
    before = datetime.now(UTC)
    job = client.generate(picture(), "quick", timeout_s=30).job_id
    poll(lambda: job in [one.id for one in client.jobs(since=before, status="succeeded")])
    assert client.count_jobs(since=before) == len(list(client.jobs(since=before)))
    assert job not in [one.id for one in client.jobs(until=before.timestamp(), since="2020-01-01", model_name="quick")]
    with pytest.raises(sfumato.InvalidRequest, match="since must be before until"):
        list(client.jobs(since=before, until=before))
    with pytest.raises(sfumato.InvalidRequest, match="must be a time such as"):
        client.count_jobs(since="yesterday")


def test_webhooks_are_added_rotated_and_removed(client: sfumato.Client) -> None:
    added = client.add_webhook("https://example.com/hook", ["failed"])
    assert (added.secret or "").startswith("whsec_")
    assert [(each.id, each.events, each.secret) for each in client.webhooks()] == [(added.id, ("failed",), None)]
    rotated = client.rotate_webhook(added, overlap_s=60)
    assert rotated.secret not in (None, added.secret)
    client.remove_webhook(added)
    assert client.webhooks() == ()
    with pytest.raises(sfumato.InvalidRequest, match="secret"):
        client.webhook_secrets()  # without a key it is the service's own
    with pytest.raises(sfumato.NotFound, match="No endpoint has this id"):
        client.rotate_webhook(added)
    for wrong in ("http://127.0.0.1/", "ftp://example.com/", ""):
        with pytest.raises(sfumato.InvalidRequest) as caught:
            client.add_webhook(wrong)
        assert caught.value.case == "bad-webhook"
    with pytest.raises(sfumato.InvalidRequest, match="events"):
        client.add_webhook("https://example.com/hook", "someday")
    with pytest.raises(sfumato.InvalidRequest, match="must be some of started"):
        client.submit(picture(), "quick", webhook_url="https://example.com/hook", webhook_events="someday")
    with pytest.raises(sfumato.InvalidRequest, match="webhook_url must say where"):
        client.submit(picture(), "quick", webhook_events="failed")


def test_what_was_not_delivered_is_listed_and_sent_again(
    service: Service, client: sfumato.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    # A name that leads nowhere (RFC 2606), so that every attempt fails.
    hook = "https://receiver.invalid/hook"
    job = client.submit(picture(), "quick", webhook_url=hook, webhook_events=["succeeded"])
    (delivery,) = poll(lambda: [each for each in client.deliveries(job_id=job.id) if each.attempts], within_s=30)
    assert (delivery.event, delivery.state, delivery.url, delivery.endpoint) == ("succeeded", "pending", hook, "job")
    assert delivery.last_error
    assert delivery.next_attempt_at

    assert main(["webhooks", "deliveries", "--job", job.id, "--url", service.url]) == 0
    assert delivery.id in capsys.readouterr().out
    assert main(["webhooks", "redeliver", delivery.id, "--url", service.url]) == 0
    assert capsys.readouterr().out == f"{delivery.id} pending\n"
    assert main(["webhooks", "redeliver", "msg_nothing", "--url", service.url]) == 1
    assert "No delivery has this id" in capsys.readouterr().err


def test_models_tell_what_they_allow(client: sfumato.Client) -> None:
    quick = next(model for model in client.models() if model.name == "quick")
    assert quick.rules["samplers"]
    assert quick.workers == 1


def test_submit_out_saves_a_folder(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("boat", "lake"):
        (tmp_path / f"{name}.png").write_bytes(picture())
    words = ["--model", "quick", "--prompt", "neon", "--out", str(tmp_path / "out"), "--json", "--url", service.url]
    assert main(["submit", str(tmp_path), *words]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(one["saved"]).name for one in told] == ["boat.png", "lake.png"]
    assert service.get(told[0]["result_url"])[0] == 200


def test_demo_ends_with_a_contact_sheet_and_no_service(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "boat.jpg").write_bytes(picture("JPEG", size=(320, 200)))
    command = [sys.executable, "-m", "examples.demo", "--images", str(images), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "out").glob("*/boat.*"))) == 6
    with Image.open(tmp_path / "out" / "contact-sheet.jpg") as sheet:
        assert sheet.width > sheet.height
