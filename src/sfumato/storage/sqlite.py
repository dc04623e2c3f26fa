"""What SQLite does its own way: one file, one writer at a time, write-ahead logging."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, event, exc
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from sfumato.core.errors import TransientError, UnusableStore
from sfumato.storage.migrating import migrate, revision_of
from sfumato.storage.tables import REVISION

__all__ = ["SqliteDialect"]

BUSY_TIMEOUT_S: Final = 5.0
WRITE: Final = "sfumato_write"


class SqliteDialect:
    """The database in the file at `path`.

    Reads go on beside writes. Writes of one process wait for each other here, those of several processes in SQLite.
    With `look` it is only read, and neither it nor its folder is changed by that.
    """

    def __init__(self, path: Path, *, look: bool = False) -> None:
        self.name = str(path)
        self._path = path
        self._reading = _looking_engine(path) if look else _engine(path)
        self._writing = self._reading.execution_options(**{WRITE: True})
        self._turn = asyncio.Lock()

    async def prepare(self) -> None:
        """Upgrade it: who has one file and one service wants no step between."""
        await self.upgrade()

    async def upgrade(self) -> None:
        """Create or migrate the file; safe when several processes start at once.

        Raises:
            UnusableStore: it can't be opened, or was made by a newer version.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                await asyncio.to_thread(self._path.parent.mkdir, parents=True, exist_ok=True)
                return await self._migrated()
            except (exc.DBAPIError, OSError) as error:
                # Turning a fresh file to write-ahead logging does not wait for its turn as other writes do.
                if "locked" not in _cause(error) or time.monotonic() > deadline:
                    raise self._unusable(error) from error
            await asyncio.sleep(0.05)

    async def _migrated(self) -> None:
        if await self.revision() != REVISION:
            async with self._writing.begin() as connection:
                await connection.run_sync(migrate)

    def _unusable(self, error: Exception) -> UnusableStore:
        return UnusableStore(f"database {self.name} can't be opened: {_cause(error)}. {_advice(error)}")

    async def revision(self) -> str | None:
        """The migration it is at; None when nothing was made in it yet.

        Raises:
            UnusableStore: this is no SQLite file, a damaged one, or one that may not be read.
        """
        try:
            # What can't be opened at all is told here: the driver's thread would outlive the loop that asked it.
            await asyncio.to_thread(lambda: self._path.open("rb").close())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            async with self._reading.connect() as connection:
                return await connection.run_sync(revision_of)
        except exc.OperationalError:
            raise
        except exc.DatabaseError as error:
            raise self._unusable(error) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements; each sees the latest commit."""
        async with self._reading.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self, within_s: float) -> AsyncIterator[AsyncConnection]:
        """One transaction; how long it may wait for others is SQLite's busy timeout."""
        async with self._turn, self._writing.begin() as connection:
            yield connection

    def trouble(self, error: Exception) -> TransientError | None:
        """What an error of its driver means, when it may pass."""
        if isinstance(error, exc.OperationalError | exc.TimeoutError):
            return TransientError(f"database {self.name}: {_cause(error)}. {_advice(error)}")
        return None

    async def put(
        self, connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], update: Sequence[str] = ()
    ) -> None:
        """Insert rows; where one's key is taken it changes the columns `update` and no other."""
        insert = sqlite.insert(table)
        if update:
            changed = {name: insert.excluded[name] for name in update}
            statement = insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        else:
            statement = insert.on_conflict_do_nothing()
        await connection.execute(statement, rows)

    def among(self, column: Column[str], values: Iterable[str]) -> ColumnElement[bool]:
        """Whether the column's value is one of these."""
        return column.in_(values)

    async def take_turn(self, connection: AsyncConnection, *, alone: bool) -> None:
        """Nothing to wait for: who writes has the whole file."""


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(getattr(error, "orig", None) or error)


def _advice(error: Exception) -> str:
    cause = _cause(error)
    if "full" in cause:
        return "Free space on its disk."
    if "readonly" in cause or "unable to open" in cause:
        return "Make its folder exist and be writable."
    if "malformed" in cause or "not a database" in cause:
        return (
            "Stop the service and move this file away: jobs are built again from the logs, keys and endpoints are not."
        )
    if "locked" in cause:
        return "Another process is writing for long; try again."
    return "Check its disk and folder."


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _looking_engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        "sqlite+aiosqlite://", connect_args={"timeout": BUSY_TIMEOUT_S, "uri": True}, poolclass=NullPool
    )

    def as_it_is(_dialect: object, _record: object, args: list[Any], _named: object) -> None:
        # Whoever has it open, or was killed, has left a log beside it, which is read too and stays. Without one nothing
        # changes the file; to SQLite that must be said, or it makes such a log, for reading alone too.
        log = path.with_name(f"{path.name}-wal")
        args[:] = [f"{path.absolute().as_uri()}?mode=ro{'' if log.exists() else '&immutable=1'}"]

    event.listen(engine.sync_engine, "do_connect", as_it_is)
    return engine


def _configure(connection: Any, _record: object) -> None:
    # Python's own transaction control begins late and without IMMEDIATE; `_begin` takes its place.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and then writes would fail at once where another one writes. A reader
    # runs single statements, which need no transaction.
    if connection.get_execution_options().get(WRITE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
