"""Which models this service has, read from models.toml or a plain list of names (docs/models.md).

A fault in the list itself spoils the whole list; a fault in what a model's folder holds leaves just that model out.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from sfumato.core.errors import UnknownModel
from sfumato.core.params import ModelRules
from sfumato.core.prediction import version_id
from sfumato.models.entry import Entry, Listed, parsed, said
from sfumato.models.folder import default_rules
from sfumato.models.model import BUNDLED, FOLDER, BadModels, BrokenModel, Lora, Model, Scaling

__all__ = ["BUNDLED", "FOLDER", "BadModels", "BrokenModel", "Lora", "Model", "Registry", "Scaling"]

log = logging.getLogger(__name__)

SLOTS_PER_ROW: Final = 4
"""With photos of 5 to 9 shapes a worker that holds four times what a call takes reaches 0.9 of its best throughput."""
LOOKED_AT: Final = (
    ".",
    "sfumato.json",
    "model_index.json",
    "unet/config.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
)
"""What a model's rules are read from: when one of them changes, a model that was left out is tried again."""

Stamp = tuple[int, int, int]


class _Unfit(Exception):
    """What a model's folder holds can't be served; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Broken:
    """A model left out, why, and the stamps of its files when they were looked at."""

    listed: Listed
    trouble: str
    stamps: tuple[Stamp | None, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The list as it was read: the models that can be served, and those that can't, by name in the list's order."""

    names: tuple[str, ...]
    models: Mapping[str, Model]
    broken: Mapping[str, _Broken] = field(default_factory=dict)


class _NoneLeft(BadModels):
    """Every model of the list is left out."""

    def __init__(self, broken: Sequence[_Broken]) -> None:
        super().__init__(" ".join(f"{each.listed.where}: {each.trouble}" for each in broken))
        self.broken = broken


