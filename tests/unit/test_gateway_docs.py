"""docs/http-api.md names every route, parameter and problem that there is, and no other problem."""

import re
from pathlib import Path

import pytest

from sfumato.config import load_settings
from sfumato.core.errors import PermanentError, TransientError
from sfumato.gateway.app import create_app
from sfumato.gateway.asked import AskedJson, ListAsked
from sfumato.gateway.problems import PROBLEMS
from sfumato.models.registry import Registry
from tests.memory_keys import MemoryKeys
from tests.memory_scaling import MemoryScaling
from tests.memory_webhooks import MemoryWebhooks
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows, World
from tests.support import NOW

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http-api.md").read_text()
SLUG = re.compile(r"slug=\"([a-z-]+)\"")


def test_every_route_is_documented(tmp_path: Path) -> None:
    world = World(clock=lambda: NOW)
    stores = MemoryBroker(world), MemoryBlobs(world), MemoryOutcomes(world), MemoryRows(world)
    others = MemoryScaling(lambda: NOW), MemoryKeys(world), MemoryWebhooks()
    app = create_app(load_settings(data_dir=tmp_path), Registry.load(None), *stores, *others)
    routes = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
    assert routes == set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", PAGE, re.MULTILINE))


def test_every_problem_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE, re.MULTILINE)
    assert {slug: int(status) for slug, status in rows} == {slug: case.status for slug, case in PROBLEMS.items()}


@pytest.mark.parametrize("name", AskedJson.model_fields)
def test_every_parameter_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", ListAsked.model_fields)
def test_every_parameter_of_lists_is_documented(name: str) -> None:
    assert re.search(rf"^\| .*`{name}`", PAGE[PAGE.index("`GET /api/jobs` takes") :], re.MULTILINE)


def test_every_reason_of_a_failed_job_is_documented() -> None:
    rooms = [ROOT / "src" / "sfumato" / room for room in ("engine", "worker", "dispatcher", "core")]
    told = {slug for room in rooms for file in room.rglob("*.py") for slug in SLUG.findall(file.read_text())}
    table = PAGE[PAGE.index("## Why jobs fail") : PAGE.index("## Events")]
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert documented == told | {PermanentError.slug, TransientError.slug}


def test_the_files_that_examples_send_exist() -> None:
    sent = re.findall(r"image=@(\S+)|curl -T (\S+)", PAGE)
    assert sent
    assert all((ROOT / "".join(name)).is_file() for name in sent)
