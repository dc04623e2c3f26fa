"""Pipelines without an adapter, run request by request, against diffusers itself."""

import json
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import diffusers
import numpy as np
import pytest

from sfumato.core.params import ModelRules, Params, Sampler
from sfumato.engine import opening
from sfumato.engine.backends import BackendUnusable, Lora, Options, load_whole
from sfumato.engine.backends.diffusers.backend import FAMILIES
from sfumato.engine.events import Event, Finished, Progress
from sfumato.engine.opening import AnyEngine, open_engine
from sfumato.models.folder import STEPPED, default_rules
from tests.diffusers_models import make_model, make_whole
from tests.integration.test_diffusers_backend import scene, theirs
from tests.support import make_params

# diffusers 0.42 hands torch tensors to numpy 2 in a way that numpy warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = Options(threads=1, device="cpu")


def opened(folder: Path, options: Options = CPU) -> AnyEngine:
    rules = ModelRules.model_validate(default_rules(folder))
    return open_engine("diffusers", folder, rules, options, 4, folder.parent / "caps")[0]


def drain(engine: AnyEngine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    return events


def asked(**changes: object) -> Params:
    return make_params(sampler=Sampler.NATIVE, guidance_scale=3.0, negative_prompt="dull", **changes)


def finished(events: Sequence[Event]) -> dict[str, Finished]:
    return {event.key: event for event in events if isinstance(event, Finished)}


def test_its_pictures_are_those_of_the_pipeline(tmp_path: Path) -> None:
    folder = make_whole(tmp_path / "model")
    engine, params = opened(folder), asked()
    engine.add("one", params, scene(params))

    events = drain(engine)

    pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    with_own_sampler = pipeline.scheduler
    expected = np.asarray(theirs(pipeline, params, output_type="np", scheduler=with_own_sampler))
    assert np.abs(finished(events)["one"].pixels / 255 - expected).max() <= 0.51 / 255
    steps = [(event.step, event.steps) for event in events if isinstance(event, Progress)]
    assert steps == [(step, steps[-1][1]) for step in range(1, steps[-1][1] + 1)]


def test_request_is_aborted_between_two_steps_and_the_next_comes_out_right(tmp_path: Path) -> None:
    engine = opened(make_whole(tmp_path / "model"))
    alone = opened(tmp_path / "model")
    params = asked(seed=3)
    alone.add("b", params, scene(params))
    engine.add("a", asked(num_inference_steps=90, strength=1.0), scene(asked()))
    engine.add("b", params, scene(params))
    engine.step()

    assert engine.abort("a")

    assert (finished(drain(engine))["b"].pixels == finished(drain(alone))["b"].pixels).all()


def test_every_class_with_an_adapter_is_stepped() -> None:
    assert frozenset(FAMILIES) == STEPPED


def code_of_its_own(folder: Path) -> object:
    return make_whole(folder, unet=["my_unet", "MyUNet"])


def pickled(folder: Path) -> object:
    weights = make_whole(folder) / "unet" / "diffusion_pytorch_model.safetensors"
    return weights.rename(weights.with_suffix(".bin"))


def without_text_encoder(folder: Path) -> object:
    weights = make_whole(folder) / "text_encoder" / "model.safetensors"
    return weights.rename(weights.with_suffix(".away"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: make_whole(folder, "NoSuchPipeline"), "pipeline NoSuchPipeline is not served here"),
        (lambda folder: make_whole(folder, "StableDiffusionControlNetPipeline"), "needs a control picture too"),
        (code_of_its_own, "unet is my_unet.MyUNet; only what diffusers"),
        (pickled, "a pickle, which can run code"),
        (without_text_encoder, r"text_encoder/model.safetensors is missing"),
    ],
)
def test_folder_that_can_not_be_served_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "model")

    with pytest.raises(BackendUnusable, match=said):
        opened(tmp_path / "model")


def half(folder: Path) -> Path:
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    return folder


def with_safety_checker(folder: Path) -> Path:
    """As diffusers itself writes it, and as hubs leave its weights out."""
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("change", [half, with_safety_checker])
def test_folder_as_it_is_found_in_the_world_is_served(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    engine, params = opened(change(make_whole(tmp_path / "model"))), asked()
    engine.add("one", params, scene(params))

    assert "one" in finished(drain(engine))


def test_options_that_such_a_pipeline_can_not_have_are_refused(tmp_path: Path) -> None:
    folder = make_whole(tmp_path / "model")
    rules = ModelRules.model_validate(default_rules(folder))

    with pytest.raises(BackendUnusable, match="loras can't be added"):
        opened(folder, Options(device="cpu", loras=(Lora(tmp_path / "x.safetensors"),)))
    with pytest.raises(BackendUnusable, match="samplers must be"):
        load_whole("diffusers", folder, rules.model_copy(update={"samplers": (Sampler.DDIM,)}), CPU)


def test_memory_is_spared_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = make_whole(tmp_path / "model")
    engine, params = opened(folder, Options(device="cpu", attention_slicing=True, vae_tiling=True)), asked()
    engine.add("one", params, scene(params))

    assert "one" in finished(drain(engine))


def test_what_decides_how_much_fits_is_what_the_kept_measure_is_found_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(opening, "fits", lambda backend, shapes, batch, folder, identity: seen.append(tuple(identity)))
    first, second = (make_model("sd", tmp_path / name) for name in ("first", "second"))
    rules = ModelRules.model_validate(default_rules(first))
    for folder, options in ((first, CPU), (second, CPU), (first, Options(device="cpu", vae_tiling=True))):
        open_engine("diffusers", folder, rules, options, 4, tmp_path / "caps")
    weights = first / "unet" / "diffusion_pytorch_model.safetensors"
    os.utime(weights, (1, 2_000_000_000))
    open_engine("diffusers", first, rules, CPU, 4, tmp_path / "caps")

    assert len(set(seen)) == 4
    assert f"torch {metadata.version('torch')}" in seen[0]
