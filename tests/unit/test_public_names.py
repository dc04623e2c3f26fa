import ast
from pathlib import Path

import pytest

import sfumato
import sfumato.client


def declared_for_type_checkers() -> list[str]:
    tree = ast.parse(Path(sfumato.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "sfumato.client"]
    return [alias.name for node in imports for alias in node.names]


def test_all_lists_what_is_exposed_sorted() -> None:
    assert sorted(sfumato.__all__) == sorted(declared_for_type_checkers()) == dir(sfumato)


def test_every_public_name_is_the_clients_own() -> None:
    assert sorted(sfumato.__all__) == sorted(sfumato.client.__all__)
    for name in sfumato.__all__:
        assert getattr(sfumato, name) is getattr(sfumato.client, name)


def test_every_public_name_has_a_docstring() -> None:
    bare = [name for name in sfumato.__all__ if not getattr(sfumato, name).__doc__]
    assert bare == []


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Server'"):
        _ = sfumato.Server
