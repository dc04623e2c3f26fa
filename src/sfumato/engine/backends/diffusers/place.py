"""Where a model's numbers live: device and dtype, and what torch's errors there mean to the engine."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sfumato.core.errors import EngineDead
from sfumato.engine.backends import BackendUnusable

__all__ = ["Place", "in_words_of_the_port"]

OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "alloc_failed")
DEVICE_GONE: Final = "cuda error"


@dataclass(frozen=True, slots=True)
class Place:
    """`dtype` is the network's; latents are float32 everywhere, so that steps do not round."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, dtype: str, on_cuda: torch.dtype) -> "Place":
        """`auto` is CUDA where there is one, else the CPU; and float32 on the CPU, `on_cuda` elsewhere.

        Raises:
            BackendUnusable: CUDA was asked for and torch sees none.
        """
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise BackendUnusable(
                "device is 'cuda', but torch finds no CUDA device; check the driver and that torch was installed "
                "with CUDA, or write device = 'cpu'."
            )
        place = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
        usual = on_cuda if place.type == "cuda" else torch.float32
        return cls(place, usual if dtype == "auto" else getattr(torch, dtype))

    @property
    def on_cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    @property
    def memory_format(self) -> torch.memory_format:
        """Convolutions in half precision are fastest on CUDA with channels last."""
        return torch.channels_last if self.on_cuda else torch.preserve_format

    def send(self, numbers: np.typing.ArrayLike) -> torch.Tensor:
        """As float32 on the device; the host does not wait for the copy."""
        host = torch.from_numpy(np.array(numbers, np.float32))
        return self.receive(host.pin_memory() if self.on_cuda else host)

    def receive(self, host: torch.Tensor) -> torch.Tensor:
        """On the device; from pinned memory the host does not wait for the copy."""
        return host.to(self.device, non_blocking=True)

    def settle(self, module: Any) -> Any:
        """The module here, for inference."""
        return module.to(self.device).to(memory_format=self.memory_format).eval().requires_grad_(False)


@contextmanager
def in_words_of_the_port() -> Iterator[None]:
    """torch's errors as the port names them: MemoryError, EngineDead, else as they are."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if any(sign in said for sign in OUT_OF_MEMORY):
            # The frames of the failed call hold its tensors; the smaller call that follows needs their room.
            traceback.clear_frames(error.__traceback__)
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None
        if DEVICE_GONE in said:
            raise EngineDead(f"the device can't go on: {error}") from error
        raise
