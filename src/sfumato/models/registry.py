"""Which models this service has, read from models.toml or a plain list of names (docs/models.md)."""

import json
import logging
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError

from sfumato.core.errors import SfumatoError, UnknownModel
from sfumato.core.frozen import Frozen
from sfumato.core.job import model_slug
from sfumato.core.params import ModelRules
from sfumato.models.folder import default_rules

__all__ = ["BUNDLED", "BadModels", "Model", "Registry"]

BackendName = Literal["onnx", "diffusers", "simulated"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

log = logging.getLogger(__name__)

BUNDLED: Final = "restyle"
SLOTS_PER_ROW: Final = 4
"""With photos of 5 to 9 shapes a worker that holds four times what a call takes reaches 0.9 of its best throughput."""
FOLDER: Final = Path(__file__).parent / "bundled" / BUNDLED
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,79}")


class BadModels(SfumatoError):
    """The list of models can't be used; the message names the file and the place in it."""

    slug = "bad-models"
    title = "The list of models can't be used"


@dataclass(frozen=True, slots=True)
class Model:
    """One model that jobs can name.

    `slug` stands in topic and metric names; `batch` is how many rows a model call has at most; `slots` is how many jobs
    one worker holds at once, more than that because a call takes jobs of one shape only; above `max_backlog`
    waiting jobs new ones are answered 429; `device` and `dtype` are where and in which numbers its backend computes.
    """

    name: str
    slug: str
    backend: BackendName
    path: Path
    rules: ModelRules
    max_backlog: int
    batch: int
    slots: int
    summary: str
    device: Device = "auto"
    dtype: Dtype = "auto"


class _Entry(Frozen):
    """A [models.NAME] table as it may be written; without `path` it is the bundled model's files."""

    backend: BackendName = "onnx"
    path: Path = FOLDER
    summary: str = ""
    batch: int = Field(4, ge=1, le=64)
    slots: int | None = Field(None, ge=1, le=1024)
    max_backlog: int = Field(10_000, ge=1)
    device: Device = "auto"
    dtype: Dtype = "auto"
    rules: dict[str, Any] = Field(default_factory=dict)


class Registry:
    """The models by name, in the order of the file; without a file, or with none in it, the bundled model alone."""

    def __init__(self, models: Mapping[str, Model], file: Path | None, stamp: tuple[int, int] | None) -> None:
        self._models, self._file, self._stamp = models, file, stamp

    @classmethod
    def load(cls, file: Path | None, last: Path | None = None) -> Self:
        """Read `file`: models.toml, or with any other ending a plain list of names. A file that is not there may come.

        While `file` is wrong, `last` stands in for it if there is one: what `keep` wrote when it was right.

        Raises:
            BadModels: it is not right; the message says where and what may stand there.
        """
        stamp = _stamp(file)
        try:
            return cls(_read(file), file, stamp)
        except BadModels as error:
            if file is None or last is None or not last.exists():
                raise
            log.error("%s The models stay as they were.", error.detail)
            return cls(_parsed(last.read_text("utf-8"), file), file, stamp)

    def keep(self, last: Path) -> None:
        """Write down the list as it is now, for `load`; call it when `load` or `refresh` found it right."""
        if self._file is not None and self._file.exists():
            fresh = last.with_suffix(".new")
            fresh.write_bytes(self._file.read_bytes())
            fresh.replace(last)
        else:
            last.unlink(missing_ok=True)

    def get(self, name: str) -> Model:
        """The model of this name.

        Raises:
            UnknownModel: there is none; the error lists the known ones.
        """
        try:
            return self._models[name]
        except KeyError:
            raise UnknownModel(name, self.names()) from None

    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(self._models)

    def __iter__(self) -> Iterator[Model]:
        return iter(tuple(self._models.values()))

    def refresh(self) -> bool:
        """Read the file again if it changed; whether the models did. A broken edit is logged and changes nothing."""
        stamp = _stamp(self._file)
        if stamp is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            models = _read(self._file)
        except BadModels as error:
            log.error("%s The models stay as they were.", error.detail)
            return False
        except Exception:
            log.exception("%s: can't be read. The models stay as they were.", self._file)
            return False
        changed = models != self._models
        self._models = models
        return changed


def _stamp(file: Path | None) -> tuple[int, int] | None:
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None


def _read(file: Path | None) -> dict[str, Model]:
    if file is None or not file.exists():
        return _with_slugs_apart([_model(BUNDLED, {}, "the bundled model", Path())], "the bundled model")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModels(f"{file}: can't be read: {error}.") from error
    return _parsed(text, file)


