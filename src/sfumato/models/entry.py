"""The text of models.toml or of a plain list of names: what may stand there, and where it is wrong (docs/models.md).

Nothing here looks at the models' folders; what is wrong with those is for the registry.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field, ValidationError, field_validator

from sfumato.core.frozen import Frozen
from sfumato.core.job import model_slug
from sfumato.core.params import ModelRules
from sfumato.models.model import FOLDER, BackendName, BadModels, Device, Dtype

__all__ = ["Entry", "Listed", "parsed", "said"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,79}")
_FUNCTION: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
DIFFUSERS_ONLY: Final = (
    "device",
    "dtype",
    "hub",
    "revision",
    "loras",
    "attention_slicing",
    "vae_tiling",
    "cuda_graphs",
)
"""Keys that the other backends have no use for."""


class LoraEntry(Frozen):
    """One of a table's `loras`, as it may be written."""

    path: Path
    weight: float = 1.0

    @field_validator("path")
    @classmethod
    def _safetensors(cls, path: Path) -> Path:
        if path.suffix != ".safetensors":
            raise ValueError(f"must be a .safetensors file, not {path.name!r}; no other kind is opened")
        return path


class Entry(Frozen):
    """A [models.NAME] table as it may be written; without `path` it is the bundled model's files."""

    backend: BackendName = "onnx"
    path: Path = FOLDER
    summary: str = ""
    batch: int = Field(4, ge=1, le=64)
    slots: int | None = Field(None, ge=1, le=1024)
    max_backlog: int = Field(10_000, ge=1)
    device: Device = "auto"
    dtype: Dtype = "auto"
    hub: str = ""
    revision: str = ""
    loras: tuple[LoraEntry, ...] = ()
    attention_slicing: bool = False
    vae_tiling: bool = False
    cuda_graphs: bool = True
    output_filter: str = ""
    min_workers: int = Field(0, ge=0)
    max_workers: int | None = Field(None, ge=0)
    objective_s: float = Field(30.0, gt=0, allow_inf_nan=False)
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    rules: dict[str, Any] = Field(default_factory=dict)

    @field_validator("output_filter")
    @classmethod
    def _function(cls, name: str) -> str:
        if name and not _FUNCTION.fullmatch(name):
            raise ValueError('must be "package.module:function"')
        return name


class Listed(NamedTuple):
    """A model as the list names it; `where` is its place there, `folder` what its paths are relative to."""

    name: str
    entry: Entry
    where: str
    folder: Path

    @property
    def slug(self) -> str:
        """The name as it stands in topics and metrics."""
        return model_slug(self.name)


def parsed(text: str, file: Path) -> tuple[Listed, ...]:
    """What `text`, the content of `file`, lists: as models.toml, or with any other ending as a plain list of names.

    Raises:
        BadModels: the text is not right; the message says where and what may stand there.
    """
    listed = _from_toml(text, file) if file.suffix == ".toml" else _from_names(text, file)
    _keep_slugs_apart(listed, file)
    return tuple(listed)


def said(error: ValueError) -> str:
    """What is wrong, each with its place."""
    if not isinstance(error, ValidationError):
        return str(error).rstrip(".")
    lines = ((".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors())
    return "; ".join(f"{place}: {message.removeprefix('Value error, ')}" for place, message in lines)


def _from_toml(text: str, file: Path) -> list[Listed]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadModels(f"{file}: {error}.") from error
    _refuse_unknown(content, ("models",), str(file))
    tables = content.get("models", {})
    if not isinstance(tables, dict):
        raise BadModels(f"{file}: models must be tables, written as [models.NAME].")
    return [_listed(name, table, f"{file}: [models.{name}]", file.parent) for name, table in tables.items()]


def _from_names(text: str, file: Path) -> list[Listed]:
    listed: dict[str, Listed] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name in listed:
            raise BadModels(f"{file}, line {number}: {name!r} stands here for the second time.")
        listed[name] = _listed(name, {}, f"{file}, line {number}", file.parent)
    return list(listed.values())


def _listed(name: str, table: Any, where: str, folder: Path) -> Listed:
    if not _NAME.fullmatch(name):
        raise BadModels(f"{where}: a name has up to 80 letters, digits and ' ._:/-' and begins with the first two.")
    if not isinstance(table, dict):
        raise BadModels(f"{where}: must be a table of {', '.join(Entry.model_fields)}.")
    _refuse_unknown(table, tuple(Entry.model_fields), where)
    for lora in _tables(table.get("loras")):
        _refuse_unknown(lora, tuple(LoraEntry.model_fields), f"{where} loras")
    try:
        entry = Entry.model_validate(table)
    except ValidationError as error:
        raise BadModels(f"{where}: {said(error)}.") from error
    _check_backend(entry, where)
    _refuse_unknown(entry.rules, tuple(ModelRules.model_fields), f"{where} rules")
    try:
        ModelRules.model_validate({"shapes": (), **entry.rules})
    except ValidationError as error:
        raise BadModels(f"{where} rules: {said(error)}.") from error
    return Listed(name, entry, where, folder)


def _tables(value: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else ()


def _check_backend(entry: Entry, where: str) -> None:
    plain = Entry()
    idle = [key for key in DIFFUSERS_ONLY if getattr(entry, key) != getattr(plain, key)]
    if idle and entry.backend != "diffusers":
        raise BadModels(f"{where}: for backend diffusers alone, not for {entry.backend}: {', '.join(idle)}.")
    if entry.max_workers is not None and entry.max_workers < entry.min_workers:
        raise BadModels(f"{where}: max_workers is {entry.max_workers}, fewer than min_workers, {entry.min_workers}.")
    if entry.revision and not entry.hub:
        raise BadModels(f'{where}: revision is of a hub\'s model; name it too, as hub = "owner/name".')


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise BadModels(f"{where}: {', '.join(unknown)} is not known here; known are: {', '.join(known)}.")


def _keep_slugs_apart(listed: Iterable[Listed], file: Path) -> None:
    """Two names with one slug would share their topics."""
    by_slug: dict[str, Listed] = {}
    for each in listed:
        other = by_slug.setdefault(each.slug, each)
        if other is not each:
            raise BadModels(f"{file}: {other.name!r} and {each.name!r} are too alike; rename one ({each.slug}).")
