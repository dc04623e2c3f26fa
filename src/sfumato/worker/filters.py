"""The hook through which every finished picture of a model goes before it is stored: a safety checker, a watermark.

`output_filter = "package.module:function"` in models.toml names a function of this installation's, never code that
comes with a model. It is called as `function(pixels, prompt)`, by one thread at a time, with the picture as
[height, width, 3] uint8, and gives the picture to serve, or None when none may be served.
"""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from sfumato.core.errors import PermanentError, SfumatoError
from sfumato.engine.events import Pixels

__all__ = ["BadFilter", "OutputFilter"]


class BadFilter(SfumatoError):
    """The model's output_filter can't be used; the message says why."""

    slug = "bad-filter"
    title = "The model's output filter can't be used"


class OutputFilter:
    """The filter that `spec` names; an empty one lets everything pass.

    Raises:
        BadFilter: there is no such module or function.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._function = _loaded(spec) if spec else None
        self._one_at_a_time = asyncio.Lock()

    @property
    def there(self) -> bool:
        """Whether it looks at pictures at all."""
        return self._function is not None

    async def __call__(self, pixels: Pixels, prompt: str) -> Pixels:
        """The picture to serve.

        Raises:
            PermanentError: the filter refused the picture, or gave something that is no picture of its size.
            Exception: what the filter raised; nothing is served that it has not seen.
        """
        if self._function is None:
            return pixels
        async with self._one_at_a_time:
            found: Any = await asyncio.to_thread(self._function, pixels, prompt)
        if found is None:
            raise PermanentError("the model's output filter refused the picture.", slug="output-refused")
        given = np.asarray(found)
        if given.shape != pixels.shape or given.dtype != np.uint8:
            raise PermanentError(
                f"the model's output filter {self._spec} gave {given.dtype} {given.shape}, not uint8 {pixels.shape}."
            )
        return given


def _loaded(spec: str) -> Callable[[Pixels, str], object]:
    module, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a stranger's module raises when it is imported
        raise BadFilter(f"output_filter {spec!r} can't be loaded: {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise BadFilter(f"output_filter {spec!r} is no function.")
    function: Callable[[Pixels, str], object] = found
    return function
