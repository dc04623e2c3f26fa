"""An async SQL database: opening, migrating, transactions, and everything that only SQLite needs."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, Table, event, exc, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sfumato.core.errors import TransientError, UnusableStore
from sfumato.storage.tables import REVISION

__all__ = ["Database"]

BUSY_TIMEOUT_S: Final = 5.0
WRITE: Final = "sfumato_write"


class Database:
    """Connections to one database whose schema is that of `tables`.

    Reads go on beside writes. Writes of one process wait for each other here, those of several processes in SQLite.
    """

    def __init__(self, engine: AsyncEngine, name: str) -> None:
        self._name = name
        self._reading = engine
        self._writing = engine.execution_options(**{WRITE: True})
        self._turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The SQLite database at `path`, created or migrated first; safe when several processes start at once.

        Raises:
            UnusableStore: it can't be opened, or was made by a newer version.
        """
        engine = _sqlite_engine(path)
        try:
            database = cls(engine, str(path))
            await database._prepare(path)
            yield database
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements; each sees the latest commit. Raises TransientError."""
        with self._transient():
            async with self._reading.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, durable when the block has ended, undone when it raises. Raises TransientError."""
        with self._transient():
            async with self._turn, self._writing.begin() as connection:
                yield connection

    def insert(self, table: Table) -> sqlite.Insert:
        """An INSERT that knows ON CONFLICT, which each dialect spells in a class of its own."""
        return sqlite.insert(table)

    @contextmanager
    def _transient(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.TimeoutError) as error:
            raise TransientError(f"database {self._name}: {_cause(error)}. {_advice(error)}") from error

    async def _prepare(self, path: Path) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
                return await self._migrated()
            except (exc.DBAPIError, OSError) as error:
                # Turning a fresh file to write-ahead logging does not wait for its turn as other writes do.
                if "locked" not in _cause(error) or time.monotonic() > deadline:
                    raise UnusableStore(
                        f"database {path} can't be opened: {_cause(error)}. {_advice(error)}"
                    ) from error
            await asyncio.sleep(0.05)

    async def _migrated(self) -> None:
        async with self._reading.connect() as connection:
            ready = await connection.run_sync(_revision) == REVISION
        if not ready:
            async with self._writing.begin() as connection:
                await connection.run_sync(_migrate)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection) -> None:
    # Another process may have migrated while this one waited for its turn to write.
    if _revision(connection) == REVISION:
        return
    # Needed once in a database's life, and importing it takes longer than everything else here.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnusableStore(f"a newer version made this database ({error}); install that version again.") from error


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


def _advice(error: Exception) -> str:
    cause = _cause(error)
    if "full" in cause:
        return "Free space on its disk."
    if "readonly" in cause or "unable to open" in cause:
        return "Make its folder exist and be writable."
    if "malformed" in cause or "not a database" in cause:
        return "Stop the service and move this file away: it is built again from the logs."
    if "locked" in cause:
        return "Another process is writing for long; try again."
    return "Check its disk and folder."


def _sqlite_engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
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
