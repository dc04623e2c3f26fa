"""`sfumato bench engine`: step-level batching beside three plain baselines, at equal traffic.

Rates are shares of what step-level batching can do of the same traffic. Each policy has the waiting window that gives
it the lowest p99 latency at that rate. Virtual time with the simulated backend (the same numbers on every machine),
real time on the bundled model with onnx.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sfumato.bench import play, traffic
from sfumato.bench.figures import figures, short
from sfumato.bench.policies import POLICIES, WAITING, Policy, Rule
from sfumato.bench.traffic import TRAFFICS, Request, Traffic
from sfumato.core.params import ModelRules
from sfumato.engine import backends
from sfumato.models.registry import BUNDLED, Registry

__all__ = ["ONNX", "SIMULATED", "Plan", "Row", "measure", "run", "table_of"]

Play = Callable[[Sequence[Request], Rule, int], Sequence[float]]
"""(requests, rule, rows) → when each ended."""

SEED: Final = 7
EVERYTHING_AT_ONCE_PER_S: Final = 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: `requests` a run, `rows` most in a call, `steps` drawn from, windows in seconds."""

    rates: tuple[float, ...]
    windows_s: tuple[float, ...]
    requests: int
    rows: int
    steps: tuple[int, ...]


SIMULATED: Final = Plan(
    rates=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
    windows_s=(0.0, 0.2, 0.5, 1.0, 2.0),
    requests=20_000,
    rows=16,
    steps=(20, 30, 50),
)
COST: Final = play.Cost(fixed_s=0.008, row_s=0.002)
# On a CPU a batch costs about what its rows cost alone, so there is nothing to gain from waiting for one.
ONNX: Final = Plan(rates=(0.5, 0.9), windows_s=(0.0,), requests=20, rows=4, steps=(10, 15, 20))


@dataclass(frozen=True, slots=True)
class Row:
    """One policy under one traffic at one rate.

    `rate` is the share of step-level's capacity that was offered; `throughput` and `capacity` (what this policy does
    when everybody waits) are requests a second; latencies are from arrival to end.
    """

    policy: Policy
    traffic: Traffic
    rate: float
    throughput: float
    p50_s: float
    p99_s: float
    capacity: float


def run(backend: Literal["simulated", "onnx"], json_file: Path | None, plan: Plan | None = None) -> Table:
    """Measure; the table to print. Rows go to `json_file` if given."""
    model = Registry.load(None).get(BUNDLED)
    if backend == "onnx":
        loaded = backends.load("onnx", model.path, model.rules)
        playing: Play = functools.partial(play.in_real_time, backend=loaded, rules=model.rules)
    else:
        playing = functools.partial(play.in_virtual_time, cost=COST)
    rows = measure(playing, plan or (ONNX if backend == "onnx" else SIMULATED), model.rules)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return table_of(rows, f"Batching policies, backend {backend}")


def measure(playing: Play, plan: Plan, rules: ModelRules) -> list[Row]:
    """All policies under all traffics at all rates of the plan."""
    make = functools.partial(traffic.make, shapes=rules.shapes, steps=plan.steps, count=plan.requests, seed=SEED)
    rows: list[Row] = []
    told = Console(stderr=True)
    for kind in TRAFFICS:
        waiting = make(kind, per_s=EVERYTHING_AT_ONCE_PER_S)
        playing(waiting[:4], POLICIES["step-level"](plan.rows, 0.0), plan.rows)  # the first calls of a model are slow
        capacity = {
            policy: _middle_rate(playing(waiting, make_rule(plan.rows, 0.0), plan.rows))
            for policy, make_rule in track(POLICIES.items(), f"traffic {kind}, capacity", console=told, transient=True)
        }
        for rate in track(plan.rates, f"traffic {kind}", console=told, transient=True):
            requests = make(kind, per_s=rate * capacity["step-level"])
            for policy in POLICIES:
                throughput, p50_s, p99_s = _at_best(playing, plan, policy, requests)
                rows.append(Row(policy, kind, rate, throughput, p50_s, p99_s, capacity[policy]))
    return rows


def _at_best(playing: Play, plan: Plan, policy: Policy, requests: Sequence[Request]) -> tuple[float, float, float]:
    """(throughput, p50_s, p99_s) with the window that gives the lowest p99."""
    windows_s = plan.windows_s if policy in WAITING else (0.0,)
    runs = [playing(requests, POLICIES[policy](plan.rows, window_s), plan.rows) for window_s in windows_s]
    return min((figures(requests, ended) for ended in runs), key=lambda found: found[2])


def _middle_rate(ended: Sequence[float]) -> float:
    """Requests a second between the first and the last fifth: neither the filling nor the emptying is counted."""
    ordered = sorted(ended)
    low, high = len(ordered) // 5, len(ordered) * 4 // 5
    return round((high - low) / (ordered[high] - ordered[low]), 3)


def table_of(rows: Sequence[Row], title: str) -> Table:
    """One line for each traffic and rate; a policy's cell has throughput, p50 and p99."""
    table = Table(title=title, caption=_caption(rows), caption_justify="left", box=SIMPLE_HEAD)
    table.add_column("traffic")
    for column in ("rate", *POLICIES):
        table.add_column(column, justify="right", no_wrap=True)
    for kind, rate in dict.fromkeys((row.traffic, row.rate) for row in rows):
        cells = {row.policy: row for row in rows if (row.traffic, row.rate) == (kind, rate)}
        table.add_row(kind, f"{rate:.2f}", *(_cell(cells[policy]) for policy in POLICIES))
    return table


def _cell(row: Row) -> str:
    return f"{row.throughput:.1f} {short(row.p50_s)} {short(row.p99_s)}"


def _caption(rows: Sequence[Row]) -> str:
    lines = ["Cells: requests/s, p50 s, p99 s. rate: offered share of step-level's capacity."]
    for kind in dict.fromkeys(row.traffic for row in rows):
        capacity = {row.policy: row.capacity for row in rows if row.traffic == kind}
        lines.append(f"capacity, {kind}: " + ", ".join(f"{policy} {most:.2f}" for policy, most in capacity.items()))
    return "\n".join(lines)
