"""One SQLite file as the processes of a host share it: group commit in a writer thread, reads where they are asked.

All writes that wait become one transaction, so an fsync is shared by everyone who waits for it. A write is a function
of the connection; it checks before it changes anything, because what it refuses (a SfumatoError) rolls nothing back.

Reads run on the event loop: in WAL mode they wait for no writer, most take 20 µs, and a hop to another thread and back
takes 150. A submit makes about ten of them on its way to the result; in a reader thread that way took a fifth longer.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from sfumato.core.errors import SfumatoError, TransientError, UnusableStore
from sfumato.sqlite.wakeup import Ringer

__all__ = ["SqliteFile"]

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP_LIMIT: Final = 1_000
"""Most writes in one transaction, so that the first of them does not wait for ever."""

ANSWER_S: Final = 10.0
"""Longest a write may take; a process stopped in the middle of a transaction holds up all the others."""

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space.",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only; make it writable for this user.",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; see that the folder exists and is writable for this user.",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop the service and restore it, or move it away to start empty.",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file; stop the service and move it away to start empty.",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; stop that program.",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; look into the system's log.",
}


def explain(file: Path, error: Exception) -> str:
    """What went wrong with `file`, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return f"{file}: {_ADVICE.get(code, 'it could not be used.')} ({error})"


@dataclass(frozen=True, slots=True)
class _Write:
    run: Callable[[sqlite3.Connection], Any]
    rings: str
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"


class SqliteFile:
    """Opens `file`, runs `schema` (idempotent statements) on it, and starts its writer.

    Raises:
        UnusableStore: it can't be opened or written.
    """

    def __init__(self, file: Path, schema: str, wake_folder: Path) -> None:
        self._file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._turns = _Turns(file)
            with self._turns.taken():
                self._writing, self._reading = self._connect(), self._connect()
                self._writing.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            raise UnusableStore(explain(file, error)) from error
        self._reading.execute("PRAGMA query_only=ON")
        self._ringer = Ringer(wake_folder)
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_groups, name=f"write-{file.stem}", daemon=True)
        self._closed = False
        self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={64 * 1024 * 1024}")
        return connection

    async def write(self, run: Callable[[sqlite3.Connection], T], rings: str = "") -> T:
        """Run a write in the next transaction and give its result; durable when this returns.

        `rings` is the topic whose listeners are woken after the commit.

        Raises:
            TransientError: the file could not be written, or not in time; the detail says what to do.
        """
        loop = asyncio.get_running_loop()
        write = _Write(run, rings, loop, loop.create_future())
        self._refuse_closed()
        self._waiting.put(write)
        return await self._in_time(write.answer)

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short read beside the writes and give its result.

        Raises:
            TransientError: the file could not be read; the detail says what to do.
        """
        self._refuse_closed()
        try:
            return look(self._reading)
        except sqlite3.Error as error:
            raise TransientError(explain(self._file, error)) from error

    def _refuse_closed(self) -> None:
        if self._closed:
            raise TransientError(f"{self._file} was closed; this process is stopping.")

    async def _in_time(self, answer: "asyncio.Future[T]") -> T:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError as error:
            why = f"{self._file}: no answer in {ANSWER_S:.0f} s; is the disk stuck, or another process of ours stopped?"
            raise TransientError(why) from error

    def _write_groups(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first, *self._others()]
            _answer(group, self._commit(group))
            for topic in {write.rings for write in group} - {""}:
                self._ring(topic)

    def _ring(self, topic: str) -> None:
        try:
            self._ringer.ring(topic)
        except Exception:
            # Who waits polls as well; this thread must go on whatever is wrong with a wake-up.
            log.exception("nobody could be woken up for %s", topic)

    def _others(self) -> Iterator[_Write]:
        for _ in range(GROUP_LIMIT - 1):
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return
            if write is None:
                self._waiting.put(None)
                return
            yield write

    def _commit(self, group: Sequence[_Write]) -> list[Any]:
        """One result or exception for each write; a file that fails fails them all."""
        try:
            with self._turns.taken():
                self._writing.execute("BEGIN IMMEDIATE")
                results = [_result(write, self._writing) for write in group]
                self._writing.execute("COMMIT")
                return results
        except Exception as error:  # whatever it is, the thread that everyone waits for must go on
            with contextlib.suppress(sqlite3.Error):
                self._writing.rollback()
            log.warning("nothing was written: %s", explain(self._file, error))
            return [TransientError(explain(self._file, error)) for _ in group]

    def close(self) -> None:
        """Commit what waits, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._writer.join(ANSWER_S)
        self._ringer.close()
        self._writing.close()
        self._reading.close()
        self._turns.close()


class _Turns:
    """Lets the processes write in turn, woken by the kernel; SQLite's own waiting sleeps up to 100 ms and is unfair.

    Two locks make a turnstile: whoever waits for the second holds the first, so the one that just wrote can't go again
    before it. Locks of the dead are released by the kernel.
    """

    def __init__(self, file: Path) -> None:
        names = (file.with_name(f"{file.name}.{part}") for part in ("turn", "lock"))
        self._turnstile, self._lock = (os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for name in names)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turnstile)
        os.close(self._lock)


def _result(write: _Write, connection: sqlite3.Connection) -> Any:
    try:
        return write.run(connection)
    except SfumatoError as refused:
        return refused


def _answer(group: Sequence[_Write], results: Sequence[Any]) -> None:
    """Resolve the futures of each event loop in one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for write, result in zip(group, results, strict=True):
        by_loop.setdefault(write.loop, []).append((write.answer, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for answer, result in answers:
        if answer.done():
            continue
        if isinstance(result, SfumatoError):
            answer.set_exception(result)
        else:
            answer.set_result(result)
