"""Bringing a database up, SQLite and PostgreSQL alike: from nothing, from before, from many places at once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import create_async_engine

import sfumato.storage
from sfumato.cli import main
from sfumato.core.errors import UnusableStore
from sfumato.storage import migrating
from sfumato.storage.database import Database
from sfumato.storage.schema import Schema, schema_of, upgrade
from sfumato.storage.tables import REVISION, metadata
from tests.contract.stores import racing_processes
from tests.postgres import PostgresServer, say

T = TypeVar("T")
Address = str | Path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Of a database with nothing in it."""
    if request.param == "sqlite":
        return tmp_path / "rows.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty()


def scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(sfumato.storage.__file__).parent / "migrations"))
    return config


def revisions() -> list[str]:
    """Every migration, the oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(scripts()).walk_revisions()][::-1]


def within(address: Address, work: Callable[[Connection], T]) -> T:
    """Do something on a connection of its own to the database, in one transaction."""
    name = f"sqlite+aiosqlite:///{address}" if isinstance(address, Path) else f"postgresql+asyncpg{address[10:]}"

    async def run() -> T:
        engine = create_async_engine(name)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def migrate_to(address: Address, revision: str) -> None:
    def work(connection: Connection) -> None:
        config = scripts()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    within(address, work)


def differences(address: Address) -> list[Any]:
    """What alembic would have to change to make the database that of the tables."""

    def compare(connection: Connection) -> list[Any]:
        keys = {table: inspect(connection).get_pk_constraint(table)["constrained_columns"] for table in metadata.tables}
        assert keys == {name: [column.name for column in table.primary_key] for name, table in metadata.tables.items()}
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    return within(address, compare)


def test_empty_database_gets_exactly_the_tables_described(address: Address) -> None:
    before = asyncio.run(upgrade(address))

    assert before.revision is None
    assert asyncio.run(schema_of(address)) == Schema(before.database, REVISION, "")
    assert differences(address) == []


@pytest.mark.parametrize("before", revisions()[:-1] or ["base"])
def test_database_of_each_earlier_version_gets_exactly_the_tables_described(address: Address, before: str) -> None:
    if before != "base":
        migrate_to(address, before)

    asyncio.run(upgrade(address))

    assert differences(address) == []


def test_bringing_up_again_changes_nothing(address: Address) -> None:
    asyncio.run(upgrade(address))

    assert asyncio.run(upgrade(address)).advice == ""
    assert differences(address) == []


def bring_up(address: Address) -> None:
    asyncio.run(upgrade(address))


def test_many_processes_bring_up_a_database_at_once(address: Address) -> None:
    with racing_processes(3) as processes:
        list(processes.map(bring_up, [address] * 3))

    assert differences(address) == []


def test_looking_changes_nothing(address: Address, tmp_path: Path) -> None:
    assert asyncio.run(schema_of(address)).advice == "it has no tables yet. Make them: sfumato db upgrade"

    assert list(tmp_path.iterdir()) == []
    assert asyncio.run(schema_of(address)).revision is None


def test_newer_database_is_not_touched(address: Address) -> None:
    asyncio.run(upgrade(address))
    within(address, lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))

    assert "newer version made it" in asyncio.run(schema_of(address)).advice
    with pytest.raises(UnusableStore, match="newer version made this database"):
        asyncio.run(upgrade(address))


def test_migration_that_fails_leaves_the_database_as_it_was(address: Address) -> None:
    # The last table that the first migration makes is there already, so it fails at its end.
    within(address, lambda connection: connection.exec_driver_sql("CREATE TABLE parked (something text)"))

    with pytest.raises(UnusableStore, match="parked"):
        asyncio.run(upgrade(address))

    assert within(address, lambda connection: inspect(connection).get_table_names()) == ["parked"]


# What roles do on PostgreSQL: they never migrate by themselves


async def use(url: str) -> None:
    async with Database.connect(url):
        pass


@pytest.mark.server
def test_role_refuses_a_database_that_nobody_brought_up(postgres: PostgresServer) -> None:
    with pytest.raises(UnusableStore, match=r"no tables yet\. Make them: sfumato db upgrade"):
        asyncio.run(use(postgres.empty()))


@pytest.mark.server
def test_role_refuses_an_old_database(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "REVISION", "0002 of tomorrow")

    with pytest.raises(UnusableStore, match=r"schema is old .* Bring it up: sfumato db upgrade"):
        asyncio.run(use(postgres.fresh()))


@pytest.mark.server
def test_role_refuses_a_newer_database(postgres: PostgresServer) -> None:
    url = postgres.fresh()
    say(url, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(UnusableStore, match=r"a newer version made it \(9999; .*Install that version again"):
        asyncio.run(use(url))


# The verbs


def test_verbs_say_what_is_and_what_was_done(
    address: Address, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--data-dir", str(tmp_path)]
    if isinstance(address, str):
        monkeypatch.setenv("SFUMATO_DATABASE_URL", address)

    statuses = [main(["db", verb, *options]) for verb in ("status", "upgrade", "status", "upgrade")]

    name = str(address) if isinstance(address, Path) else asyncio.run(schema_of(address)).database
    assert statuses == [1, 0, 0, 0]
    assert capsys.readouterr().out.splitlines() == [
        f"{name} is empty: it has no tables yet. Make them: sfumato db upgrade",
        f"{name} was empty, is ready now",
        f"{name} is at {REVISION}: ready",
        f"{name} is at {REVISION}, ready as it was",
    ]


@pytest.mark.server
def test_verbs_tell_what_is_wrong_with_the_address(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFUMATO_DATABASE_URL", postgres.url("nowhere"))

    assert main(["db", "upgrade"]) == 1
    assert 'database "nowhere" does not exist. Make the database (createdb)' in capsys.readouterr().err
