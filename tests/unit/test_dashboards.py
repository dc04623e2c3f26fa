"""The dashboards are what Grafana takes, ask for what we measure, and each alert has its page."""

import itertools
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from sfumato.observability import METRICS
from tests.prometheus import DEPLOY, selectors

DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
RUNBOOKS = DEPLOY.parent / "docs" / "runbooks"
RULES = [
    rule for group in yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text())["groups"] for rule in group["rules"]
]
OF_PROMETHEUS = {"instance", "job"}
each_dashboard = pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


class Strict(BaseModel):
    """As much of Grafana's published schema of dashboards (schemaVersion 42) as ours use; anything else is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Source(Strict):
    type: Literal["prometheus"]
    uid: Literal["prometheus"]


class Target(Strict):
    ref_id: Annotated[str, Field(alias="refId", pattern="^[A-Z]$")]
    datasource: Source
    expr: Annotated[str, Field(min_length=1)]
    legend: Annotated[str, Field(alias="legendFormat")]
    range: bool
    instant: bool = False
    editor: Annotated[Literal["code"], Field(alias="editorMode")]


class Place(Strict):
    x: Annotated[int, Field(ge=0, lt=24)]
    y: Annotated[int, Field(ge=0)]
    w: Annotated[int, Field(gt=0, le=24)]
    h: Annotated[int, Field(gt=0)]

    def cells(self) -> set[tuple[int, int]]:
        return set(itertools.product(range(self.x, self.x + self.w), range(self.y, self.y + self.h)))


class Step(Strict):
    value: float | int | None
    color: Literal["green", "red"]


class Thresholds(Strict):
    mode: Literal["absolute"]
    steps: Annotated[list[Step], Field(min_length=1)]


class Stacking(Strict):
    mode: Literal["normal"]
    group: str


class Custom(Strict):
    line_width: Annotated[int, Field(alias="lineWidth", ge=0, le=10)]
    fill_opacity: Annotated[int, Field(alias="fillOpacity", ge=0, le=100)]
    show_points: Annotated[Literal["never"], Field(alias="showPoints")]
    stacking: Stacking | None = None


class Defaults(Strict):
    unit: Literal["short", "s", "ops", "reqps", "bytes", "percentunit"]
    min: int = 0
    custom: Custom | None = None
    thresholds: Thresholds | None = None


class Fields(Strict):
    defaults: Defaults
    overrides: Annotated[list[None], Field(max_length=0)]


class Legend(Strict):
    mode: Annotated[Literal["list"], Field(alias="displayMode")]
    placement: Literal["bottom"]
    show: Annotated[bool, Field(alias="showLegend")]
    calcs: list[str]


class Tooltip(Strict):
    mode: Literal["multi"]
    sort: Literal["desc"]


class LinesOptions(Strict):
    legend: Legend
    tooltip: Tooltip


class Reduce(Strict):
    calcs: list[Literal["lastNotNull"]]
    fields_: Annotated[Literal[""], Field(alias="fields")]
    values: Literal[False]


class NumberOptions(Strict):
    graph: Annotated[Literal["none"], Field(alias="graphMode")]
    color: Annotated[Literal["value"], Field(alias="colorMode")]
    justify: Annotated[Literal["auto"], Field(alias="justifyMode")]
    text: Annotated[Literal["auto"], Field(alias="textMode")]
    wide: Annotated[bool, Field(alias="wideLayout")]
    show_change: Annotated[bool, Field(alias="showPercentChange")]
    change_color: Annotated[Literal["standard"], Field(alias="percentChangeColorMode")]
    orientation: Literal["auto"]
    reduce: Annotated[Reduce, Field(alias="reduceOptions")]


class Panel(Strict):
    id: Annotated[int, Field(gt=0)]
    title: Annotated[str, Field(min_length=1)]
    description: str
    datasource: Source
    targets: Annotated[list[Target], Field(min_length=1)]
    fields_: Annotated[Fields, Field(alias="fieldConfig")]
    place: Annotated[Place, Field(alias="gridPos")]


class Lines(Panel):
    type: Literal["timeseries"]
    options: LinesOptions


class Number(Panel):
    type: Literal["stat"]
    options: NumberOptions


class Chosen(Strict):
    text: list[str]
    value: list[str]


class Variable(Strict):
    type: Literal["query"]
    name: str
    label: str
    datasource: Source
    query: str
    refresh: Literal[2]
    sort: Literal[1]
    multi: bool
    include_all: Annotated[bool, Field(alias="includeAll")]
    all_value: Annotated[Literal[".*"], Field(alias="allValue")]
    current: Chosen


class Variables(Strict):
    list: list[Variable]


class Annotations(Strict):
    list: Annotated[list[None], Field(max_length=0)]


class Link(Strict):
    title: str
    type: Literal["dashboards"]
    icon: str
    tooltip: str
    url: str
    tags: list[str]
    as_dropdown: Annotated[bool, Field(alias="asDropdown")]
    blank: Annotated[bool, Field(alias="targetBlank")]
    with_variables: Annotated[bool, Field(alias="includeVars")]
    with_time: Annotated[bool, Field(alias="keepTime")]


class Time(Strict):
    begin: Annotated[str, Field(alias="from", pattern=r"^now-\d+h$")]
    to: Literal["now"]


class Dashboard(Strict):
    uid: Annotated[str, Field(pattern="^[a-z-]{8,40}$")]
    title: str
    description: str
    tags: list[str]
    timezone: Literal["browser"]
    editable: Literal[False]
    tooltip: Annotated[Literal[0, 1, 2], Field(alias="graphTooltip")]
    schema_version: Annotated[Literal[42], Field(alias="schemaVersion")]
    version: int
    refresh: str
    time: Time
    templating: Variables
    annotations: Annotations
    links: list[Link]
    panels: Annotated[list[Annotated[Lines | Number, Field(discriminator="type")]], Field(min_length=1)]


def read(file: Path) -> Dashboard:
    return Dashboard.model_validate_json(file.read_text())


def labels(selector: str) -> set[str]:
    """The labels of the metric that a selector names; a KeyError when there is none."""
    name = re.sub(r"_(bucket|sum|count)$", "", selector.partition("{")[0])
    known = {metric.name: set(metric.labels) for metric in METRICS}
    known |= {"up": set()}
    return known[name] | OF_PROMETHEUS


@each_dashboard
def test_dashboard_is_what_grafana_takes(file: Path) -> None:
    assert read(file).uid == f"sfumato-{file.stem}"


@each_dashboard
def test_panels_have_ids_of_their_own_and_do_not_overlap(file: Path) -> None:
    panels = read(file).panels
    places = [panel.place for panel in panels]

    assert len({panel.id for panel in panels}) == len(panels)
    assert sum(len(place.cells()) for place in places) == len(set().union(*(place.cells() for place in places)))
    assert all(place.x + place.w <= 24 for place in places)
    for panel in panels:
        assert len({target.ref_id for target in panel.targets}) == len(panel.targets)


@each_dashboard
def test_queries_and_legends_name_what_is_measured(file: Path) -> None:
    dashboard = read(file)
    for target in (target for panel in dashboard.panels for target in panel.targets):
        known = set().union(*(labels(selector) for selector in selectors(target.expr)))
        named = set(re.findall(r"\{\{(\w+)\}\}", target.legend))
        named |= {name for group in re.findall(r"\bby \(([^)]*)\)", target.expr) for name in group.split(", ")}
        assert named - {"le"} <= known, target.expr
        assert set(re.findall(r"\$(\w+)", target.expr)) <= {"__rate_interval", "model"}
        assert "$model" not in target.expr or [variable.name for variable in dashboard.templating.list] == ["model"]


def test_datasource_is_the_one_that_the_dashboards_ask() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text())["datasources"]
    assert [(source["type"], source["uid"]) for source in sources] == [("prometheus", "prometheus")]


def test_every_dashboard_is_mounted_where_grafana_looks_for_it() -> None:
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text())["providers"]
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose-infra.yaml").read_text())
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    folder = provider["options"]["path"]
    assert {mounted[f"./deploy/grafana/{file.name}"] for file in DASHBOARDS} == {
        f"{folder}/{file.name}" for file in DASHBOARDS
    }


def test_everything_that_is_measured_is_seen_somewhere() -> None:
    asked = [target.expr for file in DASHBOARDS for panel in read(file).panels for target in panel.targets]
    seen = " ".join([*asked, *(rule["expr"] for rule in RULES)])
    assert [metric.name for metric in METRICS if not re.search(rf"\b{metric.name}(_bucket|_sum|_count)?\b", seen)] == []


# Alerts


@each_rule
def test_alert_asks_for_what_is_measured(rule: dict[str, str]) -> None:
    assert all(labels(selector) for selector in selectors(rule["expr"]))


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages == {rule["alert"] for rule in RULES}


@each_rule
def test_alert_leads_to_its_page_which_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == ["What it means", "How to see", "What to do"]


def test_every_alert_is_tried_and_named_in_the_docs() -> None:
    tried = (DEPLOY / "prometheus-rules.test.yml").read_text()
    page = (DEPLOY.parent / "docs" / "metrics.md").read_text()
    names = {rule["alert"] for rule in RULES}
    assert {name for name in names if f"alertname: {name}\n" not in tried} == set()
    assert {name for name in names if f"(runbooks/{name}.md)" not in page} == set()
