"""What people see: links and tables on standard output, progress on standard error."""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sfumato.client.batch import Order, Sent
from sfumato.client.views import JobInfo, ModelInfo, ScaleInfo
from sfumato.core.errors import SfumatoError

__all__ = [
    "Board",
    "CountBar",
    "JobBar",
    "as_json",
    "complain",
    "error_fields",
    "line",
    "show_job",
    "show_jobs",
    "show_models",
    "show_sent",
    "show_table",
]

COLOURS: Final = {
    "sending": "dim",
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "canceled": "magenta",
    "refused": "red",
    "unknown": "red",
}

GAP: Final = 1
SHORTEST_PROMPT: Final = 6
WIDTH_ELSEWHERE: Final = 140
WIDEST: Final = 100_000


def _aside() -> Console:
    """Standard error. FORCE_COLOR gives colours to what is no terminal, but nothing moves there."""
    console = Console(stderr=True)
    if console.is_terminal and not sys.stderr.isatty():
        return Console(stderr=True, force_terminal=False, color_system="standard")
    return console


class Board:
    """One progress bar over all pictures, with the count of each state; prints the access links as they are known."""

    def __init__(self, orders: Sequence[Order], *, follow: bool, links: bool) -> None:
        """`follow`: a picture is done when its job has ended, else when it was accepted. `links`: print them."""
        self._follow = follow
        self._unprinted = list(orders) if links else []
        self._links: dict[int, str | None] = {}
        self._states: dict[int, tuple[str, float]] = {}
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[states]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=_aside(), redirect_stdout=False)
        total = len(orders)
        self._task = self._bar.add_task(f"{total} picture{'s' * (total != 1)}", total=total, states="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._print_links([order for order in self._unprinted if id(order) in self._links])
        self._bar.stop()

    def told(self, sent: Sent) -> None:
        """Show what became of one picture."""
        self._links[id(sent.order)] = sent.job.result_url if sent.job else None
        self._print_links(list(itertools.takewhile(lambda order: id(order) in self._links, self._unprinted)))
        accepted = sent.job is not None and not self._follow
        self._states[id(sent)] = (sent.state, 1.0 if accepted else sent.done)
        states = Counter(state for state, _ in self._states.values())
        shown = "  ".join(f"[{COLOURS[state]}]{state} {states[state]}[/]" for state in COLOURS if states[state])
        self._bar.update(self._task, completed=sum(done for _, done in self._states.values()), states=shown)

    def _print_links(self, orders: Sequence[Order]) -> None:
        # In the order given, so a picture waits for those before it; a refused one has no link.
        for order in orders:
            self._unprinted.remove(order)
            if link := self._links[id(order)]:
                self._line(f"{order.source}  {link}")

    def _line(self, text: str) -> None:
        # On a terminal that shows the bar too it must stand above it; anywhere else it must go as it is.
        if sys.stdout.isatty() and sys.stderr.isatty():
            self._bar.console.print(text, soft_wrap=True, markup=False, highlight=False)
        else:
            line(text)


class JobBar:
    """One job's steps as a bar; shows nothing when `silent`."""

    def __init__(self, *, silent: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[place]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=_aside(), redirect_stdout=False, disable=silent)
        self._task = self._bar.add_task("asking", total=None, place="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def told(self, job: JobInfo) -> None:
        """Show how the job stands now."""
        place = f"{job.estimate.position} in the queue" if job.estimate and job.estimate.position else ""
        description = f"[{COLOURS[job.status]}]{job.status}[/]"
        if job.progress and job.progress.steps:  # 0 while nobody knows yet
            place = f"step {job.progress.step} of {job.progress.steps}"
            self._bar.update(self._task, completed=job.progress.step, total=job.progress.steps)
        if job.ended:
            self._bar.update(self._task, completed=1, total=1)
        self._bar.update(self._task, description=description, place=place)


class CountBar:
    """How many of so many are done; of an unknown number, only how many. Shows nothing when `silent`."""

    def __init__(self, what: str, total: int | None, *, silent: bool = False) -> None:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=_aside(), redirect_stdout=False, disable=silent)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)

    def at(self, done: int) -> None:
        """So many are done."""
        self._bar.update(self._task, completed=done)


