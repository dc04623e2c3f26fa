"""A real Prometheus that scrapes a real service and evaluates our alert rules, and what it answers."""

import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sfumato.cluster.server import Recipe, free_ports, running

__all__ = ["DEPLOY", "Prometheus", "expressions", "prometheus", "promtool", "selectors"]

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
RULES: Final = DEPLOY / "prometheus-rules.yml"


def program(name: str) -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine, and there is no wheel of it: apt-get install prometheus")
    return found


def promtool(*arguments: str | Path) -> str:
    """What promtool prints; an AssertionError with it when it finds something wrong."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> Any:
        """The `data` of its answer; an AssertionError with its words when it has something against the question."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{query}: {error.read().decode()}") from None

    def values(self, expression: str) -> dict[str, float]:
        """Labels → value, of what is a number: nothing divided by nothing is none."""
        found = self.ask("query", query=expression)["result"]
        numbers = {json.dumps(each["metric"], sort_keys=True): float(each["value"][1]) for each in found}
        return {labels: number for labels, number in numbers.items() if not math.isnan(number)}

    def firing(self) -> set[tuple[str, str]]:
        """Name and model or role of each alert that fires."""
        alerts = [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(labels["alertname"], labels.get("model", labels.get("role", ""))) for labels in alerts}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Prometheus over `folder`; it scrapes `target` (host:port) and looks at the rules once a second.

    Alerts fire at once, whatever their `for`: how long they wait is tried by promtool, in no time.
    """
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [{"job_name": "gateways", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = (program("prometheus"), *(f"--{name}={value}" for name, value in options.items()))
    with running(Recipe("prometheus", command, ready=lambda: _ready(url)), folder / "prometheus.log"):
        yield Prometheus(url)


def _ready(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
        return bool(answer.status == 200)


def expressions() -> Sequence[tuple[str, str]]:
    """Where it stands, and what is asked there: every query of every dashboard and rule, variables filled in."""
    found = []
    for file in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            found += [(f"{file.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            found += [(f"{rule['alert']}: {selector}", selector) for selector in selectors(rule["expr"])]
    filled = {"$__rate_interval": "15s", "$model": ".*"}
    for variable, value in filled.items():
        found = [(where, expression.replace(variable, value)) for where, expression in found]
    return found


def selectors(expression: str) -> Sequence[str]:
    """The series that an expression asks for, each as a query of its own."""
    return re.findall(r"\b(?:sfumato_\w+|up)\b(?:\{[^}]*\})?", expression)
