"""numpy's side of the backend port; every numpy backend has it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

__all__ = ["Latents", "NumpyArrays"]

Latents = npt.NDArray[np.float32]


class NumpyArrays:
    """float32 arrays; each job's random numbers are its own Philox stream, the same on every machine."""

    def computing(self) -> AbstractContextManager[object]:
        return np.errstate(over="ignore", invalid="ignore")

    def stack(self, arrays: Sequence[Latents]) -> Latents:
        return np.stack(arrays)

    def columns(self, table: npt.NDArray[np.float64]) -> Sequence[Latents]:
        return [column.astype(np.float32).reshape(-1, 1, 1, 1) for column in table.T]

    def host(self, array: Latents) -> Latents:
        return array

    def generator(self, seed: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(seed))

    def normal(self, generator: np.random.Generator, channels: int, height: int, width: int) -> Latents:
        return generator.standard_normal((channels, height, width), dtype=np.float32)
