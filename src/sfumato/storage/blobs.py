"""Objects as files in a folder: each is whole or not there, and survives a power cut once `put` has returned.

An object is written to a temporary file of the same file system, made durable, and only then linked under its key, so
no reader and no crash ever sees a part of one. A key's file is never changed afterwards, only replaced by another;
therefore its inode, time and size are its etag.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, ParamSpec, TypeVar

from sfumato.core.errors import AlreadyExists, NotFound, TransientError, UnusableStore
from sfumato.core.ports import BlobHead

__all__ = ["FolderBlobs", "checked"]

P = ParamSpec("P")
R = TypeVar("R")

LEFTOVER_AGE_S: Final = 3_600.0
"""A temporary file this old is left over by a crash; a younger one may be another process's, being written."""

LISTED_AT_ONCE: Final = 500
SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"
KEY: Final = re.compile(rf"{SEGMENT}(/{SEGMENT}){{0,7}}")
TEMPORARY: Final = ".tmp"
"""No key begins with a dot, so none meets this folder."""


class FolderBlobs:
    """`Blobs`, `BlobLinks` (it has none) and `BlobSweep` of core.ports, for processes of one host.

    Raises:
        UnusableStore: `folder` can't be made, written to, or can't hold hard links.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / TEMPORARY
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._check_links()
            self._remove_leftovers()
        except OSError as error:
            detail = (
                f"{folder} can't be used: {error.strerror}. It must be a folder that can be written to and linked in."
            )
            raise UnusableStore(detail) from error

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        """Store `data` whole or not at all; durable when this returns; gives the etag. Raises AlreadyExists."""
        return await self._in_thread(self._put, key, data, create_only)

    async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """The object, or its first `limit_bytes`. Raises NotFound."""
        return await self._in_thread(self._get, key, limit_bytes)

    async def head(self, key: str) -> BlobHead:
        """Raises NotFound when no object has this key."""
        return await self._in_thread(self._head, key)

    async def copy(self, source: str, target: str, *, if_etag: str) -> None:
        """Copy inside the store. Raises NotFound when `source` is gone or no longer has `if_etag`."""
        await self._in_thread(self._copy, source, target, if_etag)

    async def delete(self, key: str) -> None:
        """Remove it, and the folders it leaves empty; without effect when it is not there."""
        await self._in_thread(self._delete, key)

    async def get_link(self, key: str, lifetime_s: float) -> str | None:
        """None: a folder serves nobody, the gateway does."""
        del key, lifetime_s
        return None

    async def put_link(self, key: str, lifetime_s: float) -> str | None:
        """None: uploads go to the gateway."""
        del key, lifetime_s
        return None

    async def old(self, prefix: str, before: float) -> AsyncIterator[BlobHead]:
        """Objects whose key starts with `prefix`, last written before `before` (Unix seconds)."""
        found = self._walk(prefix)
        while heads := await self._in_thread(_some, found):
            for head in heads:
                if head.modified_at < before:
                    yield head

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except OSError as error:
            raise TransientError(f"{self._folder}: {error.strerror}. {_advice(error)}") from error

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)

    def _put(self, key: str, data: bytes, create_only: bool) -> str:
        path = self._path(key)
        if create_only and path.exists():
            self._refuse(path)
        with self._written(data) as (temporary, etag):
            self._place(temporary, path, create_only)
        return etag

    @contextlib.contextmanager
    def _written(self, data: bytes) -> Iterator[tuple[Path, str]]:
        """A durable temporary file with `data` and its etag; what is left of it is removed."""
        temporary = self._temporary / secrets.token_hex(12)
        try:
            with temporary.open("xb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file.fileno(), rest) :]
                os.fsync(file.fileno())
                etag = _etag(os.fstat(file.fileno()))
            yield temporary, etag
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, temporary: Path, path: Path, create_only: bool) -> None:
        while not self._placed(temporary, path, create_only):
            # The folder is new, or a delete beside us has just removed it because it was empty.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                path.parent.mkdir(parents=True, exist_ok=True)
        self._sync_folders(path)

    def _placed(self, temporary: Path, path: Path, create_only: bool) -> bool:
        try:
            if create_only:
                os.link(temporary, path)
            else:
                temporary.replace(path)
        except FileExistsError:
            self._refuse(path)
        except FileNotFoundError:
            # Not for want of the folder: somebody took the whole store away.
            if not temporary.exists():
                raise
            return False
        return True

    def _sync_folders(self, path: Path) -> None:
        # Every level, even of folders that were there: who made one may not have come to its own sync yet.
        for folder in itertools.takewhile(lambda above: above != self._folder.parent, path.parents):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _refuse(self, path: Path) -> NoReturn:
        # The caller will build on what is there, so it must be as durable as what `put` stores itself.
        self._sync_folders(path)
        raise AlreadyExists(f"{path.relative_to(self._folder)} is stored already.")

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"no object has the key {key!r}.") from error
        with file:
            yield file

    def _get(self, key: str, limit_bytes: int | None) -> bytes:
        with self._opened(key) as file:
            return file.read(-1 if limit_bytes is None else limit_bytes)

    def _head(self, key: str) -> BlobHead:
        with self._opened(key) as file:
            return _head_of(key, os.fstat(file.fileno()))

    def _copy(self, source: str, target: str, if_etag: str) -> None:
        path = self._path(target)
        with self._opened(source) as file:
            if _etag(os.fstat(file.fileno())) != if_etag:
                raise NotFound(f"the object {source!r} is no longer the one with etag {if_etag}.")
            data = file.read()
        with self._written(data) as (temporary, _):
            self._place(temporary, path, create_only=False)

    def _delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        # The first level stays: inputs/, outputs/ and the others are few and wanted again at once.
        for folder in itertools.takewhile(lambda above: above.parent != self._folder, path.parents):
            try:
                folder.rmdir()
            except OSError:
                break

    def _walk(self, prefix: str) -> Iterator[BlobHead]:
        for folder, below, names in os.walk(self._folder / prefix.rpartition("/")[0]):
            below[:] = [name for name in below if name != TEMPORARY]
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._folder).as_posix()
                # Whoever else deletes may be faster.
                with contextlib.suppress(FileNotFoundError):
                    if key.startswith(prefix):
                        yield _head_of(key, path.stat())

    def _check_links(self) -> None:
        with self._written(b"") as (temporary, _):
            second = temporary.with_suffix(".link")
            os.link(temporary, second)
            second.unlink()

    def _remove_leftovers(self) -> None:
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - LEFTOVER_AGE_S:
                    path.unlink()


def checked(key: str) -> str:
    """`key`, if an object can have it; the same in every store, so that none holds what another can't.

    Raises:
        NotFound: it can't.
    """
    if not KEY.fullmatch(key):
        raise NotFound(
            f"no object can have the key {key[:200]!r}; a key is names of letters, digits and ._- with / between."
        )
    return key


def _some(heads: Iterator[BlobHead]) -> list[BlobHead]:
    return list(itertools.islice(heads, LISTED_AT_ONCE))


def _etag(stat: os.stat_result) -> str:
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _head_of(key: str, stat: os.stat_result) -> BlobHead:
    return BlobHead(key, stat.st_size, _etag(stat), stat.st_mtime)


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space on its disk, then try again."
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "Make the folder writable, then try again."
    return "Check the disk and the folder, then try again."
