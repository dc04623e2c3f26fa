"""docs/http-api.md names every route, parameter and problem that there is, and no other problem."""

import re
from pathlib import Path

import pytest

from sfumato.config import load_settings
from sfumato.gateway.app import create_app
from sfumato.gateway.asked import AskedJson
from sfumato.gateway.problems import PROBLEMS
from sfumato.models.registry import Registry
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World
from tests.support import NOW

PAGE = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()


def test_every_route_is_documented(tmp_path: Path) -> None:
    world = World(clock=lambda: NOW)
    stores = MemoryBroker(world), MemoryBlobs(world), MemoryOutcomes(world), MemoryRows(world)
    app = create_app(load_settings(data_dir=tmp_path), Registry.load(None), *stores)
    routes = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
    assert routes == set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", PAGE, re.MULTILINE))


def test_every_problem_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE, re.MULTILINE)
    assert {slug: int(status) for slug, status in rows} == {slug: case.status for slug, case in PROBLEMS.items()}


@pytest.mark.parametrize("name", AskedJson.model_fields)
def test_every_parameter_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE
