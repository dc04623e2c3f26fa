"""What the adapters of both U-Net families ask of the network."""

from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding

from sfumato.engine.backends import BackendUnusable
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.vae import Vae

__all__ = ["Unet"]


class Unet:
    """The `unet` of a folder. One distilled with guidance as an input (LCM) `embeds_guidance`."""

    def __init__(self, folder: Folder, place: Place, vae: Vae, text_width: int) -> None:
        self._module = folder.module("unet", "diffusers", "UNet2DConditionModel", place)
        self._network = place.fast(self._module)
        self._place, self.config = place, self._module.config
        self._guidance_width: int | None = self.config.time_cond_proj_dim
        where = folder.path / "unet" / "config.json"
        if self.config.in_channels != vae.channels:
            raise BackendUnusable(
                f"{where}: in_channels is {self.config.in_channels}, the vae makes {vae.channels}; "
                "inpainting and upscaling models are not served."
            )
        if self.config.cross_attention_dim != text_width:
            raise BackendUnusable(
                f"{where}: cross_attention_dim is {self.config.cross_attention_dim}, the text encoder gives "
                f"{text_width}; they are of different models."
            )

    @property
    def embeds_guidance(self) -> bool:
        return self._guidance_width is not None

    def added_width(self) -> int:
        """How many numbers the pooled prompt and the embedded time ids have together; 0: it takes none."""
        kind = self.config.addition_embed_type
        if kind not in (None, "text", "text_time"):
            raise BackendUnusable(f"addition_embed_type is {kind!r}: this UNet takes more than a prompt gives.")
        # Of kind "text" it adds something made from the prompt's embeddings by itself.
        return int(self._module.add_embedding.linear_1.in_features) if kind == "text_time" else 0

    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, guidance: torch.Tensor, **added: Any
    ) -> torch.Tensor:
        """Noise (or velocity) [n, c, h, w] for prompts [n, tokens, width]."""
        condition = None
        if self._guidance_width is not None:
            # Meng et al. 2023 (arXiv 2210.03142), w = guidance_scale - 1
            embedded = get_timestep_embedding((guidance - 1) * 1000, self._guidance_width, downscale_freq_shift=1)
            condition = embedded.to(self._place.dtype)
        found: torch.Tensor = self._network(
            x, t, encoder_hidden_states=text, timestep_cond=condition, return_dict=False, **added
        )[0]
        return found
