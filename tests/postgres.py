"""The one PostgreSQL of a test run, spoken to by its own psql: what the tests see of it goes around our code."""

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato.cluster.postgres import postgres, postgres_programs, postgres_url
from sfumato.cluster.server import free_ports, running
from sfumato.storage.schema import upgrade

__all__ = ["PostgresServer", "postgres_server", "say"]

MIGRATED = "migrated"


@dataclass(frozen=True)
class PostgresServer:
    """A running server. A plain value: it travels to child processes."""

    folder: Path
    port: int

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return postgres_url(self.folder, self.port, database)

    def empty(self) -> str:
        """The address of a new database without tables."""
        return self._create("template0")

    def fresh(self) -> str:
        """The address of a new database with our tables, and nothing in them."""
        return self._create(MIGRATED)

    def _create(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        say(self.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """A server of its own over `folder`, ready."""
    (port,) = free_ports(1)
    server = PostgresServer(folder / "postgres", port)
    with running(postgres(server.folder, port), folder / "postgres.log"):
        say(server.url("postgres"), f"CREATE DATABASE {MIGRATED}")
        asyncio.run(upgrade(server.url(MIGRATED)))
        yield server


def say(url: str, statement: str) -> str:
    """What psql answers to a statement, without headings."""
    psql = str(postgres_programs() / "psql")
    command = [psql, url, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run([*command, "--command", statement], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
