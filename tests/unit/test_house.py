"""The house keeps its sizes, and says nothing of the machines it was built on."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((*(ROOT / "src").rglob("*.py"), *(ROOT / "training").rglob("*.py")))
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
LONGEST_TRANSLATION = 250
"""Of a module that speaks another service's protocol: one that is longer does more than translate."""


def _functions(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_a_module_is_one_noun_of_readable_size(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= LONGEST_MODULE
    assert {name: length for name, length in _functions(module) if length > LONGEST_FUNCTION} == {}


def test_a_protocol_is_no_more_than_a_translation() -> None:
    modules = (ROOT / "src" / "sfumato" / "gateway" / "compat").rglob("*.py")
    lengths = {module.name: len(module.read_text().splitlines()) for module in modules}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_TRANSLATION} == {}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_no_file_names_a_folder_of_one_machine() -> None:
    texts = [
        path
        for folder in ("src", "tests", "docs", "examples", "images", "training")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".toml", ".json", ".txt"} and "tokenizer" not in path.parts
    ]
    named = [path for path in texts if re.search(r"(?<![\w.])/(work|root|home)/\w", path.read_text())]
    assert named == []
