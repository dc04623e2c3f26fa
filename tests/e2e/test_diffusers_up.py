"""A running `sfumato up` serves diffusers folders as they are added; one that it can't is told of and harms none."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.diffusers_models import make_model, make_whole
from tests.service import Service, post_picture
from tests.support import poll

BY_HAND = """
[models.pickled]
backend = "diffusers"
path = "../weights/pickled"

[models.lost]
backend = "diffusers"
path = "../weights/lost"
"""

JOBS = (
    ("tiny", "ddim"),
    ("tiny", "ddim"),
    ("tiny", "euler_ancestral"),
    ("flowing", "flow_match_euler"),
    ("whole", "native"),
)


def models(service: Service, *words: str) -> str:
    """`sfumato models …` on the service's data folder: what it printed."""
    command = [sys.executable, "-m", "sfumato", "models", *words, "--data-dir", str(service.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(service: Service) -> dict[str, Any]:
    """Model → how the service shows it."""
    return {model["name"]: model for model in json.loads(service.get("/api/models")[1])["models"]}


def states(service: Service) -> dict[str, str]:
    return {name: model["state"] for name, model in shown(service).items()}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    good = make_model("sdxl", folder / "xl")
    make_model("flux-dev", folder / "flux")
    make_whole(folder / "whole")
    pickled = Path(shutil.copytree(good, folder / "pickled"))
    unet = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".bin"))
    return folder


def test_models_are_served_as_they_are_added_and_gone_when_they_are_removed(tmp_path: Path, weights: Path) -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((90, 60)).convert("RGB").save(stream, "PNG")

    with Service(tmp_path, models=None) as service:
        assert "StableDiffusionXLPipeline" in models(service, "add", "tiny", str(weights / "xl"))
        assert "FluxPipeline" in models(service, "add", "flowing", str(weights / "flux"))
        assert "StableDiffusionPAGPipeline" in models(service, "add", "whole", str(weights / "whole"))
        poll(lambda: {"restyle", "tiny", "flowing", "whole"} == states(service).keys(), within_s=15)
        posted = [_asked(service, stream.getvalue(), name, sampler) for name, sampler in JOBS]
        assert [status for status, _ in posted] == [202] * len(JOBS)
        links = [accepted["result_url"] for _, accepted in posted]
        poll(lambda: all(service.get(link)[0] == 200 for link in links), within_s=90)
        first, again, other, flowing, whole = (_pixels(service.get(link)[1]) for link in links)

        assert "left: restyle, tiny, whole" in models(service, "remove", "flowing")
        poll(lambda: {"restyle", "tiny", "whole"} == states(service).keys(), within_s=15)
        assert post_picture(service.url, stream.getvalue(), model_name="flowing", prompt="x")[0] == 404
        poll(lambda: not [line for line in _children(service) if "worker flowing" in line], within_s=15)

    assert first.shape == flowing.shape == whole.shape == (64, 96, 3)
    assert abs(first - again).max() <= 1
    assert abs(first - other).max() > 1
    assert flowing.std() > 0


def test_model_that_can_not_be_served_is_told_of_and_comes_when_it_is_mended(tmp_path: Path, weights: Path) -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(stream, "PNG")

    with Service(tmp_path, models=f'[models.quick]\nbackend = "simulated"\n{BY_HAND}') as service:
        poll(lambda: states(service) == {"quick": "ready", "pickled": "broken", "lost": "broken"}, within_s=40)
        told = shown(service)
        assert "a pickle, which can run code" in told["pickled"]["trouble"]
        assert "weights/lost' is no folder" in told["lost"]["trouble"]
        poll(lambda: "a pickle, which can run code" in service.log.read_text())
        status, problem = post_picture(service.url, stream.getvalue(), model_name="lost", prompt="x")
        assert (status, problem["type"]) == (503, "urn:sfumato:problem:broken-model")
        assert post_picture(service.url, stream.getvalue(), model_name="quick", prompt="x")[0] == 202

        shutil.move(weights / "xl", weights / "lost")
        poll(lambda: states(service)["lost"] == "ready", within_s=60)


def _asked(service: Service, picture: bytes, name: str, sampler: str) -> tuple[int, dict[str, Any]]:
    asked = {"model_name": name, "sampler": sampler, "prompt": "in oil", "seed": "1", "width": "96", "height": "64"}
    return post_picture(service.url, picture, timeout_s=30, key="", media_type="image/png", **asked)


def _children(service: Service) -> list[str]:
    """The command lines of the processes that the service runs now."""
    assert service.process is not None
    lines = []
    for child in Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            lines.append(Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return lines


def _pixels(picture: bytes) -> npt.NDArray[np.int64]:
    with Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB"), np.int64)
