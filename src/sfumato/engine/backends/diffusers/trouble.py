"""What torch's errors mean to the engine."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from sfumato.core.errors import EngineDead

__all__ = ["device_is_full", "device_is_gone", "in_words_of_the_port"]

FULL: Final = ("out of memory", "can't allocate memory", "alloc_failed")
GONE: Final = "cuda error"
CAPTURING: Final = "captur"
"""What can't be recorded is told as a CUDA error too; the device is well."""


def device_is_full(error: RuntimeError) -> bool:
    """Whether there was no room for what was asked."""
    return any(sign in str(error).lower() for sign in FULL)


def device_is_gone(error: RuntimeError) -> bool:
    """Whether nothing more can be done on the device by this process."""
    said = str(error).lower()
    return GONE in said and CAPTURING not in said and not device_is_full(error)


@contextmanager
def in_words_of_the_port() -> Iterator[None]:
    """torch's errors as the port names them: MemoryError, EngineDead, else as they are."""
    try:
        yield
    except RuntimeError as error:
        if device_is_full(error):
            # The frames of the failed call hold its tensors; the smaller call that follows needs their room.
            traceback.clear_frames(error.__traceback__)
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None
        if device_is_gone(error):
            raise EngineDead(f"the device can't go on: {error}") from error
        raise
