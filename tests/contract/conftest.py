"""The implementations that every broker suite runs against."""

from pathlib import Path

import pytest

from tests.contract.kafka_station import KafkaStation
from tests.contract.stations import SqliteStation, Station


@pytest.fixture(
    params=[pytest.param("sqlite", id="sqlite"), pytest.param("kafka", id="kafka", marks=pytest.mark.server)]
)
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    """One implementation, empty."""
    if request.param == "sqlite":
        return SqliteStation(tmp_path)
    return KafkaStation.new(request.getfixturevalue("kafka_servers"))
