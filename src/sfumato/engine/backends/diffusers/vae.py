"""The picture's way into latents and back; every family here has an AutoencoderKL."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sfumato.engine.backends import Pictures, Pixels
from sfumato.engine.backends.diffusers.arrays import TorchArrays
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place

__all__ = ["Vae"]


class Vae:
    """With `heeds_upcast` it runs in float32 where its config says that float16 overflows, as diffusers does for XL."""

    def __init__(self, folder: Folder, place: Place, *, heeds_upcast: bool) -> None:
        config = folder.settings("vae/config.json")
        upcast = heeds_upcast and place.dtype == torch.float16 and config.get("force_upcast", True)
        self._place = replace(place, dtype=torch.float32) if upcast else place
        self._arrays = TorchArrays(self._place)
        self._module = folder.module("vae", "diffusers", "AutoencoderKL", self._place)
        self.config = self._module.config
        self.channels: int = self.config.latent_channels
        self.factor: int = 2 ** (len(self.config.block_out_channels) - 1)
        self._scale = self.config.scaling_factor / self._by_channel(self.config.latents_std, 1.0)
        self._shift = self._by_channel(self.config.latents_mean, self.config.shift_factor or 0.0)

    def encode(self, pixels: Pixels, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """[n, channels, h, w] as the network takes them; row i is the first draw of generator i."""
        pictures = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._place.device).permute(0, 3, 1, 2)
        found = self._module.encode(self._taken(pictures.float() / 127.5 - 1)).latent_dist
        mean, deviation = found.mean.float(), found.std.float()
        draws = self._arrays.stack([self._arrays.normal(generator, *mean.shape[1:]) for generator in generators])
        return (mean + deviation * draws - self._shift) * self._scale

    def decode(self, x: torch.Tensor) -> Pictures:
        found = self._module.decode(self._taken(x / self._scale + self._shift), return_dict=False)[0]
        return np.asarray((found.float() / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy(), np.float32)

    def _taken(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.to(self._place.dtype, memory_format=self._place.memory_format)

    def _by_channel(self, numbers: Sequence[float] | None, otherwise: float) -> Any:
        return otherwise if numbers is None else self._place.send(numbers).reshape(1, -1, 1, 1)
