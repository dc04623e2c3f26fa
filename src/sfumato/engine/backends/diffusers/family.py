"""What an adapter of one model family must do; backend.py does the rest."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from sfumato.engine.backends import Prompt
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.vae import Vae
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["Adapter", "Family"]


class Adapter(Protocol):
    """The class of a family."""

    @property
    def on_cuda(self) -> torch.dtype:
        """The dtype that its networks are known to be good in."""
        ...

    def __call__(self, folder: Folder, place: Place) -> "Family":
        """Raises BackendUnusable when the folder is not right."""
        ...


class Family(Protocol):
    """One loaded model."""

    @property
    def name(self) -> str: ...

    @property
    def vae(self) -> Vae: ...

    @property
    def patch(self) -> int:
        """Latent cells that a token of the network has on a side."""
        ...

    def schedule(self, written: NoiseSchedule) -> NoiseSchedule:
        """What the folder's scheduler_config.json means to this family."""
        ...

    @property
    def embeds_guidance(self) -> bool:
        """The network takes guidance_scale as an input."""
        ...

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """One embedding a prompt, as `predict` takes them."""
        ...

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, embeddings: Sequence[Any], guidance: torch.Tensor
    ) -> torch.Tensor:
        """The network's output for x [n, c, h, w] in its dtype, t [n] and guidance [n] in float32."""
        ...
