"""The bundled model on ONNX Runtime: what the unit tests of the engine can't show with a fake."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as states

from sfumato.core.errors import EngineDead
from sfumato.core.params import ModelRules, Params, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.onnx import OnnxBackend
from sfumato.engine.engine import Engine, Finished, Pixels
from tests.support import make_params

MODEL = Path(__file__).parents[2] / "src/sfumato/models/bundled/restyle"
RULES = ModelRules(shapes=(Shape(128, 128),), size_multiple=32)


@pytest.fixture(scope="module")
def backend() -> OnnxBackend:
    found = backends.load("onnx", MODEL, RULES, backends.Options(threads=2))
    assert isinstance(found, OnnxBackend)
    return found


def scene(width: int = 128, height: int = 128) -> Pixels:
    """A bright sky over a dark hill with a red spot."""
    y, x = np.mgrid[:height, :width]
    pixels = np.where((y > height / 2)[..., None], [60, 90, 40], [150, 190, 230])
    pixels[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 6) ** 2] = [200, 40, 30]
    return pixels.astype(np.uint8)


def job(**changes: object) -> Params:
    plain = {"width": 128, "height": 128, "strength": 0.4, "num_inference_steps": 15}
    return make_params(**(plain | changes))


def run(backend: OnnxBackend, *jobs: Params) -> list[Pixels]:
    engine = Engine(backend, 8)
    for number, params in enumerate(jobs):
        engine.add(str(number), params, scene(params.width, params.height))
    found: dict[str, Pixels] = {}
    while not engine.idle:
        found |= {event.key: event.pixels for event in engine.step() if isinstance(event, Finished)}
    return [found[str(number)] for number in range(len(jobs))]


def distance(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_about_tells_what_the_folder_says(backend: OnnxBackend) -> None:
    about = backend.about

    assert (about.latent_channels, about.vae_factor, about.schedule.prediction_type) == (12, 8, "v_prediction")


def test_picture_survives_encoding_and_decoding(backend: OnnxBackend) -> None:
    latents = backend.encode_images(scene()[None], [backend.arrays.generator(1)])

    (picture,) = backend.decode(latents)

    assert latents.shape == (1, 12, 16, 16)
    assert distance((picture.clip(0, 1) * 255).astype(np.uint8), scene()) < 8


def test_latents_are_the_first_draw_of_the_encoders_distribution(
    backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, log_variance = np.full((1, 12, 16, 16), 3.0), np.full((1, 12, 16, 16), 2.0)
    monkeypatch.setattr(backend, "_encoder", lambda sample: np.concatenate([mean, log_variance], axis=1))

    latents = backend.encode_images(scene()[None], [backend.arrays.generator(1)])

    draw = backend.arrays.normal(backend.arrays.generator(1), 12, 16, 16)
    assert np.allclose(latents[0], 3 + np.e * draw, atol=1e-5)


def test_prompt_fills_the_window_and_a_long_one_is_cut(backend: OnnxBackend) -> None:
    short, long = backend.encode_prompts([Prompt("mosaic"), Prompt("mosaic " * 200)])

    assert short.shape == long.shape == (32, 160)


def test_prompt_decides_the_look(backend: OnnxBackend) -> None:
    night, sunset = run(backend, job(prompt="at night"), job(prompt="at sunset"))

    assert night.mean() < sunset.mean() - 20
    assert night[..., 2].mean() > night[..., 0].mean()
    assert sunset[..., 0].mean() > sunset[..., 2].mean()


def test_batched_jobs_come_out_as_alone(backend: OnnxBackend) -> None:
    jobs = [
        job(prompt="mosaic", seed=1),
        job(prompt="neon", seed=2, sampler=Sampler.EULER_ANCESTRAL, num_inference_steps=10, strength=0.5),
        job(prompt="sepia", seed=3, guidance_scale=2.0),
    ]

    together = run(backend, *jobs)

    assert all(distance(found, *run(backend, params)) < 0.5 for found, params in zip(together, jobs, strict=True))


def test_same_job_gives_the_same_picture(backend: OnnxBackend) -> None:
    first, second = run(backend, job(seed=5))[0], run(backend, job(seed=5))[0]

    assert np.array_equal(first, second)


def test_wide_picture_keeps_its_shape(backend: OnnxBackend) -> None:
    (wide,) = run(backend, job(width=192, height=96))

    assert wide.shape == (96, 192, 3)


@pytest.mark.parametrize(
    ("trouble", "meaning"),
    [
        (states.EPFail("device lost"), EngineDead),
        (states.RuntimeException("Failed to allocate memory for requested buffer"), MemoryError),
        (states.Fail("std::bad_alloc"), MemoryError),
        (states.InvalidArgument("wrong shape"), states.InvalidArgument),
    ],
)
def test_trouble_of_the_runtime_gets_the_ports_meaning(
    backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch, trouble: Exception, meaning: type[Exception]
) -> None:
    class BrokenSession:
        def run(self, outputs: list[str], feed: dict[str, object]) -> None:
            raise trouble

    monkeypatch.setattr(backend._decoder, "_session", BrokenSession())

    with pytest.raises(meaning):
        backend.decode(np.zeros((1, 12, 16, 16), np.float32))


def test_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match=r"unet/model\.onnx"):
        backends.load("onnx", tmp_path, RULES)


def test_broken_config_is_named(tmp_path: Path) -> None:
    copy = shutil.copytree(MODEL, tmp_path / "model")
    (copy / "scheduler" / "scheduler_config.json").write_text("{")

    with pytest.raises(BackendUnusable, match=r"scheduler_config\.json"):
        backends.load("onnx", copy, RULES)


def test_schedule_that_needs_thresholding_is_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(MODEL, tmp_path / "model")
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"thresholding": True}))

    with pytest.raises(BackendUnusable, match="thresholding"):
        backends.load("onnx", copy, RULES)
