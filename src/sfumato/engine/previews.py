"""A latent as a small picture, long before it is done: one colour a latent cell, by a linear map.

Latents of these models carry the colour of their cell nearly linearly, so a least squares fit is enough to see what is
coming, at the price of a small matrix product where the decoder would take as long as several steps. The map is fitted
to the model's own encoder, once, when the first preview is asked for.
"""

import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato.core.errors import EngineDead
from sfumato.engine.backends import Backend, Pixels

__all__ = ["Previewer"]

log = logging.getLogger(__name__)

PICTURES: Final = 8
CELLS: Final = 16
"""Latent cells on a side of a picture that the map is fitted to."""
SPOTS: Final = 4
"""Colours on a side of such a picture, blended into each other."""
Numbers = npt.NDArray[np.float32]


class Previewer:
    """Previews of one backend's latents."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._map: Numbers | None = None
        self._tried = False

    def of(self, latents: Any) -> Pixels | None:
        """[channels, h, w] as [h, w, 3]; None where the map could not be fitted, for no job fails for that.

        Raises:
            EngineDead: no job can go on in this process.
        """
        if not self._tried:
            self._tried = True
            self._fit()
        if self._map is None:
            return None
        # A job whose numbers are not finite ends when it is finished; until then it may look as it likes.
        cells = np.nan_to_num(self._backend.arrays.host(latents), posinf=0, neginf=0)
        return np.asarray(((_with_one(cells) @ self._map).clip(0, 1) * 255).round(), np.uint8)

    def _fit(self) -> None:
        """Once: whatever speaks against it now (memory, an encoder of one size, one that overflows) mostly stays."""
        try:
            with self._backend.arrays.computing():
                self._map = self._fitted()
        except EngineDead:
            raise
        except Exception as error:
            log.warning("this model has no previews: %s: %s", type(error).__name__, error)

    def _fitted(self) -> Numbers:
        """[channels + 1, 3]: what each channel, and a constant, add to red, green and blue."""
        about, arrays = self._backend.about, self._backend.arrays
        side = CELLS * about.token_side
        dice = np.random.default_rng(0)
        spots = dice.integers(0, 256, (PICTURES, SPOTS, SPOTS, 3), np.uint8)
        blended = [Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC) for each in spots]
        pictures = np.stack([np.asarray(each) for each in blended])
        generators = [arrays.generator(number) for number in range(PICTURES)]
        latents = self._backend.encode_images(pictures, generators)
        cells = np.concatenate([_with_one(arrays.host(each)) for each in latents])
        inputs = cells.reshape(-1, about.latent_channels + 1)
        factor = about.vae_factor
        blocks = pictures.reshape(PICTURES, side // factor, factor, side // factor, factor, 3)
        colours = (blocks.mean(axis=(2, 4)) / 255).reshape(-1, 3).astype(np.float32)
        found, *_ = np.linalg.lstsq(inputs, colours, rcond=None)
        return np.asarray(found, np.float32)


def _with_one(cells: Numbers) -> Numbers:
    """[channels, h, w] as [h, w, channels + 1], the last being 1."""
    return np.concatenate([cells, np.ones_like(cells[:1])]).transpose(1, 2, 0)
