"""A stated cost model in place of a neural network, for tests of policy and for benchmarks; never offered to users.

A model call of n rows takes fixed_s + n · row_s. What comes out is the input in blocks of 8 × 8 pixels, drawn a
little towards a colour of the prompt at every step, the same on every machine.
"""

import hashlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import EngineDead
from sfumato.engine.backends import About, Pictures, Pixels, Prompt
from sfumato.engine.backends.arrays import Latents, NumpyArrays
from sfumato.engine.schedule import NoiseSchedule

__all__ = ["SimulatedBackend"]

FACTOR: Final = 8
DRIFT: Final = 0.05
"""How far one step moves towards the prompt's colour."""

# So little noise that the picture stays visible although this model can't remove any.
SCHEDULE: Final = NoiseSchedule(beta_start=5e-7, beta_end=5e-7, prediction_type="sample")


class SimulatedBackend:
    """Costs in seconds; `sleep` is called with each call's cost, so a bench may pass virtual time in.

    With `dies_after_calls` the device is gone after so many calls; with `dies_for_prompt` a job with this prompt kills
    the process: for tests of what follows.
    """

    def __init__(
        self,
        fixed_s: float = 0.0,
        row_s: float = 0.0,
        sleep: Callable[[float], object] | None = None,
        dies_after_calls: float = math.inf,
        dies_for_prompt: str | None = None,
    ) -> None:
        self.fixed_s, self.row_s = fixed_s, row_s
        self._calls_left, self._poison = dies_after_calls, dies_for_prompt
        self._sleep = sleep or threading.Event().wait
        self.about = About("simulated", "float32", "none", 3, FACTOR, SCHEDULE)
        self.arrays = NumpyArrays()

    @classmethod
    def load(cls, path: Path) -> Self:
        """As the folder's `simulated.json` says, an object of the numbers above; without it at no cost.

        With `dies_at_start` the process is killed while it loads, as by a system that has no memory left.
        """
        file = path / "simulated.json"
        said = json.loads(file.read_text()) if file.is_file() else {}
        if said.pop("dies_at_start", False):
            os.kill(os.getpid(), signal.SIGKILL)
        return cls(**said)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Latents]:
        if any(prompt.text == self._poison for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        return [_colour(prompt.text) for prompt in prompts]

    def encode_images(self, pixels: Pixels, generators: Sequence[np.random.Generator]) -> Latents:
        n, height, width, _ = pixels.shape
        blocks = pixels.reshape(n, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3).mean(axis=(2, 4))
        return np.asarray((blocks / 127.5 - 1).transpose(0, 3, 1, 2), np.float32)

    def predict(
        self,
        x: Latents,
        t: npt.NDArray[np.float32],
        embeddings: Sequence[Latents],
        guidance: npt.NDArray[np.float32],
    ) -> Latents:
        self._calls_left -= 1
        if self._calls_left < 0:
            raise EngineDead("the simulated device is gone.")
        if cost_s := self.fixed_s + self.row_s * len(x):
            self._sleep(cost_s)
        return x + np.float32(DRIFT) * (np.stack(embeddings) - x)

    def decode(self, x: Latents) -> Pictures:
        blocks = np.asarray(x / 2 + 0.5, np.float32).transpose(0, 2, 3, 1)
        return blocks.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)


def _colour(prompt: str) -> Latents:
    red, green, blue, *_ = hashlib.sha256(prompt.encode()).digest()
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1) / 127.5 - 1
