"""Writes the reference pages that follow from the code: `python -m tests.render_docs`. A test compares them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from sfumato.config import Settings
from sfumato.observability import METRICS

__all__ = ["PAGES"]

DOCS: Final = Path(__file__).parent.parent / "docs"


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable; the command line options of the same name go first. A wrong",
        "value is refused at start, by name. Sizes are bytes, times are seconds.",
        "",
        "| variable | default | what it does |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default is None or isinstance(default, SecretStr) else f"`{default}`" if default != "" else ""
        lines.append(f"| `SFUMATO_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` gives them in Prometheus' text format, for all processes of one `sfumato up` together.",
        "No label ever carries a job id.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines) + "\n"


PAGES: Final[dict[Path, Callable[[], str]]] = {
    DOCS / "settings.md": _settings,
    DOCS / "metrics.md": _metrics,
}

if __name__ == "__main__":
    for page, render in PAGES.items():
        page.write_text(render())
