"""Whether a file of weights is whole, by its own header: it is not loaded, and no library for it is needed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from sfumato.models.kind import INDEX, index_of, missing_shards, needed_files
from sfumato.models.model import CannotChange, Model

__all__ = ["trouble_of", "troubles_of_model"]

ONNX_PARTS: Final = ("text_encoder", "unet", "vae_encoder", "vae_decoder")
LFS: Final = b"version https://git-lfs"
LENGTH_BYTES: Final = 8
LONGEST_HEADER: Final = 100_000_000
"""As the safetensors library has it."""
VARINT_BYTES: Final = 10


def troubles_of_model(model: Model) -> Sequence[str]:
    """What is wrong with the files that this model is served from, each with what to do; none for a simulated one."""
    if model.backend == "simulated":
        return ()
    try:
        files = _onnx(model.path) if model.backend == "onnx" else _diffusers(model.path)
    except CannotChange as error:
        return (error.detail,)
    loras = [lora.path for lora in model.loras]
    return [trouble for file in (*files, *loras) if (trouble := trouble_of(file))]


def trouble_of(file: Path) -> str:
    """Why an .onnx or a .safetensors file can't be whole, and what to do; "" where it looks whole."""
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            if opened.read(len(LFS)) == LFS:
                return f"{file} is a pointer of Git LFS, not the file: git lfs pull"
            opened.seek(0)
            whole = _whole_onnx(opened, size) if file.suffix == ".onnx" else _whole_safetensors(opened, size)
    except OSError as error:
        return f"{file} can't be read ({error.strerror}); copy or fetch the model again"
    return "" if whole else f"{file} is cut short or no {file.suffix} file; copy or fetch it again"


def _onnx(folder: Path) -> list[Path]:
    return [folder / part / "model.onnx" for part in ONNX_PARTS]


def _diffusers(folder: Path) -> list[Path]:
    files = [file.relative_to(folder).as_posix() for file in (*folder.glob("*"), *folder.glob("*/*"))]
    needed = needed_files(files, index_of(folder / INDEX), str(folder))
    if missing := missing_shards(folder, needed):
        raise CannotChange(f"{folder} lacks {', '.join(missing)}; copy or fetch the model again")
    return [folder / file for file in needed if file.endswith(".safetensors")]


def _whole_safetensors(file: BinaryIO, size: int) -> bool:
    """Its header says where each tensor ends; the last one ends with the file."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 1 < length <= min(size - LENGTH_BYTES, LONGEST_HEADER):
        return False
    try:
        header = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return bool(LENGTH_BYTES + length + max(ends, default=0) == size)


def _whole_onnx(file: BinaryIO, size: int) -> bool:
    """It is one protobuf message: field follows field, each says how long it is, and the last ends with the file."""
    while file.tell() < size:
        tag = _varint(file)
        length = _length(file, tag & 7) if tag is not None and tag >> 3 else None
        if length is None or file.tell() + length > size:
            return False
        file.seek(length, os.SEEK_CUR)
    return size > 0


def _length(file: BinaryIO, kind: int) -> int | None:
    """How many bytes of a field of this wire type follow; None where there is no such field."""
    if kind == 0:
        return None if _varint(file) is None else 0
    return _varint(file) if kind == 2 else {1: 8, 5: 4}.get(kind)


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for place in range(VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    return None
