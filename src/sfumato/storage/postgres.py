"""What PostgreSQL does its own way: a server that may be away, many writers, arrays instead of loops of statements."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Column, ColumnElement, Table, any_, bindparam, exc, func, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sfumato.core.errors import SfumatoError, TransientError, UnusableStore
from sfumato.storage.migrating import migrate, refusal, revision_of

__all__ = ["PostgresDialect"]

log = logging.getLogger(__name__)

READ_WITHIN_S: Final = 1.8
"""Longest wait for a row, connecting and saying goodbye included: a client's request has 2 s in all for the rows."""
OPEN_WITHIN_S: Final = 10.0
GOODBYE_WITHIN_S: Final = 0.1
UPGRADE_WITHIN_S: Final = 600.0
POOL: Final = 5
POOL_MORE: Final = 5
"""Connections a process keeps, and more of them while they are needed; a server has about a hundred for all roles."""
SERVER_SETTINGS: Final = {
    "application_name": "sfumato",
    # Whoever asked has long given up by then: nothing works on for nobody, no lock is held by the dead.
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "30",
    # Compiling takes longer than each of our queries.
    "jit": "off",
}
TURN: Final = 7_366_201_641_053_025_602
MAY_PASS: Final = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Beginnings of SQLSTATEs: connection, read-only standby, serialization and deadlock, resources, locks, operator."""
SHUT_OUT: Final[Mapping[str, str]] = {
    "28": "Mend user and password in SFUMATO_DATABASE_URL, or let them in by the server's pg_hba.conf.",
    "3D": "Make the database (createdb), or mend its name in SFUMATO_DATABASE_URL.",
    "42501": "Give its user the rights on schema and tables: make it the database's owner.",
}
"""Beginnings of SQLSTATEs that only a person can end, and how."""
EXAMPLE: Final = "postgresql://user:password@host:5432/sfumato"


class PostgresDialect:
    """The database at `url`, as libpq reads it.

    Raises:
        UnusableStore: this is no such address, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UnusableStore(f"SFUMATO_DATABASE_URL can't be read; it looks like {EXAMPLE}.") from error
        if parts.scheme not in ("postgresql", "postgres"):
            raise UnusableStore(f"SFUMATO_DATABASE_URL is no address of a PostgreSQL database, such as {EXAMPLE}.")
        # Neither user nor password, nor whatever stands in the query: this name goes into logs.
        self.name = f"{parts.path.lstrip('/')} at {parts.netloc.rpartition('@')[2]}"
        self._engine = _engine(url)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._ready = False

    async def prepare(self) -> None:
        """Check the schema; when the server is away this is left to the first that reaches it.

        Raises:
            UnusableStore: it does not let us in, or its schema is not ours; the message holds the command to run.
        """
        try:
            async with asyncio.timeout(OPEN_WITHIN_S), self._reading.connect() as connection:
                why = await self._refusal(connection)
            if why:
                raise UnusableStore(why)
        except SfumatoError:
            raise
        except Exception as error:
            shut_out = _advice(error, SHUT_OUT)
            if shut_out:
                raise UnusableStore(f"database {self.name}: {_cause(error)}. {shut_out}") from error
            trouble = self.trouble(error)
            if trouble is None:
                raise
            log.warning("%s Going on without it until it answers.", trouble.detail)

    async def upgrade(self) -> None:
        """Bring its schema to that of `tables`; who comes meanwhile waits.

        Raises:
            UnusableStore: a newer version made it, or something else is in our tables' place; it is as it was.
        """
        try:
            async with asyncio.timeout(UPGRADE_WITHIN_S), self._engine.begin() as connection:
                await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                await connection.run_sync(migrate)
        except exc.DBAPIError as error:
            if self.trouble(error) is not None:
                raise
            raise UnusableStore(
                f"database {self.name} can't be brought up: {_cause(error)}. Give Sfumato a database of its own."
            ) from error

    async def revision(self) -> str | None:
        """The migration it is at; None when nothing was made in it yet."""
        async with asyncio.timeout(OPEN_WITHIN_S), self._reading.connect() as connection:
            return await connection.run_sync(revision_of)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements; each sees the latest commit."""
        async with asyncio.timeout(READ_WITHIN_S), self._reading.connect() as connection:
            await self._check(connection)
            yield connection

    @asynccontextmanager
    async def write(self, within_s: float) -> AsyncIterator[AsyncConnection]:
        """One transaction, ended within `within_s` or undone."""
        async with asyncio.timeout(within_s), self._engine.begin() as connection:
            await self._check(connection)
            yield connection

    def trouble(self, error: Exception) -> TransientError | None:
        """What an error of its driver means, when it may pass."""
        away = isinstance(error, exc.TimeoutError | TimeoutError | OSError | exc.InterfaceError)
        away = away or getattr(error, "connection_invalidated", False)
        advice = _advice(error, SHUT_OUT)
        if away or advice or _state(error).startswith(MAY_PASS):
            advice = advice or ("Is it running? Try again." if away else "Try again.")
            return TransientError(f"database {self.name}: {_cause(error)}. {advice}")
        return None

    async def put(
        self, connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], update: Sequence[str] = ()
    ) -> None:
        """Insert rows, in this order; where one's key is taken it changes the columns `update` and no other."""
        names = list(rows[0])
        arrays = [bindparam(name, type_=postgresql.ARRAY(table.c[name].type)) for name in names]
        given = func.unnest(*arrays).table_valued(*names).render_derived()
        insert = postgresql.insert(table).from_select(names, select(*(given.c[name] for name in names)))
        if update:
            changed = {name: insert.excluded[name] for name in update}
            statement = insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
        else:
            statement = insert.on_conflict_do_nothing()
        await connection.execute(statement, {name: [row[name] for row in rows] for name in names})

    def among(self, column: Column[str], values: Iterable[str]) -> ColumnElement[bool]:
        """Whether the column's value is one of these: one parameter, so one prepared statement for any number."""
        return column == any_(literal(list(values), postgresql.ARRAY(column.type)))

    async def take_turn(self, connection: AsyncConnection, *, alone: bool) -> None:
        """Wait until nobody folds `alone`; or, to be alone, until nobody folds at all."""
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        await connection.execute(select(lock(TURN)))

    async def _check(self, connection: AsyncConnection) -> None:
        # A process that started while the server was away can't refuse any more; it serves what it can without rows.
        if why := await self._refusal(connection):
            raise TransientError(why)

    async def _refusal(self, connection: AsyncConnection) -> str:
        if self._ready:
            return ""
        why = refusal(await connection.run_sync(revision_of))
        self._ready = not why
        return why and f"database {self.name}: {why}"


