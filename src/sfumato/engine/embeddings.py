"""Prompt embeddings, kept: the same prompt is encoded once while it is among the last used."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sfumato.engine.backends import Backend, Prompt

__all__ = ["EmbeddingCache"]

KEEP: Final = 64
"""Of a large text encoder one takes 4 MB of the device's memory."""


class EmbeddingCache:
    """The `keep` least long unused embeddings of one backend."""

    def __init__(self, backend: Backend, keep: int = KEEP) -> None:
        self._backend, self._keep = backend, keep
        self._known: OrderedDict[Prompt, Any] = OrderedDict()

    def of(self, prompts: Sequence[Prompt]) -> Mapping[Prompt, Any]:
        """Each prompt's embedding; unknown ones are encoded in one call."""
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if unknown:
            self._known.update(zip(unknown, self._backend.encode_prompts(unknown), strict=True))
        found = {prompt: self._known[prompt] for prompt in prompts}
        for prompt in found:
            self._known.move_to_end(prompt)
        while len(self._known) > self._keep:
            self._known.popitem(last=False)
        return found