class Registry:
    """The models by name, in the order of the file; without a file, or with none in it, the bundled model alone."""

    def __init__(self, reading: _Reading, file: Path | None, stamp: Stamp | None) -> None:
        self._reading, self._file, self._stamp = reading, file, stamp
        self._hopeless: Sequence[_Broken] = ()

    @classmethod
    def load(cls, file: Path | None, last: Path | None = None) -> Self:
        """Read `file`: models.toml, or with any other ending a plain list of names. A file that is not there may come.

        While `file` is wrong, `last` stands in for it if there is one: what `keep` wrote when it was right. Models
        whose folders are at fault are left out, and logged.

        Raises:
            BadModels: it is not right, or no model in it can be served; the message says where and why.
        """
        stamp = _stamp(file)
        try:
            registry = cls(_read(file), file, stamp)
        except BadModels as error:
            if file is None or last is None or not last.exists():
                raise
            log.error("%s The models stay as they were.", error.detail)
            registry = cls(_reading(last.read_text("utf-8"), file), file, stamp)
        _log_broken(registry._reading)
        return registry

    @classmethod
    def read(cls, file: Path) -> Self:
        """As `load`, without a word in the log.

        Raises:
            BadModels: as in `load`.
        """
        stamp = _stamp(file)
        return cls(_read(file), file, stamp)

    @classmethod
    def of(cls, text: str, file: Path) -> Self:
        """The models of a list that is `text` and would stand in `file`; nothing is logged.

        Raises:
            BadModels: as in `load`.
        """
        return cls(_reading(text, file), file, None)

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
            BrokenModel: it is listed, but its folder can't be served; the error says why.
        """
        try:
            return self._reading.models[name]
        except KeyError:
            if name in self.troubles:
                raise BrokenModel(name, self.troubles[name]) from None
            raise UnknownModel(name, self.names()) from None

    def names(self) -> tuple[str, ...]:
        """The names of all that can be served, in order."""
        return tuple(self._reading.models)

    def version_of(self, name: str) -> str:
        """What stands for the model of this name as it is listed now; of one that is not, for the name alone."""
        model = self._reading.models.get(name)
        return version_id(name, model.hub, model.revision) if model else version_id(name)

    @property
    def troubles(self) -> Mapping[str, str]:
        """The models that are listed but left out: name → what is wrong with the folder, and what to do."""
        return MappingProxyType({name: broken.trouble for name, broken in self._reading.broken.items()})

    def __iter__(self) -> Iterator[Model]:
        return iter(tuple(self._reading.models.values()))

    def refresh(self) -> bool:
        """Read the file again if it changed, and try again what was left out; whether the models changed.

        A broken edit is logged and changes nothing.
        """
        stamp = _stamp(self._file)
        before = self._reading
        if stamp is None or (stamp == self._stamp and not any(map(_touched, self._hopeless))):
            self._reading = _tried_again(before)
            return self._reading.models != before.models
        self._stamp, self._hopeless = stamp, ()
        try:
            self._reading = _read(self._file)
        except BadModels as error:
            self._hopeless = error.broken if isinstance(error, _NoneLeft) else ()
            log.error("%s The models stay as they were.", error.detail)
            return False
        except Exception:
            log.exception("%s: can't be read. The models stay as they were.", self._file)
            return False
        _log_broken(self._reading)
        return self._reading.models != before.models


def _stamp(file: Path | None) -> Stamp | None:
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None


def _stamps(listed: Listed) -> tuple[Stamp | None, ...]:
    folder, entry = listed.folder / listed.entry.path, listed.entry
    files = [*(folder / name for name in LOOKED_AT), *(listed.folder / lora.path for lora in entry.loras)]
    return tuple(_stamp(file) for file in files)


def _touched(broken: _Broken) -> bool:
    return _stamps(broken.listed) != broken.stamps


def _read(file: Path | None) -> _Reading:
    if file is None or not file.exists():
        return _bundled()
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModels(f"{file}: can't be read: {error}.") from error
    return _reading(text, file)


def _bundled() -> _Reading:
    model = _model(Listed(BUNDLED, Entry(), "the bundled model", Path()))
    return _Reading((BUNDLED,), {BUNDLED: model})


def _reading(text: str, file: Path) -> _Reading:
    models: dict[str, Model] = {}
    broken: dict[str, _Broken] = {}
    everything = parsed(text, file)
    for listed in everything:
        stamps = _stamps(listed)
        try:
            models[listed.name] = _model(listed)
        except _Unfit as error:
            broken[listed.name] = _Broken(listed, str(error), stamps)
    if broken and not models:
        raise _NoneLeft(tuple(broken.values()))
    return _Reading(tuple(listed.name for listed in everything), models, broken) if models else _bundled()


def _tried_again(reading: _Reading) -> _Reading:
    """`reading`, with what was left out looked at again where its files changed."""
    models, broken = dict(reading.models), dict(reading.broken)
    for name, before in reading.broken.items():
        if not _touched(before):
            continue
        stamps = _stamps(before.listed)
        try:
            models[name] = _model(before.listed)
        except (_Unfit, BadModels) as error:
            broken[name] = _Broken(before.listed, str(error), stamps)
            if str(error) != before.trouble:
                _log_left_out(broken[name])
        else:
            del broken[name]
            log.info("model %s can be served again", name)
    return _Reading(reading.names, {name: models[name] for name in reading.names if name in models}, broken)


def _log_broken(reading: _Reading) -> None:
    for broken in reading.broken.values():
        _log_left_out(broken)


def _log_left_out(broken: _Broken) -> None:
    log.error("%s: %s The model is left out until then.", broken.listed.where, broken.trouble)


def _model(listed: Listed) -> Model:
    """The model that an entry and its folder make.

    Raises:
        BadModels: what the entry says does not go with its folder.
        _Unfit: the folder is at fault.
    """
    entry, path = listed.entry, listed.folder / listed.entry.path
    try:
        if not path.is_dir():
            raise _Unfit(f"path {str(path)!r} is no folder. {_way_back(listed)}")
        published = _published(path, entry.backend)
        words = {} if entry.backend == "simulated" else _published_words(published)
        loras = tuple(_lora(listed.folder / lora.path, lora.weight) for lora in entry.loras)
    except OSError as error:
        raise _Unfit(f"{path} can't be read: {error}.") from error
    return Model(
        name=listed.name,
        slug=listed.slug,
        backend=entry.backend,
        path=path,
        rules=_rules(published.get("rules", {}), entry.rules, listed.where, path),
        max_backlog=entry.max_backlog,
        batch=entry.batch,
        slots=entry.slots or _published_slots(published, path) or SLOTS_PER_ROW * entry.batch,
        summary=entry.summary or str(published.get("summary", "")),
        device=entry.device,
        dtype=entry.dtype,
        hub=entry.hub,
        revision=entry.revision,
        loras=loras,
        output_filter=entry.output_filter,
        attention_slicing=entry.attention_slicing,
        vae_tiling=entry.vae_tiling,
        cuda_graphs=entry.cuda_graphs,
        scaling=Scaling(entry.min_workers, entry.max_workers, entry.objective_s, entry.weight),
        words=frozenset(word for known in words.values() for word in known),
        suggestions=_suggestions(published, words),
    )


def _published_words(published: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The words of every style and mood that the folder says its model knows; none if it says nothing of words."""
    groups = published.get("words", {})
    lists = groups.items() if isinstance(groups, dict) else ()
    return {str(name): [str(word).lower() for word in words] for name, words in lists if isinstance(words, list)}


