"""What was found of the ways of batching so far: kept in a file as it comes, and shown as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from sfumato.bench.ceiling import Ceiling, lines
from sfumato.bench.ways import Plan, Row, runs_of, table_of

__all__ = ["BY_HAND", "DONE", "IN_TIME", "Findings"]

GOES_ON: Final = "not yet"
IN_TIME: Final = "the time was over"
BY_HAND: Final = "interrupted"
DONE: Final = "all of the plan is measured"


@dataclass(slots=True)
class Findings:
    """Of one model; `keep` after every change, so that a process that is killed leaves what it had.

    `about` has what was measured on what; `left_out` what the whole plan has beyond `plan`, in words; `ended` says
    whether and why it ended; `runs` counts those of `plan` that are done.
    """

    json_file: Path | None
    about: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    left_out: Sequence[str] = ()
    rows: Sequence[Row] = ()
    runs: int = 0
    ceiling: Ceiling | None = None
    ended: str = GOES_ON

    def keep(self) -> None:
        """Write all of it to the file, if there is one."""
        if self.json_file is None:
            return
        found = {
            "about": {**self.about, "plan": asdict(self.plan) if self.plan else None},
            "left_out": list(self._missing()),
            "ended": self.ended,
            "rows": [asdict(row) for row in self.rows],
            "ceiling": asdict(self.ceiling) if self.ceiling else None,
        }
        # Whole or not at all: it may be killed at any moment.
        part = self.json_file.with_name(f"{self.json_file.name}.part")
        part.write_text(json.dumps(found, indent=1) + "\n")
        part.replace(self.json_file)

    def table(self) -> Table:
        """As far as it was measured; what is missing stands below."""
        caption = "\n".join(self._caption())
        return table_of(self.rows, f"Ways of batching: {self.about['model']}", caption)

    def _missing(self) -> Sequence[str]:
        runs = runs_of(self.plan) - self.runs if self.plan else 0
        return [*self.left_out, *([f"{runs} of {runs_of(self.plan)} runs"] if self.plan and runs else [])]

    def _caption(self) -> Sequence[str]:
        about, plan, missing = self.about, self.plan, self._missing()
        windows = ", ".join(
            f"{row.traffic} {load.share:.2f}: {load.window_s:g} s"
            for row in self.rows
            if row.way == "dynamic batching"
            for load in row.loads
        )
        said = [
            f"{about['device']}, {about['dtype']}, torch {about['torch']}, diffusers {about['diffusers']}; "
            f"{about['sampler']}, guidance {about['guidance_scale']:g}"
        ]
        if plan:
            said.append(
                f"pictures/s, rows/s: {plan.requests} requests waiting at once, at most {plan.rows} rows in a call."
            )
        if windows:
            said += ["at: offered share of step-level's pictures/s.", f"waiting window of dynamic batching: {windows}"]
        if self.ceiling:
            said += lines(self.ceiling, self.rows, about["dtype"])
        if missing or self.ended != DONE:
            why = "" if self.ended == DONE else f" ({self.ended})"
            said.append(f"not measured{why}: {', '.join(missing) or 'other ways to call the network alone'}")
        return said
