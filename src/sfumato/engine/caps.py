"""How much fits into a device's memory at once, measured when a worker starts and kept in a file.

Memory that is full is found out by trying, since no formula knows a library's workspaces. What did not fit is halved
until it does. The engine still splits and lowers by itself when a call does not fit later (other processes' memory,
fragments); measuring first only keeps that from happening in the middle of somebody's job.
"""

import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.params import Shape
from sfumato.engine.backends import Backend, Prompt

__all__ = ["Fit", "fits"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fit:
    """At most `rows` in a call of the network, at most `pictures` encoded or decoded together."""

    rows: int
    pictures: int


def fits(
    backend: Backend, shapes: Sequence[Shape], batch: int, folder: Path, identity: Sequence[object]
) -> Mapping[Shape, Fit]:
    """What fits of each shape, up to `batch`: from a file in `folder`, or measured and written there.

    `identity` is all that decides it beside the backend's own description: another path, option or version is another
    file. What else lives on the device is not: remove the folder when it has got more room for good.
    Nothing is measured, and nothing returned, for a device that shares the host's memory.
    """
    about = backend.about
    if not about.own_memory:
        return {}
    text = json.dumps([about.family, about.dtype, about.device, batch, *map(str, identity)])
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    known = _read(file)
    missing = [shape for shape in shapes if shape not in known]
    if missing:
        with _alone(folder):
            for shape in missing:
                known[shape] = _measured(backend, shape, batch)
                log.info("%d x %d: %d rows a call, %d pictures decoded together", *shape, *_numbers(known[shape]))
        _write(file, known)
    return {shape: known[shape] for shape in shapes}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other worker of this host is trying how much fits, for both would find too little."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "measuring.lock").open("a")
    except OSError:
        yield  # it is said when the file can't be written either
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _measured(backend: Backend, shape: Shape, batch: int) -> Fit:
    about = backend.about
    height, width = shape.height // about.vae_factor, shape.width // about.vae_factor
    (embedding,) = backend.encode_prompts([Prompt("")])
    generator = backend.arrays.generator(0)
    latent = backend.arrays.normal(generator, about.latent_channels, height, width)
    grey = np.full((shape.height, shape.width, 3), 127, np.uint8)

    def call(n: int) -> None:
        numbers = np.full(n, 1.0, np.float32)
        backend.predict(backend.arrays.stack([latent] * n), numbers, [embedding] * n, numbers)

    def decode(n: int) -> None:
        backend.decode(backend.arrays.stack([latent] * n))
        backend.encode_images(np.stack([grey] * n), [backend.arrays.generator(0) for _ in range(n)])

    return Fit(_most(backend, call, batch), _most(backend, decode, batch))


def _most(backend: Backend, work: Callable[[int], Any], batch: int) -> int:
    """The largest of batch, batch / 2, … 1 that fits; 1 also when not even that does, for its job to say so."""
    n = batch
    while n > 1:
        try:
            with backend.arrays.computing():
                work(n)
        except MemoryError:
            n = (n + 1) // 2
        else:
            break
    return n


def _numbers(fit: Fit) -> tuple[int, int]:
    return fit.rows, fit.pictures


def _read(file: Path) -> dict[Shape, Fit]:
    """A file that is not there or not whole is as good as none: it is measured again."""
    try:
        return {Shape(width, height): Fit(*numbers) for width, height, *numbers in json.loads(file.read_text())}
    except (OSError, ValueError, TypeError):
        return {}


def _write(file: Path, known: Mapping[Shape, Fit]) -> None:
    fresh = file.with_suffix(".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps([[*shape, *_numbers(fit)] for shape, fit in known.items()]))
        fresh.replace(file)
    except OSError as error:
        log.warning("what fits can't be kept in %s (%s); it is measured at each start", file, error)
