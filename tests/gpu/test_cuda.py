"""What only a CUDA device can show: `make gpu`. Fails, and does not skip, where there is none."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.core.params import ModelRules, Params, Sampler, Shape
from sfumato.engine import backends
from sfumato.engine.backends import Backend, Options
from sfumato.engine.caps import fits
from sfumato.engine.engine import Engine, Event, Failed, Finished
from tests.diffusers_models import make_model
from tests.integration.test_diffusers_backend import DIFFUSION, FLOW, difference, run, scene
from tests.support import make_params

KINDS = ("sd", "sd-v", "sd-lcm", "sdxl", "sdxl-refiner", "sd3", "flux-dev", "flux-schnell")
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions without TF32, which rounds to ten bits: what is compared is how jobs walk."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def load(folder: Path, kind: str, device: str, dtype: str = "float32") -> Any:
    samplers = FLOW if kind.startswith(("sd3", "flux")) else DIFFUSION
    rules = ModelRules(shapes=(Shape(64, 64),), size_multiple=16, samplers=samplers, sampler=samplers[0])
    return backends.load("diffusers", folder, rules, Options(threads=2, device=device, dtype=dtype))


def jobs_for(kind: str, count: int) -> list[Params]:
    samplers = FLOW if kind.startswith(("sd3", "flux")) else DIFFUSION
    return [
        make_params(
            prompt=f"number {number}",
            seed=number,
            sampler=Sampler(samplers[number % len(samplers)]),
            num_inference_steps=5 + number,
            strength=0.3 + 0.05 * number,
            guidance_scale=[1.0, 7.5, 2.0][number % 3],
        )
        for number in range(count)
    ]


def alike(kind: str, count: int) -> list[Params]:
    """Jobs of equal steps, so that their calls are of one kind from the first to the last."""
    sampler = FLOW[0] if kind.startswith(("sd3", "flux")) else Sampler.EULER_ANCESTRAL
    return [make_params(seed=number, sampler=sampler, num_inference_steps=20) for number in range(count)]


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return events


@pytest.mark.parametrize("kind", KINDS)
def test_device_walks_as_the_cpu_does(tmp_path: Path, kind: str) -> None:
    folder, jobs = make_model(kind, tmp_path / "model"), jobs_for(kind, 8)

    expected, backend = run(load(folder, kind, "cpu"), jobs), load(folder, kind, "cuda")

    for _ in range(3):  # launched, recorded, replayed
        pairs = zip(run(backend, jobs), expected, strict=True)
        assert max(difference(found.cpu(), wanted) for found, wanted in pairs) < TOLERANCE


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux-dev"])
def test_every_familys_network_is_replayed(tmp_path: Path, kind: str) -> None:
    backend = load(make_model(kind, tmp_path / "model"), kind, "cuda")

    run(backend, alike(kind, 3))

    family = backend._family
    network = family._unet._network if hasattr(family, "_unet") else family._network
    assert network._recordings
    assert not network._given_up


def test_network_that_asks_for_a_number_runs_without_recordings_and_harms_nothing(tmp_path: Path) -> None:
    backend = load(make_model("sd", tmp_path / "model"), "sd", "cuda")
    unet = backend._family._unet
    network = unet._network._network

    def asks(x: torch.Tensor, *rest: Any, **more: Any) -> Any:
        assert float(x.sum()) == float(x.sum())
        return network(x, *rest, **more)

    unet._network._network = asks
    found = run(backend, alike("sd", 3))

    assert unet._network._given_up
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert all(latents.isfinite().all() for latents in found)


@pytest.mark.parametrize("kind", ["sd", "flux-dev"])
def test_host_waits_for_nothing_while_jobs_step(tmp_path: Path, kind: str) -> None:
    backend: Backend = load(make_model(kind, tmp_path / "model"), kind, "cuda")
    engine = Engine(backend, 8)
    for number, params in enumerate(alike(kind, 4)):
        engine.add(str(number), params, scene(params))
    for _ in range(3):  # the first calls are recorded
        engine.step()

    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "dtype"), [("sd", "float16"), ("sdxl", "float16"), ("flux-dev", "bfloat16")])
def test_half_precision_makes_whole_pictures(tmp_path: Path, kind: str, dtype: str) -> None:
    backend: Backend = load(make_model(kind, tmp_path / "model"), kind, "cuda", dtype)
    engine = Engine(backend, 8)
    for number, params in enumerate(jobs_for(kind, 5)):
        engine.add(str(number), params, scene(params))

    ends = [event for event in drain(engine) if isinstance(event, Finished | Failed)]

    assert [type(event) for event in ends] == [Finished] * 5


@pytest.fixture
def little_memory() -> Iterator[None]:
    """300 MiB more than this process holds; tiny models need a few, large shapes of many rows need more."""
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    # Libraries keep a workspace for each stream that any earlier test had.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_what_fits_is_measured_and_no_job_fails_for_want_of_memory(tmp_path: Path) -> None:
    backend: Backend = load(make_model("sd", tmp_path / "model"), "sd", "cuda")
    shape = Shape(768, 768)

    known = fits(backend, [shape], 64, tmp_path / "caps", [])

    assert 1 <= known[shape].rows < 64 or known[shape].pictures < 64
    engine = Engine(backend, 64, known)
    params = make_params(width=768, height=768, num_inference_steps=4)
    for number in range(12):
        engine.add(str(number), params, scene(params))
    assert {type(event) for event in drain(engine) if isinstance(event, Finished | Failed)} == {Finished}


def test_memory_in_use_is_told_of_the_device_that_is_worked_on(tmp_path: Path) -> None:
    load(make_model("sd", tmp_path / "model"), "sd", "cuda")
    held = torch.zeros(256 * 2**20, dtype=torch.uint8, device="cuda")

    (device,) = backends.device_memory()

    assert device.name.startswith("GPU-")
    assert held.numel() <= device.used_bytes <= device.total_bytes
    assert device.total_bytes == torch.cuda.get_device_properties(0).total_memory
