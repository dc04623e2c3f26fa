"""What an engine tells of the jobs in it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import PermanentError

__all__ = ["Event", "Failed", "Finished", "Pixels", "Progress", "does_not_fit", "ended", "not_finite"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` of `steps` are done. `preview`, where one was asked for: [height, width, 3], a latent cell a pixel."""

    key: str
    step: int
    steps: int
    preview: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The picture, [height, width, 3]; the job has left the engine."""

    key: str
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Failed:
    """This job alone can't go on, and has left the engine. Errors of unknown kind come as they were raised."""

    key: str
    error: Exception


Event = Progress | Finished | Failed


def ended(key: str, picture: npt.NDArray[np.float32]) -> Finished | Failed:
    """How a job ended whose picture [height, width, 3] came out: 0 is black, 1 is white, and all must be finite."""
    if not np.isfinite(picture).all():
        return not_finite(key)
    return Finished(key, (picture.clip(0, 1) * 255).round().astype(np.uint8))


def does_not_fit() -> PermanentError:
    """Why a job ends that has no room even alone."""
    reason = "this job alone does not fit into the device's memory; ask for a smaller shape."
    return PermanentError(reason, slug="does-not-fit")


def not_finite(key: str) -> Failed:
    """A job whose numbers overflowed on the way."""
    reason = "the model's output is not finite for this job; try another seed or lower guidance_scale."
    return Failed(key, PermanentError(reason))
