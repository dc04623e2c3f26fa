"""The picture of a job's states in docs/protocol.md, drawn from the table that the code goes by."""

import math
from collections.abc import Iterator
from html import escape
from typing import Final

from sfumato.core.job import TRANSITIONS, State

__all__ = ["state_diagram"]

WIDTH, HEIGHT = 880, 430
BOX: Final = (112.0, 40.0)
"""Width and height of a state."""
PLACES: Final = {
    State.QUEUED: (80.0, 230.0),
    State.RUNNING: (400.0, 120.0),
    State.SUCCEEDED: (790.0, 50.0),
    State.FAILED: (790.0, 220.0),
    State.CANCELED: (790.0, 380.0),
}
BENDS: Final = {
    (State.QUEUED, State.RUNNING): -28.0,
    (State.RUNNING, State.QUEUED): -28.0,
    (State.QUEUED, State.FAILED): 40.0,
    (State.QUEUED, State.CANCELED): 56.0,
}
"""How far an arrow is bent to the right of its way, in pixels; the others are straight."""
LABELS: Final = {
    (State.QUEUED, State.FAILED): 0.42,
    (State.RUNNING, State.FAILED): 0.56,
    (State.RUNNING, State.CANCELED): 0.72,
}
"""How far along its arrow a label stands; the others in the middle."""


def state_diagram() -> str:
    """An SVG with every state and every transition with its reason."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"',
        '  font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 1 10 5 0 9z" fill="#6b5a4d"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        '<g fill="none" stroke="#6b5a4d" stroke-width="1.4" marker-end="url(#tip)">',
    ]
    ways = [(start, to, why) for start, row in TRANSITIONS.items() for to, why in row.items()]
    parts += [f'<path d="{_path(start, to)}"/>' for start, to, _ in ways]
    parts += ["</g>", '<g fill="#333333" stroke="#ffffff" stroke-width="5" paint-order="stroke">']
    parts += [_text(*_label(start, to), why) for start, to, why in ways]
    parts += ["</g>", *_boxes(), "</svg>"]
    return "\n".join(parts) + "\n"


def _boxes() -> Iterator[str]:
    width, height = BOX
    for state in State:
        x, y = PLACES[state]
        look = 'fill="#f4ece2" stroke="#43352b"' if not state.terminal else 'fill="#43352b" stroke="#43352b"'
        yield (
            f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width:.0f}" height="{height:.0f}" '
            f'rx="8" {look}/>'
        )
        colour = "#ffffff" if state.terminal else "#222222"
        yield f'<text x="{x:.0f}" y="{y + 5:.0f}" font-weight="600" font-size="15" fill="{colour}">{state}</text>'


def _path(start: State, to: State) -> str:
    if start is to:
        x, top = PLACES[start][0], PLACES[start][1] - BOX[1] / 2
        return f"M{x - 26:.0f} {top:.0f}C{x - 50:.0f} {top - 56:.0f} {x + 50:.0f} {top - 56:.0f} {x + 26:.0f} {top:.0f}"
    (ax, ay), (mx, my), (bx, by) = _points(start, to)
    return f"M{ax:.0f} {ay:.0f}Q{mx:.0f} {my:.0f} {bx:.0f} {by:.0f}"


def _points(start: State, to: State) -> tuple[tuple[float, float], ...]:
    """Where an arrow leaves its box, is bent, and reaches the other."""
    (ax, ay), (bx, by) = PLACES[start], PLACES[to]
    bend = BENDS.get((start, to), 0.0)
    length = math.hypot(bx - ax, by - ay)
    middle = ((ax + bx) / 2 - (by - ay) / length * bend * 2, (ay + by) / 2 + (bx - ax) / length * bend * 2)
    return _edge((ax, ay), middle), middle, _edge((bx, by), middle)


def _edge(box: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """The point of a box's rim that looks towards another point."""
    across, down = towards[0] - box[0], towards[1] - box[1]
    part = min((BOX[0] / 2 + 3) / abs(across or 1e-9), (BOX[1] / 2 + 3) / abs(down or 1e-9))
    return box[0] + across * part, box[1] + down * part


def _label(start: State, to: State) -> tuple[float, float]:
    if start is to:
        return PLACES[start][0], PLACES[start][1] - BOX[1] / 2 - 50
    (ax, ay), (mx, my), (bx, by) = _points(start, to)
    t = LABELS.get((start, to), 0.5)
    along = [(1 - t) ** 2 * a + 2 * t * (1 - t) * m + t * t * b for a, m, b in ((ax, mx, bx), (ay, my, by))]
    return along[0], along[1] + 4


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}">{escape(words, quote=False)}</text>'
