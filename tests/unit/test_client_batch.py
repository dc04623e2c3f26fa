import asyncio
from pathlib import Path

import httpx
import pytest

from sfumato.client import AsyncClient, InvalidRequest, JobFailed
from sfumato.client.batch import Sent, pictures_in, send_all
from tests.fake_service import FakeService


async def no_pause(seconds: float) -> None:
    """Time does not matter here."""


def send(service: FakeService, folder: Path, told: list[str] | None = None, **options: object) -> list[Sent]:
    async def all_of_them() -> list[Sent]:
        async with AsyncClient("http://service", transport=httpx.MockTransport(service), sleep=no_pause) as client:
            orders = pictures_in([folder], {"prompt": "as a mosaic"})
            seen = told if told is not None else []
            return await send_all(
                client,
                "restyle",
                orders,
                told=lambda sent: seen.append(sent.state),
                **options,  # type: ignore[arg-type]
            )

    return asyncio.run(all_of_them())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "boat.v2.png").write_bytes(b"boat")
    (pictures / "Lake.JPG").write_bytes(b"lake")
    (pictures / "notes.txt").write_bytes(b"no picture")
    return pictures


def test_a_folder_gives_its_pictures_by_name(folder: Path) -> None:
    assert [order.save_as for order in pictures_in([folder], {})] == ["Lake", "boat.v2"]


def test_files_that_would_be_saved_under_one_name_are_numbered(folder: Path) -> None:
    orders = pictures_in([folder / "Lake.JPG", folder / "Lake.JPG", folder / "boat.v2.png"], {})
    assert [order.save_as for order in orders] == ["Lake-1", "Lake-2", "boat.v2"]


def test_a_path_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        pictures_in([folder / "none"], {})


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no picture"):
        pictures_in([tmp_path], {})


def test_every_result_is_saved_under_its_pictures_name(folder: Path, tmp_path: Path) -> None:
    sent = send(FakeService(picture=b"mosaic"), folder, out=tmp_path / "out")
    assert [one.state for one in sent] == ["succeeded", "succeeded"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        "Lake.png": b"mosaic",
        "boat.v2.png": b"mosaic",
    }


def test_without_wait_the_jobs_are_only_accepted(folder: Path) -> None:
    service = FakeService()
    sent = send(service, folder, wait=False)
    assert [one.state for one in sent] == ["queued", "queued"]
    assert {request.method for request in service.requests} == {"POST"}


def test_one_that_fails_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"broken")
    sent = {one.order.save_as: one for one in send(FakeService(), folder, out=tmp_path / "out")}
    failed = sent["broken"].error
    assert isinstance(failed, JobFailed)
    assert failed.detail == "The picture is broken."
    assert failed.case == "job-failed"
    assert sent["Lake"].saved == tmp_path / "out" / "Lake.png"


def test_a_refused_picture_is_refused_not_failed(folder: Path) -> None:
    (folder / "Lake.JPG").write_bytes(b"no picture")
    sent = send(FakeService(), folder)
    assert [one.state for one in sent] == ["refused", "succeeded"]
    assert sent[0].error is not None
    assert "no picture" in sent[0].error.detail


def test_a_refusal_that_is_about_the_request_ends_it_all_at_the_first_picture(folder: Path) -> None:
    service = FakeService(models=["other"])
    with pytest.raises(InvalidRequest, match="other"):
        send(service, folder)
    assert len(service.requests) == 1


def test_of_a_folder_only_what_services_read_is_sent(folder: Path) -> None:
    for name in ("moving.gif", "old.bmp", ".hidden.png", "web.webp"):
        (folder / name).write_bytes(b"picture")
    (folder / "folder.png").mkdir()
    assert [order.source.name for order in pictures_in([folder], {})] == ["Lake.JPG", "boat.v2.png", "web.webp"]


def test_each_state_is_told_as_it_comes(folder: Path) -> None:
    (folder / "Lake.JPG").unlink()
    told: list[str] = []
    send(FakeService(), folder, told)
    assert list(dict.fromkeys(told)) == ["queued", "running", "succeeded"]
