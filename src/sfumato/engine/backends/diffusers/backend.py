"""The torch backend: a diffusers folder's family behind the engine's port."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers

from sfumato.engine.backends import About, BackendUnusable, Options, Pictures, Pixels, Prompt, RunsWhole
from sfumato.engine.backends.diffusers.arrays import TorchArrays
from sfumato.engine.backends.diffusers.family import Adapter
from sfumato.engine.backends.diffusers.flux import Flux
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.loras import fuse
from sfumato.engine.backends.diffusers.place import Pace, Place
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
    """The model in `path`. `device` is auto, cpu or cuda; `dtype` is auto, float32, float16 or bfloat16.

    Raises:
        RunsWhole: the folder's family has no adapter here.
        BackendUnusable: the folder is not whole, or an option is not for it; the message names the file.
    """

    def __init__(self, path: Path, options: Options) -> None:
        folder = Folder(path)
        adapter = FAMILIES.get(folder.pipeline)
        if adapter is None:
            raise RunsWhole(
                f"{path / 'model_index.json'}: pipeline {folder.pipeline} can't be stepped here; "
                f"these can: {', '.join(FAMILIES)}."
            )
        schedule = NoiseSchedule.from_config(folder.settings("scheduler/scheduler_config.json"))
        transformers.utils.logging.disable_progress_bar()
        if options.threads:
            torch.set_num_threads(options.threads)
        self._place = Place.choose(options, adapter.on_cuda)
        self._pace = Pace(self._place)
        self._family = adapter(folder, self._place)
        self._vae = self._family.vae
        fuse(folder, options.loras)
        _spare_memory(folder, options)
        self.arrays = TorchArrays(self._place)
        self.about = About(
            family=self._family.name,
            dtype=str(self._place.dtype).removeprefix("torch."),
            device=self._place.described,
            latent_channels=self._vae.channels,
            vae_factor=self._vae.factor,
            schedule=self._family.schedule(schedule),
            embeds_guidance=self._family.embeds_guidance,
            patch=self._family.patch,
            own_memory=self._place.on_cuda,
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
            self._pace.wait()
            taken = x.to(self._place.dtype, memory_format=self._place.memory_format)
            found = self._family.predict(taken, self._place.send(t), embeddings, self._place.send(guidance)).float()
            self._pace.called()
            return found

    def decode(self, x: torch.Tensor) -> Pictures:
        with self.arrays.computing():
            return self._vae.decode(x)


def _spare_memory(folder: Folder, options: Options) -> None:
    network = folder.parts.get("unet") or folder.parts["transformer"]
    if options.attention_slicing:
        if not hasattr(network, "set_attention_slice"):
            raise BackendUnusable(
                f"attention_slicing is not for a {folder.pipeline}: its {type(network).__name__} can't slice; take it "
                "out of models.toml."
            )
        network.set_attention_slice("auto")
    if options.vae_tiling:
        folder.parts["vae"].enable_tiling()
