"""CLIP's two halves as the Stable Diffusion families use them: a tokenizer and a text encoder that fit together."""

from collections.abc import Sequence
from typing import Any

import torch

from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place

__all__ = ["Clip"]


class Clip:
    """`tokenizer<suffix>` and `text_encoder<suffix>` of a folder, the encoder being of class `wanted`."""

    def __init__(self, folder: Folder, place: Place, wanted: str, suffix: str = "") -> None:
        self._tokenizer = folder.tokenizer(f"tokenizer{suffix}", "CLIPTokenizer")
        self._module = folder.module(f"text_encoder{suffix}", "transformers", wanted, place)
        self._place, self.config = place, self._module.config
        self._window = min(self._tokenizer.model_max_length, self.config.max_position_embeddings)
        if len(self._tokenizer) > self.config.vocab_size:
            raise BackendUnusable(
                f"{folder.path}/tokenizer{suffix} knows {len(self._tokenizer)} words, text_encoder{suffix} only "
                f"{self.config.vocab_size}; they are of different models."
            )

    def __call__(self, prompts: Sequence[Prompt], *, hidden_states: bool = False) -> Any:
        """The encoder's output for each prompt; what is longer than its window is cut."""
        texts = [prompt.text for prompt in prompts]
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=self._window, truncation=True, return_tensors="pt"
        ).to(self._place.device)
        masked = getattr(self.config, "use_attention_mask", False)
        mask: torch.Tensor | None = tokens.attention_mask if masked else None
        return self._module(tokens.input_ids, attention_mask=mask, output_hidden_states=hidden_states)
