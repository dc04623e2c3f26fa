"""What who runs the service does with a database's schema: look at it, and bring it up."""

from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import UnusableStore
from sfumato.storage.database import Dialect, connected
from sfumato.storage.migrating import is_newer, refusal

__all__ = ["Schema", "schema_of", "upgrade"]


@dataclass(frozen=True, slots=True)
class Schema:
    """A database, the migration it is at (None: nothing was made in it yet), and what to do about it ("": nothing).

    `newer`: a newer version made it, so this one can't bring it to its own.
    """

    database: str
    revision: str | None
    advice: str
    newer: bool = False


async def schema_of(address: str | Path) -> Schema:
    """The schema of a PostgreSQL database (its URL) or of an SQLite file (its path); nothing is changed.

    Raises:
        UnusableStore: it can't be opened.
        TransientError: it does not answer now.
    """
    async with connected(address, look=True) as dialect:
        return await _seen(dialect)


async def upgrade(address: str | Path) -> Schema:
    """Bring the schema to that of this version; what it was before. Without effect when it is that already.

    Raises:
        UnusableStore: it can't be opened, or was made by a newer version.
        TransientError: it does not answer now.
    """
    async with connected(address) as dialect:
        before = await _seen(dialect)
        await dialect.upgrade()
        after = await _seen(dialect)
        if after.advice:
            raise UnusableStore(f"database {after.database}: {after.advice}")
        return before


async def _seen(dialect: Dialect) -> Schema:
    revision = await dialect.revision()
    return Schema(dialect.name, revision, refusal(revision), newer=is_newer(revision))
