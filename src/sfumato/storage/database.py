"""An async SQL database: opening, transactions, and the few statements that each dialect spells its own way."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, Self

from sqlalchemy import Column, ColumnElement, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.errors import SfumatoError, TransientError, UnusableStore
from sfumato.storage.migrating import refusal
from sfumato.storage.sqlite import SqliteDialect

__all__ = ["LONG_S", "Database", "Dialect", "connected"]

SHORT_S: Final = 2.0
"""Longest that a request of a client waits for the rows."""
LONG_S: Final = 30.0
"""Longest that a batch of the recorder, or a sweep, waits for them."""


class Dialect(Protocol):
    """What a kind of database does its own way. What its driver raises is told by `trouble`."""

    name: str

    async def prepare(self) -> None:
        """Make sure that the schema is that of `tables`. Raises UnusableStore."""
        ...

    async def upgrade(self) -> None:
        """Bring the schema to that of `tables`. Raises UnusableStore when a newer version made it."""
        ...

    async def revision(self) -> str | None:
        """The migration it is at; None when nothing was made in it yet."""
        ...

    async def close(self) -> None: ...

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]: ...

    def write(self, within_s: float) -> AbstractAsyncContextManager[AsyncConnection]: ...

    def trouble(self, error: Exception) -> TransientError | None:
        """What an error of its driver means, when it may pass; None for all others."""
        ...

    async def put(
        self, connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], update: Sequence[str] = ()
    ) -> None:
        """Insert rows, in this order; where one's key is taken it changes the columns `update` and no other."""
        ...

    def among(self, column: Column[str], values: Iterable[str]) -> ColumnElement[bool]:
        """Whether the column's value is one of these."""
        ...

    async def take_turn(self, connection: AsyncConnection, *, alone: bool) -> None:
        """Wait, within a transaction, until nobody folds `alone`; or, to be alone, until nobody folds at all."""
        ...


class Database:
    """Connections to one database whose schema is that of `tables`."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.name = dialect.name
        self.put, self.among, self.take_turn = dialect.put, dialect.among, dialect.take_turn

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The SQLite database at `path`, created or migrated first; safe when several processes start at once.

        Raises:
            UnusableStore: it can't be opened, or was made by a newer version.
        """
        async with connected(path) as dialect:
            await dialect.prepare()
            yield cls(dialect)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        """The PostgreSQL database at `url`; while it is away, what is asked of it is a TransientError.

        Raises:
            UnusableStore: there is no such database, it does not let us in, or its schema is not ours.
        """
        async with connected(url) as dialect:
            await dialect.prepare()
            yield cls(dialect)

    @classmethod
    @asynccontextmanager
    async def look(cls, address: str | Path) -> AsyncIterator[Self]:
        """The database at a URL or a path, to read from as it is: nothing is made, nor migrated.

        Raises:
            UnusableStore: it can't be opened, is empty, or its schema is not that of this version.
            TransientError: it does not answer now.
        """
        async with connected(address, look=True) as dialect:
            if why := refusal(await dialect.revision()):
                raise UnusableStore(f"database {dialect.name}: {why}")
            yield cls(dialect)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements; each sees the latest commit. Raises TransientError."""
        with _told(self._dialect):
            async with self._dialect.read() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, within_s: float = SHORT_S) -> AsyncIterator[AsyncConnection]:
        """One transaction, durable when the block has ended, undone when it raises. Raises TransientError."""
        with _told(self._dialect):
            async with self._dialect.write(within_s) as connection:
                yield connection


@asynccontextmanager
async def connected(address: str | Path, *, look: bool = False) -> AsyncIterator[Dialect]:
    """The dialect of a PostgreSQL database (its URL) or of an SQLite file (its path), closed at the end.

    To `look` is to read alone: an SQLite file and its folder stay as they are.

    Raises:
        UnusableStore: this is no such address, or its driver is not installed.
        TransientError: within the block, for what may pass of what the driver raises.
    """
    dialect: Dialect
    if isinstance(address, Path):
        dialect = SqliteDialect(address, look=look)
    else:
        # Not where there is none: its driver is an extra.
        from sfumato.storage.postgres import PostgresDialect

        dialect = PostgresDialect(address)
    try:
        with _told(dialect):
            yield dialect
    finally:
        await dialect.close()


@contextmanager
def _told(dialect: Dialect) -> Iterator[None]:
    try:
        yield
    except SfumatoError:
        raise
    except Exception as error:
        trouble = dialect.trouble(error)
        if trouble is None:
            raise
        raise trouble from error
