"""The backend port: what the engine needs of a model, and which module serves which name.

A backend owns its library, device, dtype and random generators. Arrays are its own (numpy, torch); the engine only does
arithmetic, indexing and `clip` on them, and asks `arrays` for what differs between libraries.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import SfumatoError
from sfumato.core.params import ModelRules, Params, Sampler
from sfumato.engine.sampler import TABLED
from sfumato.engine.schedule import NoiseSchedule, UnsupportedSchedule

__all__ = [
    "About",
    "Arrays",
    "Backend",
    "BackendUnusable",
    "DeviceMemory",
    "Lora",
    "Options",
    "Pictures",
    "Pixels",
    "Prompt",
    "RunsWhole",
    "WholeBackend",
    "device_memory",
    "load",
    "load_whole",
]

Pixels = npt.NDArray[np.uint8]
"""Pictures in, [n, height, width, 3]."""

Pictures = npt.NDArray[np.float32]
"""Pictures out, [n, height, width, 3], 0 is black and 1 is white; the engine clips and rounds."""


class BackendUnusable(SfumatoError):
    """This model can't be loaded with this backend; the message says what to install or mend."""

    slug = "backend-unusable"
    title = "The model can't be loaded with this backend"


class RunsWhole(BackendUnusable):
    """This backend has no adapter for the model's family; `load_whole` may have a pipeline that runs it as one call."""


class Lora(NamedTuple):
    """Weights to be added to a model's own (Hu et al. 2021, arXiv 2106.09685), times `weight`."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is to be run; a backend looks at what it has a choice of.

    `threads` is how many CPU threads it may use, 0 for as many as there are cores. `attention_slicing` and `vae_tiling`
    trade speed for memory; without `cuda_graphs` a network's calls are launched one by one.
    """

    threads: int = 0
    device: str = "auto"
    dtype: str = "auto"
    loras: tuple[Lora, ...] = ()
    attention_slicing: bool = False
    vae_tiling: bool = False
    cuda_graphs: bool = True


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
    prompt. A device with `own_memory` may have no room for a call that another device of its kind has room for.
    """

    family: str
    dtype: str
    device: str
    latent_channels: int
    vae_factor: int
    schedule: NoiseSchedule
    embeds_guidance: bool = False
    patch: int = 1
    own_memory: bool = False

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

    def host(self, array: Any) -> npt.NDArray[np.float32]:
        """The array's numbers on the host, which waits for them."""
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


class WholeBackend(Protocol):
    """A model that can't be stepped: one request is one call of its pipeline. Used by one thread at a time."""

    def generate(
        self, params: Params, pixels: npt.NDArray[np.uint8], told: Callable[[int, int], None]
    ) -> npt.NDArray[np.float32]:
        """One picture [height, width, 3] from another, 0 to 1; its size may be another one than was asked for.

        After each step `told` is called with the steps done and all steps; what it raises ends the call at once and
        comes out of it. Raises what Backend's methods may raise.
        """
        ...


class DeviceMemory(NamedTuple):
    """Memory of a device of its own, by whoever it is used."""

    name: str
    used_bytes: int
    total_bytes: int


def device_memory() -> Sequence[DeviceMemory]:
    """The CUDA device that this process works on; nothing where it works on none."""
    if "torch" not in sys.modules:
        return ()
    from sfumato.engine.backends.diffusers.place import memory_in_use

    found = memory_in_use()
    return () if found is None else (DeviceMemory(*found),)


Factory = Callable[[Path, Options], Backend]


def _onnx(path: Path, options: Options) -> Backend:
    from sfumato.engine.backends.onnx import OnnxBackend

    return OnnxBackend(path, options.threads)


def _diffusers(path: Path, options: Options) -> Backend:
    from sfumato.engine.backends.diffusers.backend import DiffusersBackend

    return DiffusersBackend(path, options)


def _simulated(path: Path, options: Options) -> Backend:
    from sfumato.engine.backends.simulated import SimulatedBackend

    return SimulatedBackend.load(path)


def _diffusers_whole(path: Path, options: Options) -> WholeBackend:
    from sfumato.engine.backends.diffusers.whole import DiffusersPipeline

    return DiffusersPipeline(path, options)


BACKENDS: Final[dict[str, Factory]] = {"onnx": _onnx, "diffusers": _diffusers, "simulated": _simulated}
WHOLE: Final[dict[str, Callable[[Path, Options], WholeBackend]]] = {"diffusers": _diffusers_whole}


def load(name: str, path: Path, rules: ModelRules, options: Options | None = None) -> Backend:
    """Open the model at `path` with the backend of this name; its library is imported only now.

    Raises:
        RunsWhole: the model can't be stepped here; try `load_whole`.
        BackendUnusable: the name is unknown, the library is not installed, the folder is no model of this backend, or
            `rules` allow shapes that the model's latents can't have or samplers that it can't walk by.
    """
    backend = _opened(BACKENDS, name, path, options)
    _check_rules(rules, backend.about)
    return backend


def load_whole(name: str, path: Path, rules: ModelRules, options: Options | None = None) -> WholeBackend:
    """Open the model at `path` as a pipeline that runs request by request.

    Raises:
        BackendUnusable: as for `load`; also when `rules` name a sampler, for such a pipeline brings its own.
    """
    if rules.samplers != (Sampler.NATIVE,):
        raise BackendUnusable(f"samplers must be ['{Sampler.NATIVE}'] for a model that runs request by request.")
    return _opened(WHOLE, name, path, options)


T = TypeVar("T")


def _opened(known: Mapping[str, Callable[[Path, Options], T]], name: str, path: Path, options: Options | None) -> T:
    factory = known.get(name)
    if factory is None:
        raise BackendUnusable(f"backend {name!r} is unknown; choose one of: {', '.join(known)}.")
    try:
        return factory(path, options or Options())
    except ImportError as error:
        raise BackendUnusable(f"backend {name!r} needs {error.name}: pip install 'sfumato[{name}]'.") from error
    except UnsupportedSchedule as error:
        raise BackendUnusable(error.detail) from error


def _check_rules(rules: ModelRules, about: About) -> None:
    if rules.size_multiple % about.token_side:
        raise BackendUnusable(
            f"size_multiple is {rules.size_multiple}; this model needs a multiple of {about.token_side}."
        )
    flows = about.schedule.prediction_type == "flow_prediction"
    usable = {Sampler.FLOW_MATCH_EULER} if flows else {*TABLED} - {Sampler.FLOW_MATCH_EULER}
    wrong = [sampler for sampler in rules.samplers if sampler not in usable]
    if wrong:
        raise BackendUnusable(f"samplers has {', '.join(wrong)}, which can't be used with a {about.family} model.")
