"""The implementations that every broker suite runs against."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sfumato.cluster.kafka import kafka
from sfumato.cluster.server import free_ports, running
from tests.contract.kafka_station import KafkaStation
from tests.contract.stations import SqliteStation, Station


@pytest.fixture(scope="session")
def kafka_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real broker for all tests of a session, started by the first that needs it."""
    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    with running(kafka(folder / "1", port, controller_port), folder / "kafka.log"):
        yield f"127.0.0.1:{port}"


@pytest.fixture(params=[pytest.param("sqlite", id="sqlite"), pytest.param("kafka", id="kafka")])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    """One implementation, empty."""
    if request.param == "sqlite":
        return SqliteStation(tmp_path)
    return KafkaStation(request.getfixturevalue("kafka_servers"), prefix=f"test-{uuid4().hex[:12]}")
