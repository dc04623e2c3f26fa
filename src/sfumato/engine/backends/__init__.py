"""The backend port: what the engine needs of a model, and which module serves which name.

A backend owns its library, device, dtype and random generators. Arrays are its own (numpy, torch); the engine only does
arithmetic, indexing and `clip` on them, and asks `arrays` for what differs between libraries.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import SfumatoError
from sfumato.core.params import ModelRules, Sampler
from sfumato.engine.schedule import NoiseSchedule, UnsupportedSchedule

__all__ = ["About", "Arrays", "Backend", "BackendUnusable", "Pictures", "Pixels", "Prompt", "load"]

Pixels = npt.NDArray[np.uint8]
"""Pictures in, [n, height, width, 3]."""

Pictures = npt.NDArray[np.float32]
"""Pictures out, [n, height, width, 3], 0 is black and 1 is white; the engine clips and rounds."""


class BackendUnusable(SfumatoError):
    """This model can't be loaded with this backend; the message says what to install or mend."""

    slug = "backend-unusable"
    title = "The model can't be loaded with this backend"


class Prompt(NamedTuple):
    """A text, and whether guidance leads away from it: some models take the two kinds differently."""

    text: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What a backend is and how its model was trained.

    `latent_channels` and `vae_factor` (pixels a latent cell has on a side) size the latents; `schedule` is what the
    sampler's tables are computed from; a token of the network is `patch` latent cells on a side. A model that
    `embeds_guidance` takes guidance_scale as an input, one row a job; any other is led by a second row without the
    prompt.
    """

    family: str
    dtype: str
    device: str
    latent_channels: int
    vae_factor: int
    schedule: NoiseSchedule
    embeds_guidance: bool = False
    patch: int = 1

    @property
    def token_side(self) -> int:
        """Pixels; sides of pictures are multiples of it."""
        return self.vae_factor * self.patch


class Arrays(Protocol):
    """The few array operations that libraries spell differently."""

    def computing(self) -> AbstractContextManager[object]:
        """Around arithmetic: numbers that are not finite make no noise, and errors are those that Backend names."""
        ...

    def stack(self, arrays: Sequence[Any]) -> Any:
        """Arrays of one shape along a new first axis."""
        ...

    def columns(self, table: npt.NDArray[np.float64]) -> Sequence[Any]:
        """Each column of [rows, columns] as [rows, 1, 1, 1], on the device and in the dtype of the latents."""
        ...

    def generator(self, seed: int) -> Any:
        """A random generator of one job; its draws never depend on other jobs."""
        ...

    def normal(self, generator: Any, channels: int, height: int, width: int) -> Any:
        """The generator's next [channels, height, width] of standard normal numbers."""
        ...


class Backend(Protocol):
    """One model on one device, used by one thread.

    Every method may raise MemoryError (this call does not fit, a smaller one may), EngineDead (nothing works any more
    in this process), or anything else, which is then about the jobs of this call.
    """

    @property
    def about(self) -> About: ...

    @property
    def arrays(self) -> Arrays: ...

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """One embedding a prompt, opaque to the engine."""
        ...

    def encode_images(self, pixels: Pixels, generators: Sequence[Any]) -> Any:
        """Latents [n, channels, height / factor, width / factor], scaled as the model takes them.

        Where the encoder gives a distribution, row i is the first draw of generator i.
        """
        ...

    def predict(
        self, x: Any, t: npt.NDArray[np.float32], embeddings: Sequence[Any], guidance: npt.NDArray[np.float32]
    ) -> Any:
        """The model's output for latents x [n, c, h, w], row i at timestep t[i] with embeddings[i].

        `guidance` is each row's guidance_scale; only a model that `embeds_guidance` looks at it.
        """
        ...

    def decode(self, x: Any) -> Pictures:
        """Pictures of latents [n, c, h, w]."""
        ...


Factory = Callable[[Path, int, str, str], Backend]
"""Path, threads, device, dtype."""


def _onnx(path: Path, threads: int, device: str, dtype: str) -> Backend:
    from sfumato.engine.backends.onnx import OnnxBackend

    return OnnxBackend(path, threads)


def _diffusers(path: Path, threads: int, device: str, dtype: str) -> Backend:
    from sfumato.engine.backends.diffusers.backend import DiffusersBackend

    return DiffusersBackend(path, threads, device, dtype)


def _simulated(path: Path, threads: int, device: str, dtype: str) -> Backend:
    from sfumato.engine.backends.simulated import SimulatedBackend

    return SimulatedBackend.load(path)


BACKENDS: Final[dict[str, Factory]] = {"onnx": _onnx, "diffusers": _diffusers, "simulated": _simulated}


def load(name: str, path: Path, threads: int, rules: ModelRules, device: str = "auto", dtype: str = "auto") -> Backend:
    """Open the model at `path` with the backend of this name; its library is imported only now.

    `threads` is how many CPU threads the model may use, 0 for as many as there are cores. `device` and `dtype` are for
    backends that have a choice.

    Raises:
        BackendUnusable: the name is unknown, the library is not installed, the folder is no model of this backend, or
            `rules` allow shapes that the model's latents can't have or samplers that it can't walk by.
    """
    factory = BACKENDS.get(name)
    if factory is None:
        raise BackendUnusable(f"backend {name!r} is unknown; choose one of: {', '.join(BACKENDS)}.")
    try:
        backend = factory(path, threads, device, dtype)
    except ImportError as error:
        raise BackendUnusable(f"backend {name!r} needs {error.name}: pip install 'sfumato[{name}]'.") from error
    except UnsupportedSchedule as error:
        raise BackendUnusable(error.detail) from error
    _check_rules(rules, backend.about)
    return backend


def _check_rules(rules: ModelRules, about: About) -> None:
    if rules.size_multiple % about.token_side:
        raise BackendUnusable(
            f"size_multiple is {rules.size_multiple}; this model needs a multiple of {about.token_side}."
        )
    flows = about.schedule.prediction_type == "flow_prediction"
    wrong = [sampler for sampler in rules.samplers if (sampler is Sampler.FLOW_MATCH_EULER) != flows]
    if wrong:
        raise BackendUnusable(f"samplers has {', '.join(wrong)}, which can't be used with a {about.family} model.")
