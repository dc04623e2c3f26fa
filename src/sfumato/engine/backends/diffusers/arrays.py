"""torch's side of the backend port."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from sfumato.engine.backends.diffusers.place import Place
from sfumato.engine.backends.diffusers.trouble import in_words_of_the_port

__all__ = ["TorchArrays"]


class TorchArrays:
    """float32 tensors on the device. Random numbers are drawn on the CPU, so they are diffusers' own for a seed."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @contextmanager
    def computing(self) -> Iterator[None]:
        with in_words_of_the_port(), torch.inference_mode():
            yield

    def stack(self, arrays: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(arrays))

    def columns(self, table: npt.NDArray[np.float64]) -> Sequence[torch.Tensor]:
        return list(self._place.send(table.T).reshape(table.shape[1], -1, 1, 1, 1).unbind())

    def host(self, array: torch.Tensor) -> npt.NDArray[np.float32]:
        return np.asarray(array.float().cpu().numpy(), np.float32)

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator("cpu").manual_seed(seed)

    def normal(self, generator: torch.Generator, channels: int, height: int, width: int) -> torch.Tensor:
        pinned = self._place.on_cuda
        return self._place.receive(torch.randn((channels, height, width), generator=generator, pin_memory=pinned))
