"""Times as people type them: a span, or a moment."""

import re
import time
from typing import Final

import typer

__all__ = ["moment_of", "span_s"]

UNITS: Final = {"m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
SPAN: Final = re.compile(r"([1-9]\d{0,4})([mhdw])")


def span_s(text: str, option: str) -> float:
    """Seconds of a span such as 90d. Raises BadParameter, naming the option, when it is none."""
    found = SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter("must be a number and m, h, d or w, such as 90d", param_hint=option)
    return int(found[1]) * UNITS[found[2]]


def moment_of(text: str | None, option: str) -> float | None:
    """Unix seconds of a moment: ISO 8601, Unix seconds, or how long ago; None of none. Raises BadParameter."""
    from sfumato.core.history import moment

    if not text:
        return None
    if SPAN.fullmatch(text):
        return time.time() - span_s(text, option)
    try:
        return moment(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or how long ago, such as 7d", param_hint=option) from error
