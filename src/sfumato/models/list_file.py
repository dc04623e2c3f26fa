"""The file models.toml, changed by a command: one change at a time, whole or not at all, into a list that is right."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sfumato.models.entry import parsed
from sfumato.models.model import BUNDLED, BadModels, BrokenModel, CannotChange, Model
from sfumato.models.registry import Registry
from sfumato.models.toml_text import tables, with_path, with_table, without_table

__all__ = ["Added", "add", "check_free", "move", "remove", "tables_of"]


READABLE: Final = 0o644
"""A temporary file is its maker's alone; a new list is for whoever runs the service."""


class Added(NamedTuple):
    """The model that was added; `kept_bundled` says that the bundled one was written down with it, so that it stays."""

    model: Model
    kept_bundled: bool


def tables_of(file: Path) -> Mapping[str, Any]:
    """The [models.NAME] tables in `file`; none when there is no such file.

    Raises:
        CannotChange: it is no models.toml.
    """
    return _tables(_text(file), file)


def check_free(file: Path, name: str) -> None:
    """Look whether a model could get this name, before anything is done for it.

    Raises:
        CannotChange: it is taken, too like another, or no name; or the file is at fault.
    """
    _grown(_text(file), file, name, {"backend": "simulated"})


def add(file: Path, name: str, values: Mapping[str, str]) -> Added:
    """Write [models.NAME] with `values` into `file`, which is made if there is none.

    Where the list was empty the bundled model was served; it is written down too, so that it goes on.

    Raises:
        CannotChange: the list would not be right; the message says why.
    """
    with _locked(file):
        text = _text(file)
        fresh = _grown(text, file, name, values)
        model = _served(fresh, file, name)
        _replace(file, fresh)
    return Added(model, kept_bundled=not _tables(text, file) and name != BUNDLED)


def move(file: Path, name: str, path: str) -> Model:
    """Let [models.NAME] in `file` name another folder.

    Raises:
        CannotChange: as in `add`.
    """
    with _locked(file):
        text = _text(file)
        if name not in _tables(text, file):
            raise CannotChange(f"{file} has no [models.{name}] any more.")
        with _naming(file):
            fresh = with_path(text, name, path)
        model = _served(fresh, file, name)
        if fresh != text:
            _replace(file, fresh)
    return model


def remove(file: Path, name: str) -> tuple[str, ...]:
    """Take [models.NAME] out of `file`; gives the names that are left in it.

    Raises:
        CannotChange: there is none, or the list would not be right; the message says why.
    """
    if not file.exists():
        raise CannotChange(f"there is no {file}, so no model can be removed from it.")
    with _locked(file):
        text = _text(file)
        known = _tables(text, file)
        if name not in known:
            raise CannotChange(f"{file} has no [models.{name}]; it has: {', '.join(known) or 'none'}.")
        with _naming(file):
            fresh = without_table(text, name)
        try:
            left = parsed(fresh, file)
        except BadModels as error:
            raise CannotChange(f"{error.detail} Nothing was changed; mend that first.") from error
        _replace(file, fresh)
    return tuple(listed.name for listed in left)


def _grown(text: str, file: Path, name: str, values: Mapping[str, str]) -> str:
    """`text` with one model more, and the bundled one if that was served for want of any."""
    known = _tables(text, file)
    if name in known:
        raise CannotChange(f"{file} has {name!r} already; remove it first: sfumato models remove {name!r}")
    with _naming(file):
        first = text if known or name == BUNDLED else with_table(text, BUNDLED, {})
        fresh = with_table(first, name, values)
    try:
        parsed(fresh, file)
    except BadModels as error:
        raise CannotChange(f"{error.detail} Nothing was changed.") from error
    return fresh


def _served(text: str, file: Path, name: str) -> Model:
    """The model of this name in a list that is right."""
    try:
        return Registry.of(text, file).get(name)
    except (BadModels, BrokenModel) as error:
        raise CannotChange(f"{error.detail} Nothing was changed.") from error


def _tables(text: str, file: Path) -> Mapping[str, Any]:
    with _naming(file):
        return tables(text)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except CannotChange as error:
        raise CannotChange(f"{file}: {error.detail}") from error


def _text(file: Path) -> str:
    if file.suffix != ".toml":
        raise CannotChange(f"{file} is a plain list of names, which you edit yourself; only a models.toml has folders.")
    try:
        # Bytes, for the ends of lines stay what they are.
        return file.read_bytes().decode() if file.exists() else ""
    except UnicodeDecodeError as error:
        raise CannotChange(f"{file} is no UTF-8 text: {error}.") from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One change at a time, by whatever process; the lock is a file beside it, which stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(file: Path, text: str) -> None:
    """Let `file` hold `text`: who reads it, even after a crash, finds the old or the new, never a part."""
    target = file.resolve()  # of a link, the link stays
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, fresh)
        else:
            fresh.chmod(READABLE)
        fresh.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            fresh.unlink()
        raise
