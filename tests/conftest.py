"""Servers that many suites share, each started when the first test asks for it."""

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; each test makes a database of its own in it."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server
