"""Any other img2img pipeline of diffusers, run as it is: request by request, with progress and abort between steps."""

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

from sfumato.core.params import Params
from sfumato.engine.backends import BackendUnusable, Options
from sfumato.engine.backends.diffusers.folder import Folder, check_finite
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.trouble import in_words_of_the_port

__all__ = ["DiffusersPipeline"]

log = logging.getLogger(__name__)

NOT_RUN: Final = ("safety_checker", "watermark")


class DiffusersPipeline:
    """The pipeline that AutoPipelineForImage2Image finds for `path`; its own scheduler decides how it walks.

    Raises:
        BackendUnusable: there is none for the folder's class, it needs more than a picture and a prompt, the folder
            is not whole or has code of its own, or an option is not for it.
    """

    def __init__(self, path: Path, options: Options) -> None:
        folder = Folder(path)
        kind = _class_for(folder, options)
        left_out = dict.fromkeys((part for part in NOT_RUN if part in kind._optional_components), None)
        variants = {_variant(folder, part) for part in folder.index if part not in left_out}
        transformers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.disable_progress_bar()
        if options.threads:
            torch.set_num_threads(options.threads)
        self._place = Place.choose(options, torch.bfloat16)
        try:
            found = diffusers.AutoPipelineForImage2Image.from_pretrained(
                path,
                use_safetensors=True,
                local_files_only=True,
                dtype=self._place.dtype,
                variant="fp16" if "fp16" in variants else None,
                **left_out,
            )
            self._pipeline: Any = found.to(self._place.device)
        except Exception as error:  # the libraries name no errors; whatever it is, the folder is not what they read
            raise BackendUnusable(f"{path} can't be loaded as a {folder.pipeline}: {error}") from error
        for name, part in self._pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                check_finite(part, path / name)
        self._pipeline.set_progress_bar_config(disable=True)
        self._takes = frozenset(inspect.signature(type(self._pipeline).__call__).parameters)
        if options.attention_slicing:
            self._pipeline.enable_attention_slicing()
        if options.vae_tiling:
            _tile(self._pipeline, folder)
        log.info("%s runs request by request: it has no adapter for step-level batching", folder.pipeline)

    def generate(
        self, params: Params, pixels: npt.NDArray[np.uint8], told: Callable[[int, int], None]
    ) -> npt.NDArray[np.float32]:
        """What the pipeline does not take (some have no strength, some no negative_prompt) is left out."""
        wished = {
            "prompt": params.prompt,
            "negative_prompt": params.negative_prompt or None,
            "image": Image.fromarray(pixels),
            "strength": params.strength,
            "num_inference_steps": params.num_inference_steps,
            "guidance_scale": params.guidance_scale,
            "width": params.width,
            "height": params.height,
            "generator": torch.Generator("cpu").manual_seed(params.seed),
            "output_type": "np",
            "callback_on_step_end": self._teller(told),
        }
        with in_words_of_the_port(), torch.inference_mode():
            found = self._pipeline(**{name: value for name, value in wished.items() if name in self._takes})
        return np.asarray(found.images[0], np.float32)

    def _teller(self, told: Callable[[int, int], None]) -> Callable[..., dict[str, Any]]:
        def tell(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            told(step + 1, int(getattr(pipeline, "num_timesteps", 0) or step + 1))
            return values

        return tell


def _class_for(folder: Folder, options: Options) -> Any:
    """The img2img pipeline for the folder's class. Raises BackendUnusable when there is none that can be served."""
    where = folder.path / "model_index.json"
    known = diffusers.pipelines.auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    try:
        found = diffusers.pipelines.auto_pipeline._get_task_class(known, folder.pipeline)
    except ValueError:
        names = sorted({each.__name__ for each in known.values() if "Control" not in each.__name__})
        raise BackendUnusable(
            f"{where}: pipeline {folder.pipeline} is not served here: diffusers has no img2img pipeline for it. "
            f"These are: {', '.join(names)}."
        ) from None
    if "Control" in folder.pipeline:
        raise BackendUnusable(f"{where}: a {folder.pipeline} needs a control picture too; such models are not served.")
    if options.loras:
        raise BackendUnusable(f"{where}: loras can't be added to a {folder.pipeline}; fuse them before, and save it.")
    return found


def _variant(folder: Folder, part: str) -> str | None:
    """Which of the part's weights there are; None also for what is no part, or has none.

    Raises:
        BackendUnusable: its weights are not there as safetensors, or its class is none of the two libraries'.
    """
    library, name = folder.class_of(part)
    if library is None or name is None:
        return None
    # As diffusers resolves it: a library, or one of its own folders of pipelines.
    owner = {"diffusers": diffusers, "transformers": transformers}.get(library) or getattr(
        diffusers.pipelines, library, None
    )
    kind = getattr(owner, name, None)
    if kind is None:
        raise BackendUnusable(
            f"{folder.path / 'model_index.json'}: {part} is {library}.{name}; only what diffusers and transformers "
            "bring themselves is run."
        )
    if issubclass(kind, diffusers.ModelMixin):
        return folder.variant(part, "diffusion_pytorch_model")
    return folder.variant(part, "model") if issubclass(kind, transformers.PreTrainedModel) else None


def _tile(pipeline: Any, folder: Folder) -> None:
    vae = getattr(pipeline, "vae", None)
    if vae is None or not hasattr(vae, "enable_tiling"):
        raise BackendUnusable(f"vae_tiling is not for a {folder.pipeline}; take it out of models.toml.")
    vae.enable_tiling()
