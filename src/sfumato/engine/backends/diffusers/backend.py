"""The torch backend: a diffusers folder's family behind the engine's port."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers

from sfumato.engine.backends import About, BackendUnusable, Pictures, Pixels, Prompt
from sfumato.engine.backends.diffusers.arrays import TorchArrays
from sfumato.engine.backends.diffusers.family import Adapter
from sfumato.engine.backends.diffusers.flux import Flux
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.stable_diffusion import StableDiffusion
from sfumato.engine.backends.diffusers.stable_diffusion_3 import StableDiffusion3
from sfumato.engine.backends.diffusers.stable_diffusion_xl import StableDiffusionXL
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["DiffusersBackend"]

FAMILIES: Final[Mapping[str, Adapter]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionImg2ImgPipeline": StableDiffusion,
    "LatentConsistencyModelPipeline": StableDiffusion,
    "LatentConsistencyModelImg2ImgPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "StableDiffusion3Img2ImgPipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "FluxImg2ImgPipeline": Flux,
}
"""Pipeline class of model_index.json → adapter."""


class DiffusersBackend:
    """The model in `path`, on `threads` CPU threads (0: all cores) where it runs on the CPU.

    `device` is auto, cpu or cuda; `dtype` is auto, float32, float16 or bfloat16.

    Raises:
        BackendUnusable: the folder is no model of a known family, or not whole; the message names the file.
    """

    def __init__(self, path: Path, threads: int, device: str = "auto", dtype: str = "auto") -> None:
        folder = Folder(path)
        adapter = FAMILIES.get(folder.pipeline)
        if adapter is None:
            raise BackendUnusable(
                f"{path / 'model_index.json'}: pipeline {folder.pipeline} is not served here; "
                f"these are: {', '.join(FAMILIES)}."
            )
        schedule = NoiseSchedule.from_config(folder.settings("scheduler/scheduler_config.json"))
        transformers.utils.logging.disable_progress_bar()
        if threads:
            torch.set_num_threads(threads)
        self._place = Place.choose(device, dtype, adapter.on_cuda)
        self._family = adapter(folder, self._place)
        self._vae = self._family.vae
        self.arrays = TorchArrays(self._place)
        self.about = About(
            family=self._family.name,
            dtype=str(self._place.dtype).removeprefix("torch."),
            device=str(self._place.device),
            latent_channels=self._vae.channels,
            vae_factor=self._vae.factor,
            schedule=self._family.schedule(schedule),
            embeds_guidance=self._family.embeds_guidance,
            patch=self._family.patch,
        )

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """Prompts longer than the text encoder's window are cut."""
        with self.arrays.computing():
            return self._family.encode_prompts(prompts)

    def encode_images(self, pixels: Pixels, generators: Sequence[torch.Generator]) -> torch.Tensor:
        with self.arrays.computing():
            return self._vae.encode(pixels, generators)

    def predict(
        self,
        x: torch.Tensor,
        t: npt.NDArray[np.float32],
        embeddings: Sequence[Any],
        guidance: npt.NDArray[np.float32],
    ) -> torch.Tensor:
        with self.arrays.computing():
            taken = x.to(self._place.dtype, memory_format=self._place.memory_format)
            return self._family.predict(taken, self._place.send(t), embeddings, self._place.send(guidance)).float()

    def decode(self, x: torch.Tensor) -> Pictures:
        with self.arrays.computing():
            return self._vae.decode(x)
