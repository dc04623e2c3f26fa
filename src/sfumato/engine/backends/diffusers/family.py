"""What an adapter of one model family must do; backend.py does the rest."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from sfumato.engine.backends import Prompt
from sfumato.engine.backends.diffusers.vae import Vae

__all__ = ["Family"]


class Family(Protocol):
    """One loaded model. Its factory is `(Folder, Place) -> Family` and raises BackendUnusable."""

    @property
    def name(self) -> str: ...

    @property
    def vae(self) -> Vae: ...

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