def line(text: str) -> None:
    """One line on standard output, as it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{text}\n")


def as_json(value: JobInfo | ModelInfo | ScaleInfo) -> str:
    """The value as the service told it, on one line."""
    return value.model_dump_json()


def error_fields(error: SfumatoError) -> dict[str, str]:
    """Why something was refused or failed, as the service tells a problem; `slug` is the end of its `type`."""
    slug = getattr(error, "case", error.slug)
    return {"type": f"urn:sfumato:problem:{slug}", "slug": slug, "detail": error.detail}


def show_table(table: Table) -> None:
    """Print a table; where nothing says how wide a line may be, as wide as it is, so that no row is folded or cut."""
    console = Console()
    if not sys.stdout.isatty():
        widest = Console(width=WIDEST)
        console = Console(width=max(WIDTH_ELSEWHERE, widest.measure(table).maximum))
    console.print(table)


def show_sent(sent: Sent, *, as_json: bool) -> None:
    """Print what became of one picture; without `as_json` only what its link did not tell already."""
    if as_json:
        line(_sent_json(sent))
    elif sent.error is not None:
        complain(f"{sent.order.source}: {sent.error.detail}")
        if sent.state == "unknown":
            complain("  It may have been accepted all the same; `sfumato jobs` shows it then.")
    elif sent.saved is not None:
        line(f"{sent.order.source} → {sent.saved}")


def show_job(job: JobInfo) -> None:
    """Print one job, a field a line; what is not known is left out."""
    rows: dict[str, object] = {
        "job": job.id,
        "status": _status(job),
        "model": job.model_name,
        "prompt": job.prompt,
        "priority": job.priority,
        "queue": job.estimate and job.estimate.position and f"{job.estimate.position}, {_seconds(job.estimate.eta_s)}",
        "progress": job.progress and job.progress.steps and f"step {job.progress.step} of {job.progress.steps}",
        "attempt": job.attempt and f"{job.attempt + 1}, not before {job.next_attempt_at or 'now'}",
        "took": job.timings.get("total_s") and _seconds(job.timings["total_s"]),
        "error": job.error and job.error.detail,
        "link": job.result_url,
    }
    console = Console()
    for name, value in rows.items():
        if value:
            # As Text, for a prompt may look like markup; never folded, for a link must be copied whole.
            text = value if isinstance(value, Text) else Text(str(value))
            console.print(Text.assemble((f"{name:10}", "dim"), text), soft_wrap=True)


def show_jobs(jobs: Iterable[JobInfo]) -> None:
    """Print many jobs, one a line: the prompt takes the width that is left, everything else is shown whole."""
    found = list(jobs)
    if not found:
        line("no jobs")
        return
    # Told only to who sees the jobs of several owners.
    owners = any(job.owner for job in found)
    rows = [_row(job, owners=owners) for job in found]
    heads = (*(("owner",) if owners else ()), "job", "status", "model", "prio", "created")
    columns = zip(map(Text, heads), *(whole for whole, _ in rows), strict=True)
    needed = sum(max(cell.cell_len for cell in column) + GAP for column in columns)
    left = _width() - needed
    table = Table(*heads, box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    if left >= SHORTEST_PROMPT:
        table.add_column("prompt")
    for whole, prompt in rows:
        prompt.truncate(left, overflow="ellipsis")
        table.add_row(*[*whole, prompt][: len(table.columns)])
    Console(width=max(_width(), needed)).print(table)


def _row(job: JobInfo, *, owners: bool) -> tuple[list[Text], Text]:
    created = f"{job.created_at:%m-%d %H:%M}" if job.created_at else ""
    whole = [Text(job.id), _status(job), Text(job.model_name), Text(job.priority), Text(created)]
    return [Text(job.owner), *whole] if owners else whole, Text(" ".join(job.prompt.split()))


def _width() -> int:
    # Into a file or a pipe nothing says how wide a line may be.
    return Console().width if sys.stdout.isatty() else WIDTH_ELSEWHERE


def show_models(models: Iterable[ModelInfo]) -> None:
    """Print many models, one a row."""
    table = Table("model", "state", "workers", "waiting", "running", "what it does", box=None)
    for model in models:
        backlog = model.backlog
        table.add_row(
            Text(model.name),
            Text(model.state, "red" if model.trouble else ""),
            str(model.workers),
            str(backlog.waiting),
            str(backlog.running),
            Text(model.trouble or model.summary),
        )
    show_table(table)


def _status(job: JobInfo) -> Text:
    return Text(job.status, COLOURS[job.status])


def _seconds(value: float | None) -> str:
    return "soon" if value is None else f"{value:.1f} s"


def _sent_json(sent: Sent) -> str:
    job = sent.job
    fields: dict[str, Any] = {
        "file": str(sent.order.source),
        "status": sent.state,
        "id": job and job.id,
        "result_url": job and job.result_url,
        "status_url": job and job.status_url,
        "saved": sent.saved and str(sent.saved),
        "error": sent.error and error_fields(sent.error) | ({"type": job.error.type} if job and job.error else {}),
    }
    return json.dumps(fields)
