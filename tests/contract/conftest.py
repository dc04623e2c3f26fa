"""The implementations that every broker suite runs against."""

from pathlib import Path

import pytest

from tests.contract.stations import SqliteStation, Station


@pytest.fixture(params=[pytest.param("sqlite", id="sqlite")])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    """One implementation, empty."""
    makers = {"sqlite": SqliteStation}
    return makers[request.param](tmp_path)
