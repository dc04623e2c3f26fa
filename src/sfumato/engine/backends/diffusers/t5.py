"""T5's encoder with its tokenizer, as the flow matching families use it beside CLIP."""

from collections.abc import Sequence
from typing import Final

import torch

from sfumato.engine.backends import BackendUnusable, Prompt
from sfumato.engine.backends.diffusers.folder import Folder
from sfumato.engine.backends.diffusers.place import Place

__all__ = ["T5"]

TOKENIZER: Final = "T5TokenizerFast"


class T5:
    """`tokenizer<suffix>` and `text_encoder<suffix>`; prompts are padded or cut to `window` tokens."""

    def __init__(self, folder: Folder, place: Place, suffix: str, window: int) -> None:
        self._tokenizer = folder.tokenizer(f"tokenizer{suffix}", TOKENIZER)
        self._module = folder.module(f"text_encoder{suffix}", "transformers", "T5EncoderModel", place)
        self._place, self._window = place, window
        self.width: int = self._module.config.d_model
        if len(self._tokenizer) > self._module.config.vocab_size:
            raise BackendUnusable(
                f"{folder.path}/tokenizer{suffix} knows {len(self._tokenizer)} words, text_encoder{suffix} only "
                f"{self._module.config.vocab_size}; they are of different models."
            )

    def __call__(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """[prompts, window, width]; padding is not masked, the models were trained so."""
        texts = [prompt.text for prompt in prompts]
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=self._window, truncation=True, return_tensors="pt"
        )
        found: torch.Tensor = self._module(tokens.input_ids.to(self._place.device))[0]
        return found
