"""AUTOMATIC1111's client, unmodified, against a real service."""

import base64
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import webuiapi
from PIL import Image

from tests.reader import ROOT, Block, Reader, blocks
from tests.sample_pictures import picture
from tests.service import Service
from tests.support import poll

MODELS = """
[models.quick]
backend = "simulated"
batch = 4

[models.slow]
backend = "simulated"
path = "slow"
batch = 1
slots = 1
"""
SLOW = {"override_settings": {"sd_model_checkpoint": "slow"}}
SLOW_STEP_S = 0.1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a model that makes a picture at once, and one that takes two seconds or so, one at a time."""
    prepared = Service(tmp_path_factory.mktemp("automatic1111"), models=MODELS)
    prepared.simulate("slow", {"fixed_s": SLOW_STEP_S, "row_s": 0.0})
    with prepared as running:
        yield running


@pytest.fixture
def api(service: Service) -> Iterator[Any]:
    with client(service) as connected:
        yield connected


@contextmanager
def client(service: Service, **login: str) -> Iterator[Any]:
    connected = webuiapi.WebUIApi(baseurl=f"{service.url}/sdapi/v1", **login)
    with connected.session:
        yield connected


def photo(size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.open(io.BytesIO(picture(size=size)))


@contextmanager
def under_way(service: Service, pictures: int = 1) -> Iterator["Future[Any]"]:
    """A call of the slow model, of which the first picture is being made."""
    with ThreadPoolExecutor(1) as pool, client(service) as own, client(service) as other:
        answer = pool.submit(own.img2img, [photo()], prompt="neon", seed=7, n_iter=pictures, **SLOW)
        poll(lambda: other.get_progress()["state"]["sampling_step"] > 1, within_s=20)
        yield answer


def jobs(service: Service, status: str) -> list[Any]:
    answer = requests.get(f"{service.url}/api/jobs", params={"status": status}, timeout=10)
    found: list[Any] = answer.json()["jobs"]
    return found


def idle(api: Any) -> bool:
    told = api.get_progress()
    return bool(told["progress"] == 0.0 and told["state"]["job_count"] == 0)


def section(page: Path, title: str) -> list[Block]:
    """The blocks of one section of a page."""
    text = page.read_text()
    of_it = text[text.index(f"\n## {title}\n") :].split("\n## ")[1]
    return [block for block in blocks(page) if block.text in of_it]


def test_the_page_shows_what_happens(tmp_path: Path) -> None:
    with Service(tmp_path, models=None) as bundled:
        reader = Reader(tmp_path, bundled, {})
        shown = section(ROOT / "docs" / "how-to" / "clients.md", "AUTOMATIC1111")
        assert [block.language for block in shown] == ["python", "text"]
        for block in shown:
            reader.do(block)
        with client(bundled) as api:
            plain = api.img2img([Image.open(ROOT / "images" / "cat.jpg")], prompt="watercolor", steps=6)
    assert plain.image.size == (512, 512)
    assert plain.info["sampler_name"] == "Euler a"
    assert len(list((tmp_path / "out").glob("cat-*.png"))) == 2


def test_pictures_come_back_with_how_they_were_made(api: Any) -> None:
    made = api.img2img([photo()], prompt="neon", seed=7, batch_size=2, n_iter=2, width=96, height=64, steps=8)
    assert [image.size for image in made.images] == [(96, 64)] * 4
    assert made.info["all_seeds"] == [7, 8, 9, 10]
    assert made.parameters["prompt"] == "neon"
    assert made.info["infotexts"][1].startswith("neon\nSteps: 8, Sampler: Euler a, Schedule type: Automatic, CFG scale")


def test_several_pictures_come_back_each_as_itself(api: Any) -> None:
    black, white = (Image.new("RGB", (64, 64), colour) for colour in ("black", "white"))
    made = api.img2img([black, white], prompt="grey", batch_size=2, width=64, height=64, denoising_strength=0.2)
    dark, light = (image.convert("L").getpixel((32, 32)) for image in made.images)
    assert dark < light


def test_what_a_client_asks_for_at_its_start_is_told(api: Any) -> None:
    assert api.util_get_model_names() == ["quick", "slow"]
    assert api.util_get_sampler_names() == ["DDIM", "DPM++ 2M", "Euler", "Euler a", "LCM"]
    assert api.util_get_scheduler_names() == ["automatic"]
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_loras() == api.get_upscalers() == api.get_sd_vae() == []
    assert api.refresh_checkpoints() is None


def test_a_model_that_is_set_is_that_of_the_calls_behind(api: Any) -> None:
    api.util_set_model("slow", find_closest=False)
    assert api.util_get_current_model() == "slow"
    api.util_set_model("Quik")
    assert api.util_get_current_model() == "quick"
    assert api.img2img([photo()]).info["sd_model_name"] == "quick"


def test_who_waits_sees_the_picture_come(service: Service, api: Any) -> None:
    with under_way(service) as answer:
        told = poll(lambda: (now := api.get_progress())["current_image"] and now, within_s=10)
        assert 0 < told["progress"] < 1
        assert Image.open(io.BytesIO(base64.b64decode(told["current_image"]))).format == "JPEG"
        assert len(answer.result(30).images) == 1
    api.util_wait_for_ready(check_interval=0.05)


def test_an_interrupted_call_has_the_pictures_that_were_finished(service: Service, api: Any) -> None:
    with under_way(service, pictures=3) as answer:
        poll(lambda: api.get_progress()["state"]["job_no"] == 1, within_s=20)
        assert api.interrupt() == {}
        made = answer.result(10)
    assert [made.info["all_seeds"], len(made.images)] == [[7], 1]
    assert idle(api)


def test_a_call_interrupted_too_early_is_told_as_canceled(service: Service, api: Any) -> None:
    with under_way(service) as answer:
        api.interrupt()
        with pytest.raises(RuntimeError, match=r"410.*The job was canceled"):
            answer.result(10)


def test_a_picture_that_is_skipped_is_left_out(service: Service, api: Any) -> None:
    with under_way(service, pictures=2) as answer:
        assert api.skip() == {}
        assert answer.result(20).info["all_seeds"] == [8]


def test_a_refusal_names_what_is_wrong(api: Any) -> None:
    with pytest.raises(RuntimeError, match=r"422.*sampler_name .*DPM\+\+ SDE.*Closest to it: DPM\+\+ 2M"):
        api.img2img([photo()], sampler_name="DPM++ SDE")
    with pytest.raises(RuntimeError, match="mask is not taken"):
        api.img2img([photo()], mask_image=photo())
    with pytest.raises(RuntimeError, match=r"404.*nobody.*is unknown.*quick, slow"):
        api.img2img([photo()], override_settings={"sd_model_checkpoint": "nobody"})


def test_a_picture_that_is_cut_off_fails_its_call(service: Service) -> None:
    cut = base64.b64encode(picture("JPEG", (300, 200))[:2000]).decode()
    answer = requests.post(f"{service.url}/sdapi/v1/img2img", json={"init_images": [cut]}, timeout=30)
    assert answer.status_code == 410
    assert "picture" in answer.json()["detail"]
    assert answer.json()["error"] == "The job failed; there is no picture"


def test_the_jobs_of_a_client_that_leaves_are_canceled(service: Service, api: Any) -> None:
    before = len(jobs(service, "canceled"))
    asked: dict[str, Any] = {"init_images": [webuiapi.raw_b64_img(photo())], "n_iter": 3, "steps": 100, **SLOW}
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{service.url}/sdapi/v1/img2img", json=asked, timeout=1)
    poll(lambda: len(jobs(service, "canceled")) == before + 3, within_s=10)
    poll(lambda: idle(api), within_s=10)


def test_jobs_go_on_when_the_gateway_is_killed_while_a_client_waits(service: Service) -> None:
    before = len(jobs(service, "succeeded"))
    with under_way(service, pictures=2) as answer:
        os.kill(service.roles()["gateway"], signal.SIGKILL)
        with pytest.raises(requests.exceptions.ConnectionError):
            answer.result(10)

    def ended() -> bool:
        try:
            return len(jobs(service, "succeeded")) == before + 2
        except (requests.exceptions.ConnectionError, KeyError):
            return False  # the next one is not there yet

    poll(ended, within_s=30, every_s=0.1)
    with client(service) as again:
        assert idle(again)
        assert again.img2img([photo()]).image


def test_a_key_is_the_password_and_a_call_waits_only_so_long(tmp_path: Path) -> None:
    prepared = Service(tmp_path, models=MODELS, environment={"SFUMATO_CALL_WAIT_S": "1"})
    prepared.simulate("slow", {"fixed_s": 1.0, "row_s": 0.0})
    made = subprocess.run(
        [sys.executable, "-m", "sfumato", "keys", "create", "alice"],
        env=os.environ | {"SFUMATO_DATA_DIR": str(prepared.data_dir)},  # noqa: TID251 - the child's
        capture_output=True,
        text=True,
        check=True,
    )
    key = made.stdout.strip()
    with prepared as closed:
        with client(closed) as nobody, pytest.raises(RuntimeError, match=r"401.*Send a key"):
            nobody.img2img([photo()])
        with client(closed, username="anybody", password=key) as alice:
            with pytest.raises(RuntimeError, match=r"504.*No picture within 1 s"):
                alice.img2img([photo()], **SLOW)
            assert poll(lambda: idle(alice))
            assert alice.get_options()["sd_model_checkpoint"] == "quick"
