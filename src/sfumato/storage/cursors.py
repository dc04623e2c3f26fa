"""A page's `next`: the place of its last line, opaque to who gets it."""

import base64
import math

from sfumato.core.errors import InvalidRequest

__all__ = ["cursor_behind", "place_of"]


def cursor_behind(at: float, identity: str) -> str:
    """The cursor of what lies behind the line of this time (Unix seconds) and id."""
    return base64.urlsafe_b64encode(f"{at!r} {identity}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[float, str]:
    """Time and id of the line that a page ended with. Raises InvalidRequest when it is none of our cursors."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, identity = plain.split(" ")
        if math.isfinite(float(at)) and "\0" not in identity:
            return float(at), identity
    except ValueError:
        pass
    raise InvalidRequest(
        "cursor is not one that this service gave out; take `next` of a page, or leave it away for the first page.",
        slug="bad-cursor",
        title="The cursor is not one of ours",
    )