def _engine(url: str) -> AsyncEngine:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise UnusableStore("PostgreSQL needs its driver: pip install 'sfumato[postgres]'.") from error

    class Impatient(asyncpg.Connection):  # type: ignore[misc]  # the driver is untyped
        """Says goodbye to a server that answers, and does not wait for one that does not."""

        async def close(self, *, timeout: float | None = None) -> None:
            await super().close(timeout=min(timeout or GOODBYE_WITHIN_S, GOODBYE_WITHIN_S))

    async def connect(*_args: object, **_named: object) -> Any:
        try:
            return await asyncpg.connect(
                url, timeout=OPEN_WITHIN_S, server_settings=SERVER_SETTINGS, connection_class=Impatient
            )
        except ValueError as error:
            # Not its own words: they may hold the address, and that the password.
            raise UnusableStore(f"SFUMATO_DATABASE_URL can't be read; it looks like {EXAMPLE}.") from error

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=POOL,
        max_overflow=POOL_MORE,
        pool_timeout=OPEN_WITHIN_S,
        pool_pre_ping=True,
    )


def _state(error: BaseException) -> str:
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None) or ""


def _advice(error: Exception, by_state: Mapping[str, str]) -> str:
    return next((advice for begin, advice in by_state.items() if _state(error).startswith(begin)), "")


def _cause(error: Exception) -> str:
    if isinstance(error, SfumatoError):
        return error.detail
    said = str(getattr(error, "orig", None) or error).rstrip(".")
    # The driver's adapter puts the class in front of what the server said.
    return said.rpartition(">: ")[2] or f"no answer ({type(error).__name__})"
