"""Writes what follows from the code in the docs: `python -m tests.render_docs`. A test compares it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from pydantic import SecretStr

from sfumato.config import Settings
from sfumato.observability import METRICS
from tests.render_cli import cli_page
from tests.render_states import state_diagram

__all__ = ["PAGES"]

DOCS: Final = Path(__file__).parent.parent / "docs"
BEGIN: Final = "<!-- from sfumato/observability/table.py -->\n"
END: Final = "<!-- end of the table -->\n"


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable; the command line options of the same name go first. A wrong",
        "value is refused at start, by name; a variable `SFUMATO_…` that is none of these is warned of, with the one",
        "that may be meant. Sizes are bytes, times are seconds.",
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
    """The page as it is, with the table that follows from the code between its marks."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    before, _, rest = (DOCS / "metrics.md").read_text().partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def _runbooks() -> str:
    lines = [
        "# Runbooks",
        "",
        "An alert of `deploy/prometheus-rules.yml` fired: its page says what it means, how to see it and what to do.",
        "[When each fires](metrics.md#alerts) is with the metrics.",
        "",
        "| alert | severity | what it means |",
        "|---|---|---|",
    ]
    for group in yaml.safe_load((DOCS.parent / "deploy" / "prometheus-rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            page = (DOCS / "runbooks" / f"{rule['alert']}.md").read_text()
            meaning = page.partition("## What it means\n")[2].strip().partition("\n\n")[0].replace("\n", " ")
            first = re.split(r"(?<=[.]) ", meaning)[0]
            lines.append(f"| [{rule['alert']}](runbooks/{rule['alert']}.md) | {rule['labels']['severity']} | {first} |")
    return "\n".join(lines) + "\n"


def _cli() -> str:
    return cli_page(DOCS / "cli.md")


PAGES: Final[dict[Path, Callable[[], str]]] = {
    DOCS / "settings.md": _settings,
    DOCS / "metrics.md": _metrics,
    DOCS / "cli.md": _cli,
    DOCS / "runbooks.md": _runbooks,
    DOCS / "states.svg": state_diagram,
}

if __name__ == "__main__":
    for page, render in PAGES.items():
        page.write_text(render())
