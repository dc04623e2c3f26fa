"""Flux.1 dev and schnell (Black Forest Labs 2024): a flow transformer over patches of 2 × 2 latent cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch

from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.diffusers.clip import Clip
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.t5 import T5
from sfumato.engine.backends.diffusers.vae import Vae
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["Flux"]

WINDOW: Final = 512
"""Tokens of T5; diffusers' default."""
PATCH: Final = 2


@dataclass(frozen=True, slots=True)
class _Embedding:
    """T5's tokens, [tokens, width]; CLIP's whole prompt, [width]."""

    text: torch.Tensor
    pooled: torch.Tensor


class Flux:
    """dev takes guidance as an input, schnell none at all: neither is led by a second row."""

    name: Final = "flux"
    patch: Final = PATCH
    on_cuda: ClassVar[torch.dtype] = torch.bfloat16
    embeds_guidance: Final = True

    def __init__(self, folder: Folder, place: Place) -> None:
        self._device = place.device
        self.vae = Vae(folder, place, heeds_upcast=False)
        self._clip = Clip(folder, place, "CLIPTextModel")
        self._t5 = T5(folder, place, "_2", WINDOW)
        self._transformer = folder.module("transformer", "diffusers", "FluxTransformer2DModel", place)
        self._network = place.fast(self._transformer, shared=("txt_ids", "img_ids"))
        self._check(folder)

    def schedule(self, written: NoiseSchedule) -> NoiseSchedule:
        return replace(written, prediction_type="flow_prediction", even_sigmas=True)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[_Embedding]:
        pooled = self._clip(prompts).pooler_output
        return [_Embedding(*row) for row in zip(self._t5(prompts), pooled, strict=True)]

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, embeddings: Sequence[_Embedding], guidance: torch.Tensor
    ) -> torch.Tensor:
        height, width = (side // PATCH for side in x.shape[-2:])
        found = self._network(
            hidden_states=_packed(x),
            timestep=t / 1000,
            guidance=guidance if self._transformer.config.guidance_embeds else None,
            pooled_projections=torch.stack([embedding.pooled for embedding in embeddings]),
            encoder_hidden_states=torch.stack([embedding.text for embedding in embeddings]),
            txt_ids=torch.zeros(WINDOW, 3, device=self._device),
            img_ids=self._places(height, width),
            return_dict=False,
        )[0]
        return _unpacked(found, height, width)

    def _places(self, height: int, width: int) -> torch.Tensor:
        """Each token's row and column, [height * width, 3]; the first number is for models of several pictures."""
        rows, columns = (torch.arange(count, device=self._device) for count in (height, width))
        grid = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([torch.zeros_like(grid[0]), *grid], dim=-1).reshape(-1, 3).float()

    def _check(self, folder: Folder) -> None:
        config = self._transformer.config
        given = (self.vae.channels * PATCH**2, self._clip.config.hidden_size, self._t5.width)
        wanted = (config.in_channels, config.pooled_projection_dim, config.joint_attention_dim)
        if given != wanted:
            raise BackendUnusable(
                f"{folder.path}/transformer takes {wanted} (patch channels, pooled prompt, token width), the vae and "
                f"the text encoders give {given}; they are of different models."
            )


def _packed(x: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w] as tokens [n, h/2 * w/2, 4c]."""
    n, channels, height, width = x.shape
    patches = x.reshape(n, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, -1, channels * PATCH**2)


def _unpacked(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The reverse, `height` and `width` being counted in tokens."""
    n, _, channels = tokens.shape
    patches = tokens.reshape(n, height, width, channels // PATCH**2, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, -1, height * PATCH, width * PATCH)
