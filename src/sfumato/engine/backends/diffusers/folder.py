"""A diffusers folder on disk: what it says it is, and its parts, loaded. Safetensors only, and no code of the folder's.

Parts are made by classes named here and in the adapters, never by names that a folder gives.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import diffusers
import torch
import transformers

from sfumato.core.advice import convert_pickles
from sfumato.engine.backends import BackendUnusable
from sfumato.engine.backends.diffusers.place import Place

__all__ = ["Folder", "check_finite"]

Library = Literal["diffusers", "transformers"]
MODULES: Final = {"diffusers": diffusers, "transformers": transformers}
STEMS: Final = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
DTYPE_OPTIONS: Final = {"diffusers": "torch_dtype", "transformers": "dtype"}
PICKLED: Final = ("*.bin", "*.ckpt", "*.pt", "*.pth")


class Folder:
    """What `save_pretrained` of a diffusers pipeline writes.

    Every method raises BackendUnusable with the file's name when something is missing, broken or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = _read(path / "model_index.json")
        self.parts: dict[str, Any] = {}
        """What was loaded so far, by its name in model_index.json."""

    @property
    def pipeline(self) -> str:
        """The pipeline's class, which decides the family."""
        return str(self.index.get("_class_name"))

    def has(self, part: str) -> bool:
        """Some families have parts that a model may lack."""
        return self.class_of(part)[1] is not None

    def settings(self, file: str) -> Mapping[str, Any]:
        """The contents of a JSON file in the folder."""
        return _read(self.path / file)

    def module(self, part: str, library: Library, wanted: str, place: Place) -> Any:
        """A network of the library's class `wanted`, on its device, with every weight there and finite."""
        self._check_class(part, library, wanted)
        folder = self.path / part
        _read(folder / "config.json")
        variant = _variant(folder, STEMS[library])
        try:
            found, notes = getattr(MODULES[library], wanted).from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                variant=variant,
                output_loading_info=True,
                **{DTYPE_OPTIONS[library]: place.dtype},
            )
        except Exception as error:  # the libraries name no errors; whatever it is, the folder is not what they read
            raise BackendUnusable(f"{folder} can't be loaded as {wanted}: {error}") from error
        if missing := sorted(notes["missing_keys"]):
            raise BackendUnusable(
                f"{folder} lacks {len(missing)} weights that its config.json asks for, {missing[0]} among them; "
                "download it again."
            )
        try:
            module = place.settle(found)
        except torch.OutOfMemoryError as error:
            raise BackendUnusable(f"{folder} does not fit into the memory of {place.device}: {error}") from error
        check_finite(module, folder)
        self.parts[part] = module
        return module

    def variant(self, part: str, stem: str) -> str | None:
        """Of the part's safetensors: None for plain ones, "fp16" where only those are there."""
        return _variant(self.path / part, stem)

    def tokenizer(self, part: str, wanted: str) -> Any:
        self._check_class(part, "transformers", wanted)
        folder = self.path / part
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "spiece.model")):
            raise BackendUnusable(f"{folder} has no vocabulary (tokenizer.json or vocab.json); download it again.")
        try:
            self.parts[part] = getattr(transformers, wanted).from_pretrained(folder, local_files_only=True)
        except Exception as error:  # as above
            raise BackendUnusable(f"{folder} can't be loaded as {wanted}: {error}") from error
        return self.parts[part]

    def class_of(self, part: str) -> tuple[str | None, str | None]:
        """Library and class of a part, as model_index.json has them; None where it is no part, or left out."""
        entry = self.index.get(part)
        if not isinstance(entry, list) or len(entry) != 2:
            return None, None
        return entry[0], entry[1]

    def _check_class(self, part: str, library: Library, wanted: str) -> None:
        named_library, named = self.class_of(part)
        # CLIPTokenizer and CLIPTokenizerFast read the same files.
        if named_library != library or str(named).removesuffix("Fast") != wanted.removesuffix("Fast"):
            raise BackendUnusable(
                f"{self.path / 'model_index.json'}: {part} is {named_library}.{named}; "
                f"a {self.pipeline} here needs {library}.{wanted}."
            )


def _variant(folder: Path, stem: str) -> str | None:
    """None for plain files, "fp16" where only those are there."""
    for variant, ending in ((None, ""), ("fp16", ".fp16")):
        if (folder / f"{stem}{ending}.safetensors").is_file():
            return variant
        if (folder / f"{stem}.safetensors.index{ending}.json").is_file():
            return variant
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled:
        raise BackendUnusable(
            f"{folder} has its weights only as {pickled[0]}, a pickle, which can run code when it is opened. "
            f"Convert it once, on a machine that may: {convert_pickles(str(folder.parent))}"
        )
    raise BackendUnusable(f"{folder / stem}.safetensors is missing; download it again.")


def check_finite(module: Any, folder: Path) -> None:
    """Raise BackendUnusable when a weight of the module, read from `folder`, is no finite number."""
    for name, weights in module.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise BackendUnusable(f"{folder}: the weights {name} are not all finite numbers; download it again.")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackendUnusable(f"{file} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise BackendUnusable(f"{file} must be an object.")
    return found
