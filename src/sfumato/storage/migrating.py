"""Which schema a database has, bringing it to that of `tables`, and what to do when it is neither."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, inspect, select, text

from sfumato.core.errors import UnusableStore
from sfumato.storage.tables import REVISION

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["is_newer", "migrate", "refusal", "revision_of"]

TURN: Final = 7_366_201_641_053_025_601
"""Names the lock that roles which start at once take turns by; any number that nobody else uses will do."""


def revision_of(connection: Connection) -> str | None:
    """The migration that a database is at; None when nothing was ever made in it."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(connection: Connection) -> None:
    """Bring a database to REVISION within the caller's transaction; without effect when it is there already.

    Raises:
        UnusableStore: a newer version made it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(TURN)))
    # Another process may have migrated while this one waited for its turn to write.
    if revision_of(connection) == REVISION:
        return
    # Needed once in a database's life, and importing it takes longer than everything else here.
    from alembic import command
    from alembic.util import CommandError

    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnusableStore(f"a newer version made this database ({error}); install that version again.") from error


def refusal(revision: str | None) -> str:
    """Why a database at this migration can't be used as it is and what to do, "" when it can."""
    if revision == REVISION:
        return ""
    if revision is None:
        return "it has no tables yet. Make them: sfumato db upgrade"
    if not is_newer(revision):
        return f"its schema is old ({revision}; this version needs {REVISION}). Bring it up: sfumato db upgrade"
    return f"a newer version made it ({revision}; this version knows {REVISION}). Install that version again."


def is_newer(revision: str | None) -> bool:
    """Whether a newer version made a database at this migration: it is none of ours."""
    return revision not in (None, REVISION) and revision not in _known()


def _known() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
