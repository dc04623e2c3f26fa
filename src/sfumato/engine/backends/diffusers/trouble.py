"""What torch's errors mean to the engine."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from sfumato.core.errors import EngineDead

__all__ = ["in_words_of_the_port", "is_of_the_device"]

OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "alloc_failed")
DEVICE_GONE: Final = ("cuda error",)


def is_of_the_device(error: RuntimeError) -> bool:
    """Whether this is about the device (full, or gone) and not about what it was asked to compute."""
    return _says(error, OUT_OF_MEMORY) or _says(error, DEVICE_GONE)


@contextmanager
def in_words_of_the_port() -> Iterator[None]:
    """torch's errors as the port names them: MemoryError, EngineDead, else as they are."""
    try:
        yield
    except RuntimeError as error:
        if _says(error, OUT_OF_MEMORY):
            # The frames of the failed call hold its tensors; the smaller call that follows needs their room.
            traceback.clear_frames(error.__traceback__)
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None
        if _says(error, DEVICE_GONE):
            raise EngineDead(f"the device can't go on: {error}") from error
        raise


def _says(error: RuntimeError, signs: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(sign in said for sign in signs)
