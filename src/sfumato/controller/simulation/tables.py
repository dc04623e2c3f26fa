"""Plays the simulation and writes what came of it as a table, rows and a plot."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sfumato.controller.simulation.judge import CHOOSING, JUDGING, RIVALS, Verdict, judge, rows, write
from sfumato.controller.simulation.plot import svg
from sfumato.controller.simulation.sweep import POLICIES, run_all, runs

__all__ = ["run", "table_of"]

NONE: Final = "–"


def run(
    traces: Sequence[str],
    policies: Sequence[str],
    json_file: Path | None = None,
    plot_file: Path | None = None,
    scale: float = 1.0,
    processes: int | None = None,
) -> Table:
    """The table to print; rows go to `json_file`, curves to `plot_file`. `scale` shortens every trace."""
    todo = runs(traces, policies, (*CHOOSING, *JUDGING), scale)
    played = run_all(todo, processes or os.cpu_count() or 1)
    # FORCE_COLOR makes a pipe look like a terminal, and nothing may move there.
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    results = list(track(played, "simulating", total=len(todo), console=console, transient=True))
    verdicts, found = judge(results), rows(results)
    if json_file is not None:
        write(found, json_file)
    if plot_file is not None:
        plot_file.write_text(svg(found))
    return table_of(verdicts, policies)


def table_of(verdicts: Sequence[Verdict], policies: Sequence[str]) -> Table:
    """One line a trace and share; how ours compares where it was played."""
    settings = len(next(iter(POLICIES.values())))
    table = Table(
        title="GPU-hours for so many jobs within the objective",
        caption=f"{settings} settings a policy, chosen on seeds {_listed(CHOOSING)}, judged on {_listed(JUDGING)}; "
        f"{NONE}: not reached. The last column leaves the rivals' delays as they are shipped.",
        box=SIMPLE_HEAD,
    )
    table.add_column("trace")
    table.add_column("jobs in time", justify="right")
    for policy in policies:
        table.add_column(policy, justify="right")
    ratios = "ours" in policies and len(policies) > 1
    if ratios:
        for head in ("ours ÷ oracle", "ours ÷ best rival", "÷ as shipped"):
            table.add_column(head, justify="right")
    for verdict in verdicts:
        cells = [verdict.trace, f"{verdict.target:.0%}", *(_hours(verdict.hours.get(policy)) for policy in policies)]
        if ratios:
            cells += map(_hours, (verdict.ratio(["oracle"]), verdict.ratio(RIVALS), verdict.ratio(RIVALS, True)))
        table.add_row(*cells)
    return table


def _hours(hours: float | None) -> str:
    return NONE if hours is None else f"{hours:.2f}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
