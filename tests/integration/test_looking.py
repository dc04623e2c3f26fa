"""Verbs that only look leave a data folder as it is: no file is made, none grows or shrinks, nothing is migrated."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.core.errors import UnusableStore
from sfumato.storage.database import Database
from sfumato.storage.schema import upgrade
from sfumato.storage.tables import REVISION

ID = "0190b0f0-0000-7000-8000-000000000000"
LOOKING = [["doctor", "--port", "0"], ["keys", "list"], ["db", "status"], ["trace", ID]]
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("CREATE TABLE waits_in_the_log (x)")
connection.commit()
print(flush=True)
sys.stdin.read()
"""


def empty(file: Path) -> None:
    file.write_bytes(b"")


def current(file: Path) -> None:
    asyncio.run(upgrade(file))


def stamped(revision: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        current(file)
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    return make


old, newer = stamped("0001"), stamped("9999")
States = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder where others reach the service, so that a key is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_HOST", "0.0.0.0")  # noqa: S104 - nothing listens
    monkeypatch.setenv("SFUMATO_DATA_DIR", "data")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def held(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("verb", LOOKING, ids=lambda verb: " ".join(verb[:2]))
@pytest.mark.parametrize("make", [empty, old, current, newer], ids=["empty", "old", "current", "newer"])
def test_looking_leaves_a_database_as_it_is(verb: list[str], make: States, folder: Path) -> None:
    make(folder / "rows.sqlite")
    before, listed = held(folder), names(folder)

    main(verb)

    assert (held(folder), names(folder)) == (before, listed)


@pytest.fixture
def killed(folder: Path) -> None:
    """The folder of a service that was killed: its last commits are in the log beside the database."""
    current(folder / "rows.sqlite")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder / "rows.sqlite"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
    assert (folder / "rows.sqlite-wal").stat().st_size > 0


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("verb", LOOKING[:3], ids=lambda verb: " ".join(verb[:2]))
def test_looking_leaves_the_log_that_a_killed_service_left(verb: list[str], folder: Path) -> None:
    kept = [folder / "rows.sqlite", folder / "rows.sqlite-wal"]
    before, listed = [file.read_bytes() for file in kept], names(folder)

    main(verb)

    assert ([file.read_bytes() for file in kept], names(folder)) == (before, listed)


def test_who_looks_beside_a_running_service_sees_its_latest_commit(folder: Path) -> None:
    async def seen() -> list[str]:
        async with Database.open(folder / "rows.sqlite") as service:
            async with service.write() as connection:
                await connection.exec_driver_sql("CREATE TABLE of_now (x)")
            async with Database.look(folder / "rows.sqlite") as looked, looked.read() as connection:
                found = await connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'of_now'")
                return list(found.scalars())

    assert asyncio.run(seen()) == ["of_now"]


def test_who_looks_can_not_write(folder: Path) -> None:
    async def write() -> None:
        async with Database.look(folder / "rows.sqlite") as looked, looked.write() as connection:
            await connection.exec_driver_sql("CREATE TABLE of_now (x)")

    current(folder / "rows.sqlite")
    with pytest.raises(Exception, match="readonly"):
        asyncio.run(write())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "it has no tables yet. Make them: sfumato db upgrade"),
        (old, f"its schema is old (0001; this version needs {REVISION}). Bring it up: sfumato db upgrade"),
        (newer, f"a newer version made it (9999; this version knows {REVISION}). Install that version again."),
    ],
)
@pytest.mark.parametrize("verb", [["keys", "list"], ["trace", ID]], ids=["keys list", "trace"])
def test_a_schema_that_is_not_ours_is_told_with_what_to_do(
    verb: list[str], make: States, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder / "rows.sqlite")
    assert main(verb) == 1
    assert capsys.readouterr().err == f"sfumato: database data/rows.sqlite: {said}\n"


def test_a_folder_with_nothing_but_keys_has_no_path_of_a_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    current(folder / "rows.sqlite")
    assert main(["trace", ID]) == 1
    assert capsys.readouterr().err == (
        "sfumato: nothing is known of any job: no service ever made outcomes.sqlite, queue.sqlite, events.sqlite. "
        f"Looked in {folder}.\n"
    )


@pytest.mark.parametrize(
    ("make", "said", "status"),
    [
        (empty, "✓ database data/rows.sqlite is empty: its tables will be made", 1),
        (old, "✓ database data/rows.sqlite is at 0001: its schema is old", 0),
        (newer, "✗ database data/rows.sqlite: a newer version made it (9999;", 1),
    ],
)
def test_doctor_tells_what_schema_there_is_and_asks_for_keys_where_it_can(
    make: States, said: str, status: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder / "rows.sqlite")
    assert main(["doctor", "--port", "0"]) == status
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith(said) for line in told), told
    assert any("there is none yet: sfumato keys create" in line for line in told) == (make is empty)


@pytest.mark.parametrize("verb", LOOKING, ids=lambda verb: " ".join(verb[:2]))
def test_a_database_that_is_a_folder_is_told_in_one_line(verb: list[str], folder: Path) -> None:
    (folder / "rows.sqlite").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sfumato", *verb], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "database data/rows.sqlite can't be opened: Is a directory. " in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_database_that_is_a_folder_can_not_be_used(folder: Path) -> None:
    (folder / "rows.sqlite").mkdir()
    with pytest.raises(UnusableStore, match="Is a directory"):
        asyncio.run(upgrade(folder / "rows.sqlite"))
