"""Servers that many suites share, each started when the first test asks for it."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.postgres import PostgresServer, postgres_server
from tests.s3_servers import S3Servers


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; each test makes a database of its own in it."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Servers]:
    """Object stores, none of which runs before it is asked for."""
    with ExitStack() as stack:
        yield S3Servers(tmp_path_factory.mktemp("s3"), stack)
