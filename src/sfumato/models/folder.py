"""What a diffusers folder says of its model's size and making, as rules for the jobs it is asked (docs/models.md)."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sfumato.core.params import MAX_LCM_STEPS, Sampler

__all__ = ["STEPPED", "default_rules"]

ASPECTS: Final = (1.0, 10 / 7, 7 / 10, 11 / 6, 6 / 11)
"""Width to height: the square, about 3:2 and about 16:9, wide and tall."""
COARSE: Final = 64
"""Pixels that sides of 512 and more are multiples of, as in the buckets that these models were trained with."""
PATCH: Final = 2
"""Latent cells that a token of a flow transformer has on a side."""
SAMPLERS: Final = {
    "DDIMScheduler": Sampler.DDIM,
    "EulerAncestralDiscreteScheduler": Sampler.EULER_ANCESTRAL,
    "EulerDiscreteScheduler": Sampler.EULER,
    "LCMScheduler": Sampler.LCM,
}
"""Scheduler class → the same thing here; what is not listed gets the rules' own default."""


STEPPED: Final = frozenset(
    {
        "FluxImg2ImgPipeline",
        "FluxPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLPipeline",
    }
)
"""Pipeline classes with an adapter for step-level batching; any other runs request by request."""
USUAL_SIDE: Final = 512
WHOLE_MULTIPLE: Final = 16
"""Sides that every pipeline takes, whatever its latents and patches measure."""


def default_rules(folder: Path) -> dict[str, Any]:
    """Rules that fit the model in `folder`: shapes of its training size if it tells, and its family's usual settings.

    Raises:
        ValueError: a file is missing or broken; the message names it.
    """
    pipeline = str(_read(folder / "model_index.json").get("_class_name"))
    if pipeline not in STEPPED:
        return _rules_of_whole(folder)
    vae = _read(folder / "vae" / "config.json")
    factor = 2 ** (len(vae.get("block_out_channels", ())) - 1)
    if (folder / "transformer").is_dir():
        transformer = _read(folder / "transformer" / "config.json")
        # Flux takes tokens and tells no size; it was trained around the same one as SD3.
        side = factor * (transformer.get("sample_size") or 128)
        return _sizes(side, PATCH * factor) | _usual_of_flows(pipeline, transformer)
    unet = _read(folder / "unet" / "config.json")
    schedule = _read(folder / "scheduler" / "scheduler_config.json")
    guidance = {"guidance_scale": 5.0 if "XL" in pipeline else 7.5}
    return _sizes(factor * (unet.get("sample_size") or 0), factor) | guidance | _usual(schedule, unet)


def _rules_of_whole(folder: Path) -> dict[str, Any]:
    """Whatever is not told by its network's usual size is as for most models; the pipeline brings its own sampler."""
    networks = (folder / part / "config.json" for part in ("unet", "transformer"))
    vaes = (folder / part / "config.json" for part in ("vae", "movq"))
    network, vae = ({} if file is None else _read(file) for file in (_first(networks), _first(vaes)))
    factor = 2 ** max(0, len(vae.get("block_out_channels", ())) - 1)
    told = network.get("sample_size")
    side = factor * told if isinstance(told, int) and factor > 1 else USUAL_SIDE
    walked = {"sampler": Sampler.NATIVE, "samplers": (Sampler.NATIVE,)}
    return _sizes(max(WHOLE_MULTIPLE, side), WHOLE_MULTIPLE) | walked


def _first(files: Iterable[Path]) -> Path | None:
    return next((file for file in files if file.is_file()), None)


def _sizes(side: int, multiple: int) -> dict[str, Any]:
    told = {"shapes": _shapes(side, multiple), "max_pixels": 2 * side * side} if side else {}
    return {"size_multiple": multiple} | told


def _usual_of_flows(pipeline: str, transformer: Mapping[str, Any]) -> dict[str, Any]:
    walked = {"sampler": Sampler.FLOW_MATCH_EULER, "samplers": (Sampler.FLOW_MATCH_EULER,)}
    if "Flux" not in pipeline:
        return walked | {"num_inference_steps": 28, "guidance_scale": 7.0}
    if transformer.get("guidance_embeds"):
        return walked | {"num_inference_steps": 28, "guidance_scale": 3.5}
    return walked | {"num_inference_steps": 4, "guidance_scale": 1.0}


def _usual(schedule: Mapping[str, Any], unet: Mapping[str, Any]) -> dict[str, Any]:
    """Few steps for a model that was distilled to need no more; the scheduler's own sampler for any other."""
    embeds_guidance = unet.get("time_cond_proj_dim") is not None
    sampler = SAMPLERS.get(str(schedule.get("_class_name")))
    if embeds_guidance or sampler is Sampler.LCM:
        guidance = {"guidance_scale": 8.5 if embeds_guidance else 1.0}
        steps = {"num_inference_steps": 8, "max_steps": MAX_LCM_STEPS}
        return {"sampler": Sampler.LCM, "samplers": (Sampler.LCM,)} | steps | guidance
    chosen = {} if sampler is None else {"sampler": sampler}
    # Adversarially distilled ones (turbo) are the ones that predict noise and space their steps from the end.
    trailing = schedule.get("timestep_spacing") == "trailing"
    if trailing and schedule.get("prediction_type", "epsilon") == "epsilon":
        return chosen | {"num_inference_steps": 4, "guidance_scale": 1.0}
    return chosen


def _shapes(side: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """Sizes of about side² pixels, one for each aspect."""
    multiple = max(COARSE if side >= 512 else 1, multiple)
    return tuple(
        (multiple * round(side * aspect**0.5 / multiple), multiple * round(side / aspect**0.5 / multiple))
        for aspect in ASPECTS
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must be an object")
    return found
