"""Fetches a diffusers model from the hub, by huggingface_hub: what is needed to serve it, at one exact commit."""

import errno
import glob
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sfumato.models.kind import INDEX, index_of, missing_shards, needed_files
from sfumato.models.model import CannotChange

__all__ = ["Fetched", "fetch", "is_hub_name"]

HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
GIB: Final = 1024**3


class Fetched(NamedTuple):
    """The folder a model was fetched into, and the commit (40 hex digits) that it holds."""

    path: Path
    revision: str


def is_hub_name(text: str) -> bool:
    """Whether `text` has the form owner/name."""
    return HUB_NAME.fullmatch(text) is not None


def fetch(hub: str, revision: str, cache: Path | None) -> Fetched:
    """Have the model `hub` (owner/name) at `revision` (a branch, tag or commit, "" for the newest) in `cache`.

    `cache` None is huggingface_hub's own folder. What is there already is not fetched again; where HF_HUB_OFFLINE is
    set nothing is fetched at all. A progress bar goes to standard error.

    Raises:
        CannotChange: it can't be had; the message says why and what to do.
    """
    try:
        import huggingface_hub as library
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise CannotChange("fetching needs huggingface_hub: pip install 'sfumato[diffusers]'.") from error
    place = Path(cache or constants.HF_HUB_CACHE)
    with _plain_words(hub, revision, place):
        online = True
        try:
            # Asked once, where a download that finds no network tries for half a minute.
            library.HfApi().model_info(hub, revision=revision or None)
        except errors.OfflineModeIsEnabled:
            online = False
        index = Path(library.hf_hub_download(hub, INDEX, revision=revision or None, cache_dir=place))
        folder, commit = index.parent, index.parent.name
        if not online:
            _check_whole(folder, hub)
            return Fetched(folder, commit)
        info = library.HfApi().model_info(hub, revision=commit, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        needed = needed_files(sizes, index_of(index), hub)
        _check_room(sum(sizes[file] for file in needed if not (folder / file).exists()), hub, place)
        patterns = [glob.escape(file) for file in needed]
        library.snapshot_download(hub, revision=commit, cache_dir=place, allow_patterns=patterns)
    return Fetched(folder, commit)


def _check_whole(folder: Path, hub: str) -> None:
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*")]
    missing = missing_shards(folder, needed_files(files, index_of(folder / INDEX), hub))
    if missing:
        raise CannotChange(f"the cache lacks {missing[0]} of {hub}; take HF_HUB_OFFLINE away once to fetch it.")


def _check_room(needed_bytes: int, hub: str, place: Path) -> None:
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise CannotChange(
            f"{hub} needs {needed_bytes / GIB:.1f} GiB more, the disk of {place} has {free / GIB:.1f} GiB left. "
            "Free some, or name a folder on another disk in SFUMATO_MODELS_CACHE."
        )


@contextmanager
def _plain_words(hub: str, revision: str, place: Path) -> Iterator[None]:
    try:
        yield
    except CannotChange:
        raise
    except Exception as error:  # httpx's, requests' or the operating system's, as the library's version has it
        raise CannotChange(explained(error, hub, revision, place)) from error


def explained(error: BaseException, hub: str, revision: str, place: Path) -> str:  # noqa: PLR0911 - a table of cases
    """Why the model can't be had, and what to do."""
    from huggingface_hub import constants, errors

    match error:
        case errors.GatedRepoError():
            return (
                f"{hub} is gated: accept its terms on its page at the hub, then give a token of that account that may "
                "read it, by `hf auth login` or in HF_TOKEN."
            )
        case errors.RepositoryNotFoundError():
            return (
                f"there is no folder {hub} here and no model {hub} at the hub, or it is private. Check the name; for a "
                "private one give a token that may read it, by `hf auth login` or in HF_TOKEN."
            )
        case errors.RevisionNotFoundError():
            return (
                f"{hub} has no revision {revision or 'main'} (any more). Name a branch, tag or commit that it has with "
                "--revision, or leave it out for the newest."
            )
        case errors.LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            asked = f" at revision {revision}" if revision else ""
            return f"{hub}{asked} is not in {place}, and HF_HUB_OFFLINE is set; take that away once to fetch it."
        case errors.LocalEntryNotFoundError() if isinstance(error.__cause__, Exception):
            return explained(error.__cause__, hub, revision, place)
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return (
                f"{hub} has no {INDEX}, so it is no diffusers model; name one that is, or convert it to a folder first."
            )
        case errors.HfHubHTTPError():
            return f"the hub answered {error.response.status_code} when asked for {hub}; try again later."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"the disk of {place} is full. Free some, or name another folder in SFUMATO_MODELS_CACHE."
        case OSError(errno=errno.EACCES | errno.EROFS | errno.EPERM | errno.ENOTDIR):
            return f"{place} can't be written ({error.strerror}); name another folder in SFUMATO_MODELS_CACHE."
    return (
        f"{hub} can't be fetched ({type(error).__name__}: {error}). Is there a network, or a "
        "proxy to name in HTTPS_PROXY? If it was fetched before, HF_HUB_OFFLINE=1 takes it from the cache; else fetch "
        "it on another machine, copy the folder here, and add that."
    )
