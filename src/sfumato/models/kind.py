"""Which backend a folder with a model is for, told by its files; and which of a model's files are needed at all."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from sfumato.core.advice import convert_pickles, convert_single_file
from sfumato.models.folder import STEPPED
from sfumato.models.model import CannotChange

__all__ = ["backend_of", "index_of", "missing_shards", "needed_files", "pipeline_of"]

INDEX: Final = "model_index.json"
NOT_RUN: Final = ("safety_checker", "watermark")
NOT_STEPPED: Final = (*NOT_RUN, "feature_extractor", "image_encoder")
"""Parts of pipelines that are not run here, the latter where step by step; nobody need wait for them."""
NETWORKS: Final = ("unet", "transformer")
PICKLED: Final = (".bin", ".ckpt", ".pt", ".pth")
_WEIGHTS: Final = re.compile(
    r"(?:diffusion_pytorch_model|model)(?P<half>\.fp16)?(?P<shard>-\d+-of-\d+)?\.safetensors"
    r"|(?:diffusion_pytorch_model|model)\.safetensors\.index(?P<half_index>\.fp16)?\.json"
)
_TEXT: Final = re.compile(r".+\.(?:json|txt|model)")
"""Configurations, and the vocabularies of tokenizers."""


def backend_of(folder: Path) -> Literal["diffusers", "onnx"]:
    """The backend for the model in `folder`: a diffusers folder with safetensors, or optimum's layout of ONNX files.

    Raises:
        CannotChange: it is neither; the message says what is there instead, where that is known, and what to do.
    """
    if any((folder / part / "model.onnx").is_file() for part in NETWORKS) and not _has_safetensors(folder):
        return "onnx"
    files = [file.relative_to(folder).as_posix() for file in (*folder.glob("*"), *folder.glob("*/*"))]
    if INDEX not in files:
        raise CannotChange(_no_index(f"{folder}", files))
    needed_files(files, index_of(folder / INDEX), str(folder))
    return "diffusers"


def index_of(file: Path) -> Mapping[str, Any]:
    """What a model_index.json says.

    Raises:
        CannotChange: it can't be read.
    """
    try:
        index = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CannotChange(f"{file} can't be read: {error}.") from error
    if not isinstance(index, dict):
        raise CannotChange(f"{file} must be an object.")
    return index


def pipeline_of(folder: Path) -> str:
    """The pipeline's class by its model_index.json, "" where there is none."""
    try:
        return str(index_of(folder / INDEX).get("_class_name", ""))
    except CannotChange:
        return ""


def needed_files(files: Iterable[str], index: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Those of a diffusers model's files that are needed to serve it.

    Of the parts that `index` (its model_index.json) names: configurations, vocabularies, and safetensors of one
    precision, plain ones before `.fp16`. Never a pickle, never code, no other copy of the weights.

    Raises:
        CannotChange: a part has no safetensors; `where` is what the message calls the model.
    """
    by_part: dict[str, list[str]] = {"": []}
    for file in sorted(files):
        part, _, name = file.rpartition("/")
        if part or name in (INDEX, "sfumato.json"):
            by_part.setdefault(part, []).append(name)
    needed = by_part[""]
    left_out = NOT_STEPPED if index.get("_class_name") in STEPPED else NOT_RUN
    for part, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None and part not in left_out:
            names = by_part.get(part, [])
            needed += [f"{part}/{name}" for name in names if _TEXT.fullmatch(name) and not _WEIGHTS.fullmatch(name)]
            needed += [f"{part}/{name}" for name in _weights(names, part, where)]
    return tuple(needed)


def missing_shards(folder: Path, files: Iterable[str]) -> list[str]:
    """Those of a model's weights that its lists of shards name and `folder` lacks."""
    missing: set[str] = set()
    for file in files:
        if ".safetensors.index" in file:
            part = (folder / file).parent
            shards = set(index_of(folder / file).get("weight_map", {}).values())
            missing |= {f"{part.name}/{shard}" for shard in shards if not (part / shard).is_file()}
    return sorted(missing)


def _weights(names: list[str], part: str, where: str) -> list[str]:
    found = [match for match in map(_WEIGHTS.fullmatch, names) if match]
    plain = [match for match in found if not (match["half"] or match["half_index"])]
    chosen = plain if any(match[0].endswith(".safetensors") for match in plain) else found
    whole = [match[0] for match in chosen if match[0].endswith(".safetensors") and not match["shard"]]
    if whole or chosen or "config.json" not in names:
        return whole or [match[0] for match in chosen]
    pickled = [name for name in names if name.endswith(PICKLED)]
    if pickled:
        raise CannotChange(
            f"{where} has the weights of {part} only as {pickled[0]}, a pickle, which can run code when it is opened. "
            f"Convert it once, on a machine that may: {convert_pickles(where)} and then add the folder converted."
        )
    raise CannotChange(f"{where} has no weights for {part} as .safetensors; it is not whole.")


def _has_safetensors(folder: Path) -> bool:
    return any(any((folder / part).glob("*.safetensors")) for part in NETWORKS)


def _no_index(where: str, files: Iterable[str]) -> str:
    single = sorted(file for file in files if "/" not in file and file.endswith((".safetensors", ".ckpt")))
    if not single:
        return (
            f"{where} is neither a diffusers folder (model_index.json) nor one of ONNX files (unet/model.onnx); "
            "name the folder that has one of them."
        )
    return (
        f"{where} has no model_index.json but {single[0]}, a whole model in one file. Make a diffusers folder of it "
        f"once: {convert_single_file(single[0])} (or by its family's pipeline), then add the folder converted."
    )
