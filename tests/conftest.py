"""Servers that many suites share, each started when the first test asks for it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sfumato.cluster.server import free_ports, running
from tests.postgres import PostgresServer, postgres_server
from tests.s3_servers import S3Servers
from tests.support import passable_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` is for `make chaos` and `make fuzz`."""
    parser.addoption("--long", action="store_true", help="kill and count, or fuzz, for many minutes instead of one")


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and so would every command that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; each test makes a database of its own in it."""
    with passable_folder() as folder, postgres_server(folder) as server:
        yield server


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A folder for a server that one test starts for itself."""
    with passable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Servers]:
    """Object stores, none of which runs before it is asked for."""
    with ExitStack() as stack:
        yield S3Servers(tmp_path_factory.mktemp("s3"), stack)


@pytest.fixture(scope="session")
def kafka_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real broker for all tests of a session, started by the first that needs it."""
    # Imported only now: most tests do without Kafka's client.
    from sfumato.cluster.kafka import kafka

    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    with running(kafka(folder / "1", port, controller_port), folder / "1.log"):
        yield f"127.0.0.1:{port}"
