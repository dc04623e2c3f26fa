"""Which rules a diffusers folder gets from its own configuration files."""

import json
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.params import Sampler, Shape
from sfumato.models.registry import Model, Registry


def model(
    folder: Path,
    *,
    pipeline: str = "StableDiffusionPipeline",
    scheduler: dict[str, str] | None = None,
    card: object = None,
    transformer: dict[str, Any] | None = None,
    **unet: Any,
) -> Model:
    """A folder with configuration alone, listed in a models.toml."""
    files = {
        "model_index.json": {"_class_name": pipeline},
        "unet/config.json": {"sample_size": 64} | unet,
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler"} | (scheduler or {}),
    }
    more = {"sfumato.json": card, "transformer/config.json": transformer}
    for name, content in (files | {name: content for name, content in more.items() if content}).items():
        file = folder / "weights" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    toml = folder / "models.toml"
    toml.write_text("[models.ours]\nbackend = 'diffusers'\npath = 'weights'\ndtype = 'bfloat16'")
    return Registry.load(toml).get("ours")


def test_stable_diffusion_gets_buckets_of_its_training_size(tmp_path: Path) -> None:
    ours = model(tmp_path)

    assert (ours.backend, ours.device, ours.dtype) == ("diffusers", "auto", "bfloat16")
    assert ours.rules.shapes == ((512, 512), (640, 448), (448, 640), (704, 384), (384, 704))
    assert (ours.rules.size_multiple, ours.rules.max_pixels) == (8, 2 * 512 * 512)
    assert (ours.rules.guidance_scale, ours.rules.sampler) == (7.5, Sampler.DPMPP_2M)


@pytest.mark.parametrize("sample_size", [8, 64, 96, 128])
def test_buckets_have_about_equal_area_and_come_wide_and_tall(tmp_path: Path, sample_size: int) -> None:
    shapes = model(tmp_path, sample_size=sample_size).rules.shapes

    assert len(set(shapes)) == 5
    assert all(0.94 < shape.pixels / (8 * sample_size) ** 2 < 1.1 for shape in shapes)
    assert {Shape(shape.height, shape.width) for shape in shapes} == set(shapes)


def test_xl_is_guided_less(tmp_path: Path) -> None:
    ours = model(tmp_path, pipeline="StableDiffusionXLPipeline", sample_size=128)

    assert ours.rules.guidance_scale == 5.0
    assert Shape(1216, 832) in ours.rules.shapes


def test_default_sampler_is_the_folders_own(tmp_path: Path) -> None:
    ours = model(tmp_path, scheduler={"_class_name": "EulerAncestralDiscreteScheduler"})

    assert (ours.rules.sampler, ours.rules.num_inference_steps) == (Sampler.EULER_ANCESTRAL, 30)


def test_turbo_takes_few_steps_and_no_guidance(tmp_path: Path) -> None:
    scheduler = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}

    rules = model(tmp_path, scheduler=scheduler).rules

    assert (rules.num_inference_steps, rules.guidance_scale, rules.sampler) == (4, 1.0, Sampler.EULER)


def test_velocity_model_with_trailing_steps_is_no_turbo(tmp_path: Path) -> None:
    scheduler = {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}

    assert model(tmp_path, scheduler=scheduler).rules.num_inference_steps == 30


@pytest.mark.parametrize(
    ("scheduler", "unet", "guidance"),
    [({"_class_name": "LCMScheduler"}, {}, 1.0), ({}, {"time_cond_proj_dim": 256}, 8.5)],
)
def test_consistency_model_takes_its_own_sampler_alone(
    tmp_path: Path, scheduler: dict[str, Any], unet: dict[str, Any], guidance: float
) -> None:
    rules = model(tmp_path, scheduler=scheduler, **unet).rules

    assert (rules.sampler, rules.samplers) == (Sampler.LCM, (Sampler.LCM,))
    assert (rules.num_inference_steps, rules.max_steps, rules.guidance_scale) == (8, 50, guidance)


@pytest.mark.parametrize(
    ("pipeline", "transformer", "steps", "guidance"),
    [
        ("StableDiffusion3Pipeline", {"sample_size": 128}, 28, 7.0),
        ("FluxPipeline", {"guidance_embeds": True}, 28, 3.5),
        ("FluxPipeline", {"guidance_embeds": False}, 4, 1.0),
    ],
)
def test_flow_transformer_takes_its_one_sampler(
    tmp_path: Path, pipeline: str, transformer: dict[str, Any], steps: int, guidance: float
) -> None:
    rules = model(tmp_path, pipeline=pipeline, transformer=transformer).rules

    assert (rules.sampler, rules.samplers) == (Sampler.FLOW_MATCH_EULER, (Sampler.FLOW_MATCH_EULER,))
    assert (rules.num_inference_steps, rules.guidance_scale, rules.size_multiple) == (steps, guidance, 16)
    assert Shape(1216, 832) in rules.shapes


def test_card_goes_on_top_of_what_the_configuration_says(tmp_path: Path) -> None:
    rules = model(tmp_path, card={"rules": {"strength": 0.4}}).rules

    assert (rules.strength, rules.guidance_scale, len(rules.shapes)) == (0.4, 7.5, 5)