def _parsed(text: str, file: Path) -> dict[str, Model]:
    models = _from_toml(text, file) if file.suffix == ".toml" else _from_names(text, file)
    return _with_slugs_apart(models, str(file)) if models else _read(None)


def _from_toml(text: str, file: Path) -> list[Model]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadModels(f"{file}: {error}.") from error
    _refuse_unknown(content, ("models",), str(file))
    tables = content.get("models", {})
    if not isinstance(tables, dict):
        raise BadModels(f"{file}: models must be tables, written as [models.NAME].")
    return [_model(name, table, f"{file}: [models.{name}]", file.parent) for name, table in tables.items()]


def _from_names(text: str, file: Path) -> list[Model]:
    models: dict[str, Model] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name in models:
            raise BadModels(f"{file}, line {number}: {name!r} stands here for the second time.")
        models[name] = _model(name, {}, f"{file}, line {number}", file.parent)
    return list(models.values())


def _model(name: str, table: Any, where: str, folder: Path) -> Model:
    if not _NAME.fullmatch(name):
        raise BadModels(f"{where}: a name has up to 80 letters, digits and ' ._:/-' and begins with the first two.")
    if not isinstance(table, dict):
        raise BadModels(f"{where}: must be a table of {', '.join(_Entry.model_fields)}.")
    _refuse_unknown(table, tuple(_Entry.model_fields), where)
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        raise BadModels(f"{where}: {_said(error)}.") from error
    if entry.backend != "diffusers" and (entry.device, entry.dtype) != ("auto", "auto"):
        raise BadModels(f"{where}: device and dtype are for backend diffusers; {entry.backend} has no choice of them.")
    path = folder / entry.path
    if not path.is_dir():
        raise BadModels(f"{where}: path {str(path)!r} is no folder.")
    published = _published(path, entry.backend, where)
    return Model(
        name=name,
        slug=model_slug(name),
        backend=entry.backend,
        path=path,
        rules=_rules(published.get("rules", {}), entry.rules, where),
        max_backlog=entry.max_backlog,
        batch=entry.batch,
        slots=entry.slots or _published_slots(published, where) or SLOTS_PER_ROW * entry.batch,
        summary=entry.summary or str(published.get("summary", "")),
        device=entry.device,
        dtype=entry.dtype,
    )


def _published(path: Path, backend: str, where: str) -> dict[str, Any]:
    """What a model's folder says of itself. A simulated one without a word takes the bundled model's rules."""
    card = _card(path / "sfumato.json", where)
    if backend == "simulated" and not card:
        return {"rules": _card(FOLDER / "sfumato.json", where)["rules"]}
    if backend != "diffusers":
        return card
    try:
        return card | {"rules": default_rules(path) | card.get("rules", {})}
    except ValueError as error:
        raise BadModels(f"{where}: {error}.") from error


def _card(file: Path, where: str) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadModels(f"{where}: {file} can't be read: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("rules", {}), dict):
        raise BadModels(f"{where}: {file} must be an object, and its rules too.")
    return content


def _published_slots(published: Mapping[str, Any], where: str) -> int | None:
    slots = published.get("slots")
    if slots is not None and not (isinstance(slots, int) and slots >= 1):
        raise BadModels(f"{where}: slots in its sfumato.json is {slots!r}; it must be a whole number of at least 1.")
    return slots


def _rules(published: Mapping[str, Any], given: Mapping[str, Any], where: str) -> ModelRules:
    known = tuple(ModelRules.model_fields)
    _refuse_unknown(given, known, f"{where} rules")
    try:
        return ModelRules.model_validate({"shapes": (), **published, **given}).check()
    except ValidationError as error:
        raise BadModels(f"{where} rules: {_said(error)}.") from error
    except ValueError as error:
        raise BadModels(f"{where} rules: {error}") from error


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise BadModels(f"{where}: {', '.join(unknown)} is not known here; known are: {', '.join(known)}.")


def _said(error: ValidationError) -> str:
    lines = ((".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors())
    return "; ".join(f"{place}: {message}" for place, message in lines)


def _with_slugs_apart(models: list[Model], where: str) -> dict[str, Model]:
    """By name. Two names with one slug would share their topics."""
    by_slug: dict[str, Model] = {}
    for model in models:
        other = by_slug.setdefault(model.slug, model)
        if other is not model:
            raise BadModels(f"{where}: {other.name!r} and {model.name!r} are too alike; rename one ({model.slug}).")
    return {model.name: model for model in models}
