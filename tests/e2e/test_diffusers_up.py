"""`sfumato up` serves a diffusers folder named in models.toml; one that it can't is told of and harms no other."""

import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.diffusers_models import make_model
from tests.service import Service, post_picture
from tests.support import poll

MODELS = """
[models.tiny]
backend = "diffusers"
path = "../weights/xl"
device = "cpu"
batch = 4

[models.flowing]
backend = "diffusers"
path = "../weights/flux"
device = "cpu"
rules = { shapes = [[96, 64]] }

[models.broken]
backend = "diffusers"
path = "../weights/pickled"
"""

JOBS = (("tiny", "ddim"), ("tiny", "ddim"), ("tiny", "euler_ancestral"), ("flowing", "flow_match_euler"))


def test_a_diffusers_folder_is_served_and_a_broken_one_is_told_of(tmp_path: Path) -> None:
    good = make_model("sdxl", tmp_path / "weights" / "xl")
    make_model("flux-dev", tmp_path / "weights" / "flux")
    bad = Path(shutil.copytree(good, tmp_path / "weights" / "pickled"))
    weights = bad / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((90, 60)).convert("RGB").save(stream, "PNG")

    with Service(tmp_path, models=MODELS) as service:
        posted = [
            post_picture(service.url, stream.getvalue(), model_name=name, prompt="in oil", seed="1", sampler=sampler)
            for name, sampler in JOBS
        ]
        assert [status for status, _ in posted] == [202] * len(JOBS)
        links = [accepted["result_url"] for _, accepted in posted]
        poll(lambda: all(service.get(link)[0] == 200 for link in links), within_s=90)
        first, again, other, flowing = (_pixels(service.get(link)[1]) for link in links)
        poll(lambda: "a pickle, which can run code" in service.log.read_text(), within_s=30)

    height, width, _ = first.shape
    assert abs(width / height - 90 / 60) < 0.05
    assert abs(first - again).max() <= 1
    assert abs(first - other).max() > 1
    assert flowing.std() > 0


def _pixels(picture: bytes) -> npt.NDArray[np.int64]:
    with Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB"), np.int64)
