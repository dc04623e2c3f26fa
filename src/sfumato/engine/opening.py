"""From a model's description to an engine that runs it: stepped where that can be, else request by request."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

from sfumato.core.job import Priority
from sfumato.core.params import ModelRules, Params
from sfumato.engine import backends
from sfumato.engine.backends import Options, RunsWhole
from sfumato.engine.batcher import NOBODYS, Whose
from sfumato.engine.caps import fits
from sfumato.engine.engine import Engine
from sfumato.engine.events import Event, Pixels
from sfumato.engine.whole import WholeEngine

__all__ = ["AnyEngine", "open_engine"]

LIBRARIES: Final[Mapping[str, Sequence[str]]] = {"diffusers": ("torch", "diffusers")}
"""Backend → what decides how much memory it takes."""


class AnyEngine(Protocol):
    """What a worker needs of an engine; one thread owns it. engine.py says what each means."""

    @property
    def idle(self) -> bool: ...

    @property
    def rows(self) -> int: ...

    def add(
        self, key: str, params: Params, pixels: Pixels, priority: Priority = Priority.NORMAL, whose: Whose = NOBODYS
    ) -> None: ...

    def show(self, key: str, on: bool) -> None: ...

    def abort(self, key: str) -> bool: ...

    def step(self) -> Sequence[Event]: ...


def open_engine(
    name: str, path: Path, rules: ModelRules, options: Options, batch: int, caps_folder: Path
) -> tuple[AnyEngine, str]:
    """Load the model at `path` with the backend `name`; its engine, and where it runs in words.

    What fits into the device's memory is measured now, or read from `caps_folder`.

    Raises:
        BackendUnusable: the model can't be run; the message says what to install or mend.
    """
    try:
        backend = backends.load(name, path, rules, options)
    except RunsWhole:
        return WholeEngine(backends.load_whole(name, path, rules, options)), "request by request"
    versions = [f"{name} {metadata.version(name)}" for name in ("sfumato", *LIBRARIES.get(name, ()))]
    known = fits(backend, rules.shapes, batch, caps_folder, (path.resolve(), options, _written_at(path), *versions))
    about = backend.about
    return Engine(backend, batch, known), f"{about.family} in {about.dtype} on {about.device}"


def _written_at(path: Path) -> float:
    """Another model in the same folder is another model."""
    return max((file.stat().st_mtime for file in path.rglob("*") if file.is_file()), default=0.0)
