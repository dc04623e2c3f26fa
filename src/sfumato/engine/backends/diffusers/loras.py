"""LoRA files, added to a model's weights when it is loaded, so that a step costs what it costs without them."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers

from sfumato.engine.backends import BackendUnusable, Lora
from sfumato.engine.backends.diffusers.folder import Folder, check_finite

__all__ = ["fuse"]


def fuse(folder: Folder, loras: Sequence[Lora]) -> None:
    """Add these to what `folder` has loaded, in the order given. Reads every layout of keys that diffusers reads.

    Raises:
        BackendUnusable: a file can't be read or is for another model; the message names it.
        ImportError: peft is not installed.
    """
    if not loras:
        return
    import peft  # noqa: F401 - diffusers would only say in a long error that it is missing

    pipeline = _around(folder)
    for number, lora in enumerate(loras):
        try:
            _fuse_one(pipeline, lora, f"lora{number}")
        except BackendUnusable:
            raise
        except Exception as error:  # the libraries name no errors; whatever it is, the file does not go with the model
            raise BackendUnusable(f"{lora.path} can't be added to {folder.path}: {_first_line(error)}") from error
    for name, part in folder.parts.items():
        if hasattr(part, "named_parameters"):
            check_finite(part, folder.path / name)


def _around(folder: Folder) -> Any:
    """A pipeline of the folder's class around the parts that are loaded already; it only knows how to add weights."""
    wanted = getattr(diffusers, folder.pipeline)
    parts: dict[str, Any] = {name: None for name in inspect.signature(wanted.__init__).parameters if name != "self"}
    # It is never asked to walk, but some classes look at its scheduler when they are made.
    never_used = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    if "transformer" in folder.parts:
        never_used = diffusers.FlowMatchEulerDiscreteScheduler()
    parts |= {"scheduler": never_used, "requires_safety_checker": False} | folder.parts
    return wanted(**{name: part for name, part in parts.items() if name in inspect.signature(wanted).parameters})


def _fuse_one(pipeline: Any, lora: Lora, name: str) -> None:
    file: Path = lora.path
    exactly = {"weight_name": file.name, "local_files_only": True, "use_safetensors": True}
    pipeline.load_lora_weights(str(file.parent), adapter_name=name, **exactly)
    loaded = [part for part, names in pipeline.get_list_adapters().items() if name in names]
    if not loaded:
        raise BackendUnusable(f"{file} has no weights for a {type(pipeline).__name__}; it is for another model.")
    pipeline.fuse_lora(components=loaded, lora_scale=lora.weight, adapter_names=[name])
    pipeline.unload_lora_weights()


def _first_line(error: Exception) -> str:
    """torch lists every mismatched weight."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
