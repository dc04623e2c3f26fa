"""Whether a file of a model is whole, weights by their own header: none is loaded, and no library is needed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from sfumato.models.kind import INDEX, index_of, missing_shards, needed_files
from sfumato.models.model import CannotChange, Model

__all__ = ["trouble_of", "troubles_of_model"]

ONNX_PARTS: Final = ("text_encoder", "unet", "vae_encoder", "vae_decoder")
ONNX_SAID: Final = (
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "vae_decoder/config.json",
    "scheduler/scheduler_config.json",
)
"""What the ONNX backend reads beside the parts."""
GRAPH: Final = 7
INITIALIZER: Final = 5
EXTERNAL_DATA: Final = 13
"""Fields of onnx.proto: of ModelProto, GraphProto and TensorProto."""
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
    """Why an .onnx, .safetensors or .json file can't be whole, and what to do; "" where it looks whole.

    Of an .onnx file, the files that it says tensors of it are in are looked at too.
    """
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            if opened.read(len(LFS)) == LFS:
                return f"{file} is a pointer of Git LFS, not the file: git lfs pull"
            opened.seek(0)
            if not _whole(opened, size, file.suffix):
                return f"{file} is cut short or no {file.suffix} file; copy or fetch it again"
        return _trouble_beside(file) if file.suffix == ".onnx" else ""
    except (_CutShortError, ValueError):
        return f"{file} is damaged; copy or fetch it again"
    except OSError as error:
        return f"{file} can't be read ({error.strerror}); copy or fetch the model again"


def _whole(file: BinaryIO, size: int, suffix: str) -> bool:
    if suffix == ".json":
        return _whole_json(file)
    return _whole_onnx(file, size) if suffix == ".onnx" else _whole_safetensors(file, size)


def _onnx(folder: Path) -> list[Path]:
    return [*(folder / part / "model.onnx" for part in ONNX_PARTS), *(folder / name for name in ONNX_SAID)]


def _diffusers(folder: Path) -> list[Path]:
    files = [file.relative_to(folder).as_posix() for file in (*folder.glob("*"), *folder.glob("*/*"))]
    needed = needed_files(files, index_of(folder / INDEX), str(folder))
    if missing := missing_shards(folder, needed):
        raise CannotChange(f"{folder} lacks {', '.join(missing)}; copy or fetch the model again")
    return [folder / file for file in needed if file.endswith((".safetensors", ".json"))]


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
    try:
        return sum(1 for _ in _fields(file, size)) > 0
    except _CutShortError:
        return False


def _whole_json(file: BinaryIO) -> bool:
    try:
        return isinstance(json.loads(file.read()), dict)
    except ValueError:
        return False


class _CutShortError(Exception):
    """A field of a message reaches beyond its end, or is none."""


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """The fields of the message from here to `end`: the number of each, and where it ends; the file is at its begin."""
    while file.tell() < end:
        tag = _varint(file)
        length = _length(file, tag & 7) if tag is not None and tag >> 3 else None
        if tag is None or length is None or file.tell() + length > end:
            raise _CutShortError
        field_end = file.tell() + length
        yield tag >> 3, field_end
        file.seek(field_end)


def _trouble_beside(model: Path) -> str:
    """What is wrong with the files in which a whole .onnx file says that tensors of it are ("" where nothing is)."""
    needed: dict[str, int] = {}
    with model.open("rb") as file:
        for entry in _outside(file, model.stat().st_size):
            name = entry.get("location", "")
            needed[name] = max(needed.get(name, 0), int(entry.get("offset", 0)) + int(entry.get("length", 0)))
    for name, size in needed.items():
        data = model.parent / name
        if not data.is_file():
            return f"{model} has weights in {name}, which is not beside it; copy or fetch it again"
        if data.stat().st_size < size:
            return f"{data} is cut short; copy or fetch it again"
    return ""


def _outside(file: BinaryIO, size: int) -> Iterator[dict[str, str]]:
    """Where each tensor of the graph that is not in the file itself is: location, and perhaps offset and length."""
    for graph in _messages(file, size, GRAPH):
        for tensor in _messages(file, graph, INITIALIZER):
            entries = [_pair(file, entry) for entry in _messages(file, tensor, EXTERNAL_DATA)]
            if entries:
                yield dict(entries)


def _messages(file: BinaryIO, end: int, number: int) -> Iterator[int]:
    return (field_end for found, field_end in _fields(file, end) if found == number)


def _pair(file: BinaryIO, end: int) -> tuple[str, str]:
    said = {
        number: file.read(field_end - file.tell()).decode(errors="replace") for number, field_end in _fields(file, end)
    }
    return said.get(1, ""), said.get(2, "")


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
