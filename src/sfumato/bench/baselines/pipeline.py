"""diffusers' own img2img pipeline, used as well as it allows: whole groups of equals in one call."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers

from sfumato.bench.play import Job
from sfumato.core.params import Sampler

__all__ = ["Pipeline", "silence"]

SCHEDULERS: Final = {
    Sampler.EULER: diffusers.EulerDiscreteScheduler,
    Sampler.EULER_ANCESTRAL: diffusers.EulerAncestralDiscreteScheduler,
    Sampler.DDIM: diffusers.DDIMScheduler,
    Sampler.DPMPP_2M: diffusers.DPMSolverMultistepScheduler,
    Sampler.LCM: diffusers.LCMScheduler,
    Sampler.FLOW_MATCH_EULER: diffusers.FlowMatchEulerDiscreteScheduler,
}
"""What walks as our sampler does, so that both call the network equally often."""
NETWORKS: Final = ("unet", "transformer")


class Pipeline:
    """The folder's img2img pipeline on `device` in `dtype` (torch's name), with the scheduler of this sampler.

    It has what a careful user would give it: half precision and channels last on CUDA, torch's fused attention
    (diffusers' default), no checker of pictures, no watermark, no progress bars.
    """

    def __init__(self, folder: Path, device: str, dtype: str, sampler: Sampler) -> None:
        silence()
        self._pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            variant=_variant(folder),
            use_safetensors=True,
            local_files_only=True,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._pipeline.scheduler = SCHEDULERS[sampler].from_config(self._pipeline.scheduler.config)
        for extra in ("safety_checker", "watermark"):
            if getattr(self._pipeline, extra, None) is not None:
                setattr(self._pipeline, extra, None)
        if torch.device(device).type == "cuda":
            for part in (self.network, self._pipeline.vae):
                part.to(memory_format=torch.channels_last)
        self._takes_size = "height" in inspect.signature(self._pipeline.__call__).parameters

    @property
    def network(self) -> Any:
        """The U-Net or the transformer, which is called at every step."""
        return next(found for name in NETWORKS if (found := getattr(self._pipeline, name, None)) is not None)

    def make(self, jobs: Sequence[Job]) -> Any:
        """The pictures [jobs, height, width, 3], 0 to 1, of jobs with equal shape, steps and strength.

        Each has its own prompt and its own generator, as in the engine. Pictures go in as numbers, [jobs, 3, height,
        width] from 0 to 1, and come out so: no time goes into other forms of a picture.
        """
        first = jobs[0].params
        sizes = {"width": first.width, "height": first.height} if self._takes_size else {}
        pixels = torch.stack([torch.from_numpy(job.pixels) for job in jobs])
        return self._pipeline(
            **sizes,
            prompt=[job.params.prompt for job in jobs],
            image=pixels.permute(0, 3, 1, 2).float() / 255,
            strength=first.strength,
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(job.params.seed) for job in jobs],
            output_type="np",
            return_dict=False,
        )[0]


def silence() -> None:
    """No bars and no hints of the libraries between those of the benchmark."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _variant(folder: Path) -> str | None:
    """None for plain weights, "fp16" where the network has only those."""
    names = [file.name for part in NETWORKS for file in (folder / part).glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None
