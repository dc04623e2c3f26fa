"""What pydantic finds wrong with a value, in the words of who typed it."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["plainly"]

WHOLE: Final = ("int_parsing", "int_parsing_size", "int_from_float", "int_type")
NUMBER: Final = ("float_parsing", "float_type", "finite_number")
LIMITS: Final[Mapping[str, str]] = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
}


def plainly(problem: Mapping[str, Any], example: object = None) -> str:
    """What the value must be, as one of `ValidationError.errors()` says; `example` is a number that would do.

    Only what should be a number is repeated: anything else may be a secret.
    """
    kind, given = str(problem["type"]), problem.get("input")
    such = f", such as {example}" if example else ""
    if kind in WHOLE:
        return f"must be a whole number in digits{such}, not {given!r}"
    if kind in NUMBER:
        return f"must be a number{such}, not {given!r}"
    if kind in LIMITS:
        limit = {name: int(value) if value == int(value) else value for name, value in problem["ctx"].items()}
        return f"{LIMITS[kind].format_map(limit)}, not {given}"
    said = str(problem["msg"]).removeprefix("Value error, ")
    return f"must be {said.removeprefix('Input should be ')}" if said.startswith("Input should be ") else said
