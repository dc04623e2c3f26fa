"""Stable Diffusion 1.x and 2.x and what was distilled from them (Rombach et al. 2022, arXiv 2112.10752)."""

from collections.abc import Sequence
from typing import ClassVar, Final

import torch

from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.diffusers.clip import Clip
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.unet import Unet
from sfumato.engine.backends.diffusers.vae import Vae
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["StableDiffusion"]


class StableDiffusion:
    """An embedding is the text encoder's last layer, [tokens, width]."""

    name: Final = "stable-diffusion"
    patch: Final = 1
    on_cuda: ClassVar[torch.dtype] = torch.float16

    def __init__(self, folder: Folder, place: Place) -> None:
        self.vae = Vae(folder, place, heeds_upcast=False)
        self._text = Clip(folder, place, "CLIPTextModel")
        self._unet = Unet(folder, place, self.vae, self._text.config.hidden_size)
        if self._unet.added_width():
            raise BackendUnusable(f"{folder.path}/unet takes more than a prompt; it is no {folder.pipeline}'s.")
        self.embeds_guidance = self._unet.embeds_guidance

    def schedule(self, written: NoiseSchedule) -> NoiseSchedule:
        return written

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[torch.Tensor]:
        return list(self._text(prompts)[0])

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, embeddings: Sequence[torch.Tensor], guidance: torch.Tensor
    ) -> torch.Tensor:
        return self._unet(x, t, torch.stack(list(embeddings)), guidance)