def _suggestions(published: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """The first word of each style and mood that the folder recommends; not of those that it merely knows."""
    kinds = {kind: published.get(kind) for kind in ("styles", "moods")}
    named = {kind: map(str, names) for kind, names in kinds.items() if isinstance(names, list)}
    found = {kind: [words[name][0] for name in names if words.get(name)] for kind, names in named.items()}
    return {kind: some for kind, some in found.items() if some}


def _way_back(listed: Listed) -> str:
    hub, revision = listed.entry.hub, listed.entry.revision
    if not hub:
        return "Put it there, or name the right one."
    pinned = f" --revision {revision}" if revision else ""
    return f"Fetch it again: sfumato models add {_quoted(listed.name)} {hub}{pinned}"


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name


def _lora(path: Path, weight: float) -> Lora:
    if not path.is_file():
        raise _Unfit(f"loras: {path} is no file. Put it there, or take it out of loras.")
    return Lora(path, weight)


def _published(path: Path, backend: str) -> dict[str, Any]:
    """What a model's folder says of itself. A simulated one without a word takes the bundled model's rules."""
    card = _card(path / "sfumato.json")
    if backend == "simulated" and not card:
        return {"rules": _card(FOLDER / "sfumato.json")["rules"]}
    if backend != "diffusers":
        return card
    try:
        return card | {"rules": default_rules(path) | card.get("rules", {})}
    except ValueError as error:
        raise _Unfit(f"{said(error)}.") from error
    except Exception as error:  # a stranger's files; whatever they hold, the other models go on
        raise _Unfit(f"the configuration in {path} is no diffusers model's: {error!r}.") from error


def _card(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise _Unfit(f"{file} can't be read: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("rules", {}), dict):
        raise _Unfit(f"{file} must be an object, and its rules too.")
    return content


def _published_slots(published: Mapping[str, Any], path: Path) -> int | None:
    slots = published.get("slots")
    if slots is not None and not (isinstance(slots, int) and slots >= 1):
        raise _Unfit(f"slots in {path / 'sfumato.json'} is {slots!r}; it must be a whole number of at least 1.")
    return slots


def _rules(published: Mapping[str, Any], given: Mapping[str, Any], where: str, path: Path) -> ModelRules:
    try:
        return _checked({**published, **given})
    except ValueError as error:
        # Whose fault is it? The folder's, unless all is well without what the list says, or only the list says it.
        if ("shapes" in given and not published) or _sound(published):
            raise BadModels(f"{where} rules: {said(error)}.") from error
        raise _Unfit(f"the rules of {path}: {said(error)}. See docs/models.md for what they must say.") from error


def _sound(rules: Mapping[str, Any]) -> bool:
    try:
        _checked(rules)
    except ValueError:
        return False
    return True


def _checked(rules: Mapping[str, Any]) -> ModelRules:
    return ModelRules.model_validate({"shapes": (), **rules}).check()
