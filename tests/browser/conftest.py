"""One browser and one service for each file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.browsing import chromium, live, opened
from tests.service import Service

MODELS = """
[models.restyle]

[models.slow]
backend = "simulated"
path = "slow"
batch = 4
slots = 4
max_workers = 1
"""
STEP_S = 0.1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The bundled model, and one that takes its time. After the browser, so that nothing starts where there is none."""
    prepared = Service(Path(tmp_path_factory.mktemp("page")), models=MODELS)
    prepared.simulate("slow", {"fixed_s": STEP_S})
    with prepared as started:
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with opened(browser, service.url) as shown:
        live(shown)
        yield shown
