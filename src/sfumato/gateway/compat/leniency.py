"""What clients send whatever the service behind them is, taken as far as it goes; and what is said of it where it
doesn't.
"""

import difflib
import re
from collections.abc import Collection
from typing import TypeVar

__all__ = ["nearest", "up_to", "without_claim"]

T = TypeVar("T")


def up_to(most: float, wanted: T) -> T | float:
    """A number, at most `most`; what is none is left to whoever reads it."""
    return min(wanted, most) if isinstance(wanted, int | float) and not isinstance(wanted, bool) else wanted


def without_claim(image: str) -> str:
    """A data URL as one that claims no type of picture: clients call every picture a PNG, and its bytes say better."""
    claim = re.match(r"data:image/[\w.+-]{1,40};base64,", image)
    return f"data:;base64,{image[claim.end() :]}" if claim else image


def nearest(field: str, given: str, known: Collection[str]) -> str:
    """What to say of a name that is none of a model's: those most like it, and all that there are."""
    near = difflib.get_close_matches(given[:80], known, n=2, cutoff=0.4)
    closest = f"Closest to it: {', '.join(near)}. " if near else ""
    return f"{field} {given[:80]!r} is none of this model's. {closest}It has: {', '.join(known)}."
