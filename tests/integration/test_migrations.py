"""The schema that migrations make, and opening a database of any age, alone and together."""

import asyncio
import multiprocessing
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

import sfumato.storage
from sfumato.core.errors import UnusableStore
from sfumato.core.events import JobRow, new_row
from sfumato.core.keys import Usage
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.keys import SqlKeys
from sfumato.storage.tables import REVISION, metadata
from tests.support import NOW, make_job


async def _open(path: Path) -> None:
    async with Database.open(path):
        pass


def open_once(path: Path) -> None:
    asyncio.run(_open(path))


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        found: Iterable[tuple[str]] = connection.execute("SELECT type || ' ' || name FROM sqlite_master")
        return {name for (name,) in found if "alembic" not in name and "autoindex" not in name}


def test_migrated_database_is_the_one_the_tables_describe(tmp_path: Path) -> None:
    migrated, created = tmp_path / "migrated.sqlite", tmp_path / "created.sqlite"
    open_once(migrated)
    engine = create_engine(f"sqlite:///{created}")
    metadata.create_all(engine)
    engine.dispose()

    assert schema(migrated) == schema(created)
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        keys = {table: inspect(connection).get_pk_constraint(table)["constrained_columns"] for table in metadata.tables}
    engine.dispose()
    assert keys == {name: [column.name for column in table.primary_key] for name, table in metadata.tables.items()}


def test_tables_name_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(sfumato.storage.__file__).parent / "migrations"))

    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_fresh_database_is_ready_at_once(tmp_path: Path) -> None:
    open_once(tmp_path / "first.sqlite")

    begin = time.perf_counter()
    open_once(tmp_path / "second.sqlite")

    # Usually below 0.1 s; the bound leaves room for a busy machine.
    assert time.perf_counter() - begin < 1.0


def test_database_from_before_there_were_keys_keeps_its_jobs(tmp_path: Path) -> None:
    path, row = tmp_path / "older.sqlite", new_row(make_job(1))
    config = Config()
    config.set_main_option("script_location", str(Path(sfumato.storage.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        old = ("id", "owner", "model", "priority", "state", "cost", "created_at", "due_at")
        values = (row.id, "local", "m", 1, "queued", 7, NOW, NOW)
        names, marks = ", ".join((*old, "row")), ", ".join("?" * 9)
        connection.exec_driver_sql(f"INSERT INTO jobs ({names}) VALUES ({marks})", (*values, row.model_dump_json()))  # noqa: S608 - our own names
    engine.dispose()

    async def opened() -> tuple[JobRow | None, Usage]:
        async with Database.open(path) as database:
            return await SqlJobs(database).get(row.id), await SqlKeys(database).usage("local", 0.0, [row.id])

    assert asyncio.run(opened()) == (row, Usage(1, 7, frozenset([row.id])))


def test_what_an_owner_spent_is_read_from_an_index_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    open_once(path)
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT coalesce(sum(cost), 0) FROM jobs WHERE owner = ? AND created_at >= ?", ("o", 0.0)
        ).fetchall()
    assert "COVERING INDEX jobs_spent" in plan[0][3]


def test_many_processes_open_a_fresh_database_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as processes:
        for number in range(5):
            processes.map(open_once, [tmp_path / f"{number}.sqlite"] * 4, chunksize=1)


def test_many_connections_of_one_process_open_a_fresh_database_at_once(tmp_path: Path) -> None:
    async def together() -> None:
        await asyncio.gather(*(_open(tmp_path / "one.sqlite") for _ in range(8)))

    asyncio.run(together())


def test_database_is_written_ahead_and_synced(tmp_path: Path) -> None:
    async def settings() -> list[object]:
        async with Database.open(tmp_path / "one.sqlite") as database, database.read() as connection:
            pragmas = ("journal_mode", "synchronous", "busy_timeout")
            return [(await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() for pragma in pragmas]

    assert asyncio.run(settings()) == ["wal", 2, 5000]


def test_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "taken.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        # The last table that the migration makes is there already, so it fails at its end.
        connection.execute("CREATE TABLE parked (something)")
    before = schema(path)

    with pytest.raises(UnusableStore, match="parked"):
        open_once(path)

    assert schema(path) == before


def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.sqlite"
    open_once(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(UnusableStore, match="newer version"):
        open_once(path)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.sqlite"
    path.write_text("Dear reader, this is no database. " * 100)

    with pytest.raises(UnusableStore, match="not a database"):
        open_once(path)


def test_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnusableStore, match="can't be opened"):
        open_once(tmp_path / "file" / "one.sqlite")
