"""The text of models.toml, changed as a person would: one table more or less, all else left as it was written.

Every change is proved before it is given back: what the new text says is what the old one said and the change alone.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sfumato.models.model import CannotChange

__all__ = ["tables", "with_path", "with_table", "without_table"]

_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""{1,3}'  # up to two quotes may stand before the closing three
    r"|'''.*?'''{1,3}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[{]|[\]}]|\n|[^\"'\#\[\]{}\n]+",
    re.DOTALL | re.VERBOSE,
)
QUOTES: Final = ("'", '"')
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK_LINES: Final = re.compile(r"(?:[ \t]*\r?\n)+")


class _Statement(NamedTuple):
    """A header or `key = value`, from the beginning of its first line to the end of its last, and what it is about."""

    begin: int
    end: int
    path: tuple[str, ...]


def tables(text: str) -> Mapping[str, Any]:
    """The [models.NAME] tables that `text` has.

    Raises:
        CannotChange: it is no TOML, or has no such tables but something else.
    """
    try:
        found = tomllib.loads(text).get("models", {})
    except tomllib.TOMLDecodeError as error:
        raise CannotChange(f"{error}. Mend that first.") from error
    if not isinstance(found, dict):
        raise CannotChange("models must be tables, written as [models.NAME].")
    return found


def with_table(text: str, name: str, values: Mapping[str, str]) -> str:
    """`text` and behind it the table [models.NAME] with these values.

    Raises:
        CannotChange: `text` can't take it as it is written.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"[models.{_key(name)}]", *(f"{key} = {_string(value)}" for key, value in values.items()), ""]
    gap = ("" if not text or text.endswith("\n") else newline) + (newline if text.strip() else "")
    return _proved(text, text + gap + newline.join(lines), {**tables(text), name: dict(values)})


def without_table(text: str, name: str) -> str:
    """`text` less the table [models.NAME] and those below it; comments before and behind them stay.

    Raises:
        CannotChange: it is written in a way from which it can't be taken out.
    """
    left = {each: table for each, table in tables(text).items() if each != name}
    fresh = text
    for begin, end in reversed(list(_runs(text, ("models", name)))):
        rest = fresh[end:]
        if not fresh[:begin].strip() or re.search(r"\n[ \t]*\r?\n\Z", fresh[:begin]):
            blank = _BLANK_LINES.match(rest)
            rest = rest[blank.end() :] if blank else rest
        fresh = fresh[:begin] + rest
    if not fresh.strip():
        fresh = ""
    return _proved(text, fresh, left)


def with_path(text: str, name: str, path: str) -> str:
    """`text` with another `path` in the table [models.NAME], which has one.

    Raises:
        CannotChange: it is written in a way that can't be changed.
    """
    known, fresh = tables(text), text
    for statement in _statements(text):
        if statement.path == ("models", name, "path"):
            after = statement.begin + _key_length(text[statement.begin : statement.end]) + 1
            (begin, end) = next(token.span() for token in _TOKEN.finditer(text, after) if token[0][0] in QUOTES)
            fresh = text[:begin] + _string(path) + text[end:]
    return _proved(text, fresh, {**known, name: {**known[name], "path": path}})


def _proved(before: str, after: str, wanted: Mapping[str, Any]) -> str:
    old = tomllib.loads(before)
    try:
        after.encode()
        new = tomllib.loads(after)
    except ValueError:
        new = {}
    if new.pop("models", {}) != wanted or {key: value for key, value in old.items() if key != "models"} != new:
        raise CannotChange("it is written in a way that only its writer can change; edit it by hand.")
    return after


def _runs(text: str, path: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where statements about `path` and what is below it stand, those that follow each other as one."""
    run: tuple[int, int] | None = None
    for statement in _statements(text):
        if statement.path[: len(path)] == path:
            run = (run[0] if run else statement.begin, statement.end)
        elif run:
            yield run
            run = None
    if run:
        yield run


def _statements(text: str) -> Iterator[_Statement]:
    """The statements of a text that is TOML. What lies between them is comments and empty lines."""
    header: tuple[str, ...] = ()
    line = depth = 0
    inside = False
    for token in _TOKEN.finditer(text):
        found = token[0]
        if found == "\n" and depth == 0:
            if inside:
                header, path = _about(text[line : token.end()], header)
                yield _Statement(line, token.end(), path)
            line, inside = token.end(), False
        elif found[0] != "#" and found.strip():
            inside = True
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found, 0)
    if inside:
        yield _Statement(line, len(text), _about(text[line:], header)[1])


def _about(chunk: str, header: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The header that holds from this statement on, and what the statement is about."""
    if chunk.lstrip().startswith("["):
        path = _path(tomllib.loads(chunk))
        return path, path
    return header, header + _path(tomllib.loads(f"{chunk[: _key_length(chunk)]}= 0"))


def _key_length(chunk: str) -> int:
    """Where the `=` of `key = value` stands."""
    plain = (token for token in _TOKEN.finditer(chunk) if token[0][0] not in QUOTES)
    return next(token.start() + token[0].index("=") for token in plain if "=" in token[0])


def _path(tree: Any) -> tuple[str, ...]:
    """The keys that lead down a tree without branches."""
    path: list[str] = []
    while tree and isinstance(tree, dict | list):
        if isinstance(tree, list):
            (tree,) = tree
        else:
            ((key, tree),) = tree.items()
            path.append(key)
    return tuple(path)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(value: str) -> str:
    """JSON's strings are TOML's too, but for the sign that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
