"""How a model is added by a command: from a folder, or fetched from the hub, into the list."""

import os
from pathlib import Path

from sfumato.models import list_file
from sfumato.models.hub import fetch, is_hub_name
from sfumato.models.kind import backend_of
from sfumato.models.list_file import Added
from sfumato.models.model import CannotChange

__all__ = ["add"]


def add(file: Path, name: str, source: str, *, revision: str, backend: str, cache: Path | None) -> Added:
    """Add the model `source`, a folder or a hub's owner/name, to the list `file` as `name`.

    `revision` and `cache` are for models of the hub, see `fetch`; `backend` "" is told by the folder's files. A model
    that was fetched and whose folder is gone is fetched again, and keeps what the list says of it.

    Raises:
        CannotChange: it can't be fetched or served, or the list can't take it; nothing was changed.
    """
    folder = Path(source).expanduser()
    try:
        source.encode()
    except UnicodeEncodeError:
        raise CannotChange(f"{source!r} is not UTF-8, which a list in TOML must be; rename the folder.") from None
    if not folder.is_dir() and is_hub_name(source):
        return _from_hub(file.absolute(), name, source, revision, backend, cache)
    if not folder.is_dir():
        raise CannotChange(f"{source} is no folder, and no name of a model at the hub, which would be owner/name.")
    if revision:
        raise CannotChange(f"{source} is a folder here; --revision is for models of the hub.")
    list_file.check_free(file.absolute(), name)
    values = {"backend": backend or backend_of(folder), "path": _as_written(folder, file.absolute().parent)}
    return list_file.add(file.absolute(), name, values)


def _from_hub(file: Path, name: str, hub: str, revision: str, backend: str, cache: Path | None) -> Added:
    if backend not in ("", "diffusers"):
        raise CannotChange(f"models of the hub are for backend diffusers; fetch {hub} yourself and add its folder.")
    known = list_file.tables_of(file).get(name)
    lost = isinstance(known, dict) and known.get("hub") == hub and not (file.parent / known.get("path", "")).is_dir()
    if known is None or not lost:
        list_file.check_free(file, name)
    elif revision not in ("", known.get("revision", "")):
        raise CannotChange(f"{file} has {name!r} at another revision; remove it first: sfumato models remove {name!r}")
    fetched = fetch(hub, revision or (known.get("revision", "") if lost and known else ""), cache)
    path = str(fetched.path.absolute())
    if lost:
        return Added(list_file.move(file, name, path), kept_bundled=False)
    values = {"backend": "diffusers", "path": path, "hub": hub, "revision": fetched.revision}
    return list_file.add(file, name, values)


def _as_written(folder: Path, beside: Path) -> str:
    """An absolute folder as it was given, another one as the list must name it: relative to where that lies."""
    if folder.is_absolute():
        return str(folder)
    path = os.path.relpath(folder.absolute(), beside)
    # Where the list lies behind a link, the way up from it leads elsewhere.
    return path if (beside / path).resolve() == folder.resolve() else str(folder.absolute())
