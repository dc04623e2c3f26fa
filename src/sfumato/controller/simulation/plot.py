"""The policies' curves as a plain SVG: one panel a trace, share of jobs in time over GPU-hours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from xml.sax.saxutils import escape

from sfumato.controller.simulation.judge import Row, front
from sfumato.controller.simulation.sweep import Point

__all__ = ["svg"]

COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {"ours": "#c0392b", "keda": "#2471a3", "ray-serve": "#3d8b40", "fixed": "#8a6d3b", "oracle": "#333333"}
)
TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "wave": "a day in four hours",
        "flash": "flash crowd ×20",
        "bursts": "on and off",
        "heavy": "rare heavy jobs",
        "zipf": "30 models on 8 GPUs",
    }
)
WIDTH, HEIGHT, GAP, LEFT, TOP = 300, 230, 56, 66, 64
LOWEST: Final = 0.90
WIDEST: Final = 1.7
"""A panel ends at so many times the fewest GPU-hours in it."""
COLUMNS: Final = 3
SUBTITLE: Final = (
    f"A dot is a setting, a line joins those worth having. Beyond {WIDEST} times the fewest hours nothing is shown."
)


def svg(rows: Sequence[Row]) -> str:
    """The whole picture."""
    traces = list(dict.fromkeys(row.trace for row in rows))
    lines = -(-len(traces) // COLUMNS)
    width = LEFT + COLUMNS * (WIDTH + GAP)
    height = TOP + lines * (HEIGHT + GAP + 24) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 24, "Jobs within the objective by GPU-hours: up and to the left is better", size=16, weight=600),
        _text(LEFT, 44, SUBTITLE, colour="#666666"),
    ]
    for place, trace in enumerate(traces):
        x, y = LEFT + place % COLUMNS * (WIDTH + GAP), TOP + 18 + place // COLUMNS * (HEIGHT + GAP + 24)
        parts += _panel(trace, [row for row in rows if row.trace == trace], x, y)
    if len(traces) % COLUMNS:
        x, y = LEFT + len(traces) % COLUMNS * (WIDTH + GAP), TOP + 18 + (lines - 1) * (HEIGHT + GAP + 24)
        parts += _legend(list(dict.fromkeys(row.policy for row in rows)), x, y + 20)
    return "\n".join([*parts, "</svg>", ""])


def _panel(trace: str, rows: Sequence[Row], x: float, y: float) -> list[str]:
    fewest = min((row.gpu_hours for row in rows if row.share_within_objective >= LOWEST), default=1.0)
    low, high = 0.9 * fewest, WIDEST * fewest

    def right(hours: float) -> float:
        return x + (hours - low) / (high - low) * WIDTH

    def down(share: float) -> float:
        return y + (1.0 - share) / (1.0 - LOWEST) * HEIGHT

    parts = [
        _text(x, y - 10, f"{trace}: {TITLES.get(trace, '')}", weight=600, size=13),
        f'<clipPath id="{trace}"><rect x="{x}" y="{y - 6}" width="{WIDTH}" height="{HEIGHT + 6}"/></clipPath>',
        *_axes(low, high, x, y, right, down),
        f'<g clip-path="url(#{trace})">',
    ]
    for policy in dict.fromkeys(row.policy for row in rows):
        points = [Point(row.share_within_objective, row.gpu_hours) for row in rows if row.policy == policy]
        parts += _curve(policy, points, right, down)
    return [*parts, "</g>", *_labels(rows, high, right, down)]


def _axes(
    low: float, high: float, x: float, y: float, right: Callable[[float], float], down: Callable[[float], float]
) -> list[str]:
    parts = []
    for share in (0.90, 0.92, 0.94, 0.95, 0.96, 0.98, 0.99, 1.0):
        aimed = share in (0.95, 0.99)
        if aimed or share not in (0.94, 0.96):
            dash = ' stroke-dasharray="4 3"' if aimed else ""
            colour = "#999999" if aimed else "#eeeeee"
            parts.append(f'<path d="M{x} {down(share):.1f}h{WIDTH}" stroke="{colour}"{dash}/>')
            parts.append(_text(x - 6, down(share) + 4, f"{share:.0%}", anchor="end"))
    step = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0) if (high - low) / step <= 7)
    tick = -(-low // step) * step
    while tick <= high:
        parts.append(f'<path d="M{right(tick):.1f} {y + HEIGHT}v5" stroke="#666666"/>')
        parts.append(_text(right(tick), y + HEIGHT + 18, f"{tick:g}" if step >= 1 else f"{tick:.1f}", anchor="middle"))
        tick += step
    parts.append(f'<path d="M{x} {y}v{HEIGHT}h{WIDTH}" fill="none" stroke="#666666"/>')
    parts.append(_text(x + WIDTH / 2, y + HEIGHT + 34, "GPU-hours", anchor="middle", colour="#444444"))
    parts.append(
        f'<text transform="translate({x - 44} {y + HEIGHT / 2}) rotate(-90)" text-anchor="middle" fill="#444444">'
        "jobs within the objective</text>"
    )
    return parts


def _curve(
    policy: str, points: Iterable[Point], right: Callable[[float], float], down: Callable[[float], float]
) -> list[str]:
    colour = COLOURS.get(policy, "#666666")
    points = list(points)
    line = " ".join(f"{right(point.gpu_hours):.1f},{down(point.share):.1f}" for point in front(points))
    stroke = ' stroke-width="3"' if policy == "ours" else ' stroke-width="1.6"'
    dash = ' stroke-dasharray="6 3"' if policy == "oracle" else ""
    dots = [
        f'<circle cx="{right(point.gpu_hours):.1f}" cy="{down(point.share):.1f}" r="2.6" fill="{colour}" '
        'fill-opacity="0.55"/>'
        for point in points
        if point.share >= LOWEST - 0.01
    ]
    return [f'<polyline points="{line}" fill="none" stroke="{colour}"{stroke}{dash}/>', *dots]


def _labels(
    rows: Sequence[Row], high: float, right: Callable[[float], float], down: Callable[[float], float]
) -> list[str]:
    """Each policy's name beside its lowest dot that is to be seen; names do not cover each other."""
    parts, taken = list[str](), list[tuple[float, float]]()
    for policy in dict.fromkeys(row.policy for row in rows):
        seen = [
            row
            for row in rows
            if row.policy == policy and row.share_within_objective >= LOWEST and row.gpu_hours <= high
        ]
        if not seen:
            continue
        best = min(seen, key=lambda row: (row.share_within_objective, row.gpu_hours))
        x, y = (
            min(right(best.gpu_hours) + 6, right(high) - 56),
            max(down(best.share_within_objective) + 14, down(1.0) + 16),
        )
        while any(abs(x - left) < 62 and abs(y - top) < 13 for left, top in taken):
            y += 13
        taken.append((x, y))
        parts.append(_text(x, y, policy, colour=COLOURS.get(policy, "#666666"), weight=600))
    return parts


def _legend(policies: Sequence[str], x: float, y: float) -> list[str]:
    said = {
        "ours": "Sfumato's autoscaler",
        "keda": "KEDA with a HorizontalPodAutoscaler",
        "ray-serve": "Ray Serve",
        "fixed": "a fixed number of workers",
        "oracle": "knows what will come",
    }
    parts = []
    for place, policy in enumerate(policies):
        at, colour = y + 24 * place, COLOURS.get(policy, "#666666")
        stroke = ' stroke-width="3"' if policy == "ours" else ' stroke-width="1.6"'
        dash = ' stroke-dasharray="6 3"' if policy == "oracle" else ""
        parts.append(f'<path d="M{x} {at}h28" stroke="{colour}"{stroke}{dash}/>')
        parts.append(_text(x + 36, at + 4, f"{policy}: {said.get(policy, '')}"))
    return parts


def _text(
    x: float, y: float, words: str, anchor: str = "start", colour: str = "#222222", size: int = 12, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )
