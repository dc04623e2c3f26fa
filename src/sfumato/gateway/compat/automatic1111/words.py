"""AUTOMATIC1111's words: what its names mean here, what it is told where we have nothing, the text about pictures."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from sfumato.core.job import Job, Picture
from sfumato.core.params import ModelRules, Sampler
from sfumato.core.version import VERSION

__all__ = [
    "NAMES",
    "NOTHING",
    "PROTOCOL",
    "ROOT",
    "SAMPLERS",
    "described",
    "model_name",
    "sampler_names",
    "timestamp",
]

PROTOCOL: Final = "automatic1111"
ROOT: Final = "/sdapi/v1"
NAMES: Final = MappingProxyType(
    {
        "model_name": "sd_model_checkpoint",
        "strength": "denoising_strength",
        "num_inference_steps": "steps",
        "guidance_scale": "cfg_scale",
        "sampler": "sampler_name",
        "output_format": "samples_format",
        **{f"image {verb}": f"init_images {verb}" for verb in ("is", "has", "ends", "can't")},
    }
)
"""The gateway's word for a parameter → AUTOMATIC1111's."""
SAMPLERS: Final[Mapping[Sampler, str]] = MappingProxyType(
    {
        Sampler.DPMPP_2M: "DPM++ 2M",
        Sampler.EULER_ANCESTRAL: "Euler a",
        Sampler.EULER: "Euler",
        Sampler.FLOW_MATCH_EULER: "Euler",
        Sampler.DDIM: "DDIM",
        Sampler.LCM: "LCM",
        Sampler.NATIVE: "Automatic",
    }
)
LONGEST_TITLE_CHARS: Final = 1000
"""Of a checkpoint; looking for a hash behind a million blanks would take an hour."""
_SCHEDULERS: Final = (
    {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1, "need_inner_model": False},
)
_NO_FIGURES: Final = {"error": "This service tells no figures of its machines here."}
NOTHING: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "schedulers": _SCHEDULERS,
        "scripts": {"txt2img": [], "img2img": []},
        "script-info": [],
        "extensions": [],
        "upscalers": [],
        "latent-upscale-modes": [],
        "sd-vae": [],
        "loras": [],
        "hypernetworks": [],
        "embeddings": {"loaded": {}, "skipped": {}},
        "face-restorers": [],
        "realesrgan-models": [],
        "prompt-styles": [],
        "cmd-flags": {"api": True},
        "memory": {"ram": _NO_FIGURES, "cuda": _NO_FIGURES},
    }
)
"""What clients ask for at their start, and the answer that is always true here."""


def sampler_names(rules: Iterable[ModelRules]) -> Sequence[str]:
    """The names of the samplers that these models have, each once."""
    had = {sampler for each in rules for sampler in each.samplers}
    return list(dict.fromkeys(name for sampler, name in SAMPLERS.items() if sampler in had))


def model_name(spelled: str, known: Iterable[str]) -> str:
    """The model that is meant by a checkpoint's title: `name`, `name [hash]`, `name.safetensors [hash]`."""
    if len(spelled) > LONGEST_TITLE_CHARS:
        return spelled
    bare = re.sub(r"\s*\[[0-9a-fA-F]+\]$", "", spelled)
    shorter = (spelled, bare, re.sub(r"\.(safetensors|ckpt)$", "", bare))
    names = set(known)
    return next((name for name in shorter if name in names), spelled)


def described(made: Sequence[tuple[Job, Picture]], batch_size: int) -> dict[str, Any]:
    """What AUTOMATIC1111 tells as `info`, of at least one picture: how each was made."""
    first, picture = made[0]
    params, several = first.params, [job.params for job, _ in made]
    return {
        "prompt": params.prompt,
        "all_prompts": [each.prompt for each in several],
        "negative_prompt": params.negative_prompt,
        "all_negative_prompts": [each.negative_prompt for each in several],
        "seed": params.seed,
        "all_seeds": [each.seed for each in several],
        "subseed": -1,
        "all_subseeds": [-1 for _ in several],
        "subseed_strength": 0,
        "width": picture.width,
        "height": picture.height,
        "sampler_name": SAMPLERS[params.sampler],
        "cfg_scale": params.guidance_scale,
        "steps": params.num_inference_steps,
        "batch_size": batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": params.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [_infotext(job, picture) for job, picture in made],
        "styles": [],
        "job_timestamp": timestamp(first.created_at),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"sfumato {VERSION}",
    }


def _infotext(job: Job, picture: Picture) -> str:
    params = job.params
    about = {
        "Steps": params.num_inference_steps,
        "Sampler": SAMPLERS[params.sampler],
        "Schedule type": "Automatic",
        "CFG scale": params.guidance_scale,
        "Seed": params.seed,
        "Size": f"{picture.width}x{picture.height}",
        "Model": json.dumps(job.model, ensure_ascii=False) if re.search("[,:\n]", job.model) else job.model,
        "Denoising strength": params.strength,
    }
    negative = [f"Negative prompt: {params.negative_prompt}"] if params.negative_prompt else []
    return "\n".join([params.prompt, *negative, ", ".join(f"{name}: {value}" for name, value in about.items())])


def timestamp(at: float) -> str:
    """Unix seconds as AUTOMATIC1111 writes a time, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S")
