"""docs/how-to/clients.md: what it tells a newcomer to type works, in its order, and shows what it says."""

from pathlib import Path

import pytest

from tests.reader import ROOT, Reader
from tests.service import Service
from tests.support import poll

PAGE = ROOT / "docs" / "how-to" / "clients.md"


@pytest.mark.server
def test_every_snippet_of_the_page_works(tmp_path: Path) -> None:
    with Service(tmp_path, models=None) as service:
        Reader(tmp_path, service, {}).follow(PAGE)
        poll(lambda: b'"gpt-image-1"' in service.get("/api/models")[1])
    for made in (tmp_path / "out").iterdir():
        assert made.stat().st_size > 1000, made
