"""Stable Diffusion XL, base and refiner (Podell et al. 2023, arXiv 2307.01952)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch

from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.diffusers.clip import Clip
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.unet import Unet
from sfumato.engine.backends.diffusers.vae import Vae
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["StableDiffusionXL"]

AESTHETIC_SCORE: Final = 6.0
NEGATIVE_AESTHETIC_SCORE: Final = 2.5
"""What the refiner is told of a picture to come and of one to avoid; diffusers' defaults."""


@dataclass(frozen=True, slots=True)
class _Embedding:
    """Both encoders' layer before the last side by side, [tokens, width]; the second one's whole prompt, [width]."""

    text: torch.Tensor
    pooled: torch.Tensor
    score: float


class StableDiffusionXL:
    """A picture counts as uncropped and of the size it is made in."""

    name: Final = "stable-diffusion-xl"
    patch: Final = 1
    on_cuda: ClassVar[torch.dtype] = torch.float16

    def __init__(self, folder: Folder, place: Place) -> None:
        self._place = place
        self.vae = Vae(folder, place, heeds_upcast=True)
        self._last = Clip(folder, place, "CLIPTextModelWithProjection", "_2")
        # A refiner has the second encoder alone.
        first = [Clip(folder, place, "CLIPTextModel")] if folder.has("text_encoder") else []
        self._encoders = [*first, self._last]
        self._unet = Unet(folder, place, self.vae, sum(clip.config.hidden_size for clip in self._encoders))
        self.embeds_guidance = self._unet.embeds_guidance
        self._zeroes_empty = folder.index.get("force_zeros_for_empty_prompt", True)
        self._scored = folder.index.get("requires_aesthetics_score", False)
        self._check_added_width(folder)

    def schedule(self, written: NoiseSchedule) -> NoiseSchedule:
        return written

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[_Embedding]:
        outputs = [clip(prompts, hidden_states=True) for clip in self._encoders]
        texts = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = outputs[-1].text_embeds
        return [self._embedding(*row) for row in zip(prompts, texts, pooled, strict=True)]

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, embeddings: Sequence[_Embedding], guidance: torch.Tensor
    ) -> torch.Tensor:
        text = torch.stack([embedding.text for embedding in embeddings])
        added = {
            "text_embeds": torch.stack([embedding.pooled for embedding in embeddings]),
            "time_ids": self._time_ids(x, embeddings),
        }
        return self._unet(x, t, text, guidance, added_cond_kwargs=added)

    def _embedding(self, prompt: Prompt, text: torch.Tensor, pooled: torch.Tensor) -> _Embedding:
        score = NEGATIVE_AESTHETIC_SCORE if prompt.negative else AESTHETIC_SCORE
        if prompt == Prompt("", negative=True) and self._zeroes_empty:
            return _Embedding(torch.zeros_like(text), torch.zeros_like(pooled), score)
        return _Embedding(text, pooled, score)

    def _time_ids(self, x: torch.Tensor, embeddings: Sequence[_Embedding]) -> torch.Tensor:
        """Original size, crop, then target size or aesthetic score, [n, 6 or 5]."""
        size = (x.shape[-2] * self.vae.factor, x.shape[-1] * self.vae.factor)
        ends = [(embedding.score,) if self._scored else size for embedding in embeddings]
        return self._place.send([(*size, 0, 0, *end) for end in ends])

    def _check_added_width(self, folder: Folder) -> None:
        ids = 5 if self._scored else 6
        given = self._last.config.projection_dim + ids * (self._unet.config.addition_time_embed_dim or 0)
        if given != self._unet.added_width():
            raise BackendUnusable(
                f"{folder.path}/unet takes {self._unet.added_width()} added numbers, pooled prompt and {ids} time ids "
                f"give {given}; mend requires_aesthetics_score in model_index.json, or text_encoder_2."
            )
