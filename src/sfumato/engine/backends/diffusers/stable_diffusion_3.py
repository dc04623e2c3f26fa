"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206)."""

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

__all__ = ["StableDiffusion3"]

WINDOW: Final = 256
"""Tokens of T5; diffusers' default."""


@dataclass(frozen=True, slots=True)
class _Embedding:
    """Tokens of CLIP, then of T5, [tokens, width]; both CLIPs' whole prompt, [width]."""

    text: torch.Tensor
    pooled: torch.Tensor


class StableDiffusion3:
    """T5 may be left out of a folder; its tokens are zeros then."""

    name: Final = "stable-diffusion-3"
    on_cuda: ClassVar[torch.dtype] = torch.bfloat16
    embeds_guidance: Final = False

    def __init__(self, folder: Folder, place: Place) -> None:
        self.vae = Vae(folder, place, heeds_upcast=False)
        self._clips = [Clip(folder, place, "CLIPTextModelWithProjection", suffix) for suffix in ("", "_2")]
        self._t5 = T5(folder, place, "_3", WINDOW) if folder.has("text_encoder_3") else None
        self._transformer = folder.module("transformer", "diffusers", "SD3Transformer2DModel", place)
        self._network = place.fast(self._transformer)
        self._config = self._transformer.config
        self.patch: int = self._config.patch_size
        self._check(folder)

    def schedule(self, written: NoiseSchedule) -> NoiseSchedule:
        return replace(written, prediction_type="flow_prediction")

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[_Embedding]:
        outputs = [clip(prompts, hidden_states=True) for clip in self._clips]
        short = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        wide = torch.nn.functional.pad(short, (0, self._config.joint_attention_dim - short.shape[-1]))
        long = wide.new_zeros(len(prompts), WINDOW, wide.shape[-1]) if self._t5 is None else self._t5(prompts)
        texts = torch.cat([wide, long], dim=1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return [_Embedding(*row) for row in zip(texts, pooled, strict=True)]

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, embeddings: Sequence[_Embedding], guidance: torch.Tensor
    ) -> torch.Tensor:
        found: torch.Tensor = self._network(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=torch.stack([embedding.text for embedding in embeddings]),
            pooled_projections=torch.stack([embedding.pooled for embedding in embeddings]),
            return_dict=False,
        )[0]
        return found

    def _check(self, folder: Folder) -> None:
        pooled = sum(clip.config.projection_dim for clip in self._clips)
        wide = self._config.joint_attention_dim if self._t5 is None else self._t5.width
        given = (self.vae.channels, pooled, wide)
        wanted = (self._config.in_channels, self._config.pooled_projection_dim, self._config.joint_attention_dim)
        if given != wanted:
            raise BackendUnusable(
                f"{folder.path}/transformer takes {wanted} (latent channels, pooled prompt, token width), the vae and "
                f"the text encoders give {given}; they are of different models."
            )
