"""docs/cli.md has every verb with every option, and no other."""

import re
from pathlib import Path

import pytest

from tests.render_cli import HEADING, verbs

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


VERBS = dict(verbs())


def sections() -> dict[str, str]:
    """Verb → the text below its heading."""
    parts = HEADING.split(PAGE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_verb_has_its_section() -> None:
    assert sorted(sections()) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_its_row(verb: str) -> None:
    shown = re.findall(r"^\| `(--?[a-z0-9-]+)` \|", sections()[verb], re.MULTILINE)
    options = [
        name
        for option in VERBS[verb].params
        if option.param_type_name == "option" and not option.hidden
        for name in option.opts
    ]
    assert shown == [name for name in options if name not in ("--help", "-h")]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_help(verb: str) -> None:
    command = VERBS[verb]
    assert command.help
    assert [option.name for option in command.params if option.name != "context" and not option.help] == []
