"""The models of the list: whether each can be served, with what is installed here and the files that lie there."""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sfumato.cli.doctor.finding import Finding
from sfumato.core.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.config import Settings
    from sfumato.models.registry import Model

__all__ = ["listed", "of"]

NEEDED: Final = {
    "onnx": ("onnxruntime", "tokenizers"),
    "diffusers": ("torch", "diffusers", "transformers", "accelerate", "safetensors"),
    "simulated": (),
}
"""Backend → the packages that it imports."""
FOR_LORAS: Final = ("peft",)
INSTALLED_BY: Final = {"onnx": "sfumato", "diffusers": "'sfumato[diffusers]'"}


def of(settings: "Settings") -> Iterator[Finding]:
    """The list, and each model that can't be served from it."""
    from sfumato.models.registry import Registry

    if trouble := settings.trouble_with_models:
        yield Finding("bad", "models", trouble)
        return
    try:
        registry = Registry.read(settings.models_file)
    except SfumatoError as error:
        yield Finding("bad", "models", error.detail)
        return
    except OSError as error:
        yield Finding("bad", "models", f"{error.filename}: {error.strerror}")
        return
    faults = {model.name: list(_faults(model)) for model in registry}
    if served := [name for name, found in faults.items() if not found]:
        yield Finding("good", f"models {', '.join(served)}")
    for name, found in faults.items():
        yield from (Finding("bad", f"model {name}", advice) for advice in found)
    for name, trouble in registry.troubles.items():
        yield Finding("bad", f"model {name}", trouble)


def listed(settings: "Settings") -> "list[Model]":
    """The models of the list; none where it can't be read, which `of` tells."""
    from sfumato.models.registry import Registry

    try:
        return list(Registry.read(settings.models_file))
    except (SfumatoError, OSError):
        return []


def _faults(model: "Model") -> Iterator[str]:
    from sfumato.models.weights import troubles_of_model

    needed = (*NEEDED[model.backend], *(FOR_LORAS if model.loras else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        yield f"backend {model.backend} needs {', '.join(missing)}: pip install {INSTALLED_BY[model.backend]}"
    yield from troubles_of_model(model)
