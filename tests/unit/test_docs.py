"""The reference pages say what the code says."""

import re
from pathlib import Path

import pytest

from sfumato.core.job import TRANSITIONS, State
from tests.render_docs import DOCS, PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_reference_page_is_up_to_date(page: Path) -> None:
    assert page.read_text() == PAGES[page](), "run: python -m tests.render_docs"


def test_state_diagram_has_every_state_and_every_reason_to_leave_it() -> None:
    drawn = re.findall(r"<text [^>]*>([^<]+)</text>", (DOCS / "states.svg").read_text())
    reasons = [why for row in TRANSITIONS.values() for why in row.values()]
    assert sorted(drawn) == sorted([*map(str, State), *reasons])


def test_every_test_that_the_protocol_page_names_exists() -> None:
    page = (DOCS / "protocol.md").read_text()
    tests = {path.name: path.read_text() for path in DOCS.parent.joinpath("tests").rglob("test_*.py")}
    named = re.findall(r"`(?:tests/simulation/)?(test_\w+\.py)(?:::(\w+))?`", page)
    assert named
    assert [(file, test) for file, test in named if f"def {test}" not in tests.get(file, "")] == []


def test_every_test_that_the_security_page_names_exists() -> None:
    tests = {path.name: path.read_text() for path in DOCS.parent.joinpath("tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (DOCS / "security.md").read_text())
    assert named
    assert [(file, test) for file, test in named if f"def {test}" not in tests.get(file, "")] == []
