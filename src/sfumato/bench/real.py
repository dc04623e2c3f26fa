"""`sfumato bench engine --backend diffusers`: step-level batching beside diffusers' own pipeline, on a real model.

The same folder is loaded twice, by our backend and as diffusers' img2img pipeline, on one device in one dtype, and both
answer the same requests in one run: one after the other, in groups of equals (static: only full ones; dynamic: with a
waiting window), and step by step. Then the network alone says what the device could do at most.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sfumato.bench import play, traffic
from sfumato.bench.baselines import rules as groups
from sfumato.bench.ceiling import Ceiling, lines
from sfumato.bench.policies import AtOnce, InGroups
from sfumato.bench.traffic import Request, Traffic
from sfumato.bench.ways import Plan, Player, Row, Tell, Way, measure, runs_of, table_of
from sfumato.core.params import ModelRules, Shape, evaluations
from sfumato.engine import backends
from sfumato.engine.backends import About, Backend, BackendUnusable, Options
from sfumato.models.registry import Registry

if TYPE_CHECKING:
    from sfumato.bench.baselines.pipeline import Pipeline

__all__ = ["ON_CPU", "PLANS", "Architecture", "Device", "plan_for", "run"]

Architecture = Literal["sd15", "sdxl", "flux-small", "tiny"]
Device = Literal["auto", "cpu", "cuda"]

# So many requests that there is a table within minutes on a data centre's GPU.
PLANS: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        "sd15": Plan(requests=48, rows=16, steps=(20, 30)),
        "sdxl": Plan(requests=24, rows=8, steps=(20, 30)),
        "flux-small": Plan(requests=24, rows=4, steps=(20, 28)),
        "tiny": Plan(requests=48, rows=16, steps=(10, 20), windows_s=(0.0, 0.05, 0.2)),
    }
)
ON_CPU: Final = Plan(requests=2, rows=4, steps=(4,), shares=(), traffics=("square",), warm_up=False)
"""For any but the tiny model, where a row takes seconds: no more than shows that everything works."""
ALIKE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "stable-diffusion": "sd15",
        "stable-diffusion-xl": "sdxl",
        "stable-diffusion-3": "sdxl",
        "flux": "flux-small",
    }
)
"""Family of a folder → the architecture whose plan it is measured by."""
SEED: Final = 7
PROMPT: Final = "picture number {}"
SHORT: Final = (4, 0.5)
"""Steps and strength of what is made only so that it was made once."""
TELLS_OF_NETWORK: Final = 5
"""Two and one a way; fewer on the CPU."""


def run(
    architecture: Architecture | None,
    folder: Path | None,
    device: Device,
    json_file: Path | None,
    requests: int | None = None,
) -> Table:
    """Measure the model in `folder`, without one this architecture with random weights; the table to print.

    `requests` a run in place of the plan's own number. What was measured goes to `json_file` if given.

    Raises:
        BackendUnusable: torch or diffusers is not installed, there is no such device, or the folder is not whole.
        BadModels: the folder is no diffusers folder.
    """
    try:
        from sfumato.bench.baselines import architectures, network
        from sfumato.bench.baselines.pipeline import Pipeline
    except ImportError as error:
        raise BackendUnusable(f"--backend diffusers needs {error.name}: pip install 'sfumato[diffusers]'.") from error
    with tempfile.TemporaryDirectory(prefix="sfumato-bench-") as scratch, _bar() as bar:
        if folder is None:
            bar.tell(f"making {architecture}")
            folder = Path(scratch, "model")
            model = f"{architectures.build(str(architecture), folder, device)}, with random weights"
        else:
            model = str(folder)
        bar.tell("loading it twice")
        rules = _rules_of(folder, Path(scratch, "models.toml"))
        # Threads that meet at every small operation crawl as soon as anything else has one of the cores.
        threads = 1 if architecture == "tiny" else 0
        backend = backends.load("diffusers", folder, rules, Options(threads=threads, device=device))
        about = backend.about
        place = about.device.partition(" ")[0]  # what is behind it is for people
        pipeline = Pipeline(folder, place, about.dtype, rules.sampler)
        plan = plan_for(architecture, about, rules, requests)
        bar.expect(runs_of(plan) + len(rules.shapes) * plan.warm_up + TELLS_OF_NETWORK)
        rows = _rows(backend, pipeline, rules, plan, bar.tell)
        square = [Request(0.0, rules.shapes[0], *SHORT)] * _pictures_a_call(plan, rules, about)
        ceiling = network.measure(pipeline, play.jobs_of(square, rules, PROMPT), place, bar.tell)
    facts = {
        "model": model,
        "family": about.family,
        "device": network.name_of(place),
        "dtype": about.dtype,
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "sampler": rules.sampler.value,
        "guidance_scale": rules.guidance_scale,
        "plan": asdict(plan),
    }
    if json_file is not None:
        found = {"about": facts, "rows": [asdict(row) for row in rows], "ceiling": asdict(ceiling)}
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    return table_of(rows, f"Ways of batching: {model}", "\n".join(_caption(facts, plan, rows, ceiling)))


def plan_for(architecture: Architecture | None, about: About, rules: ModelRules, requests: int | None) -> Plan:
    """How much is measured of a model on its device; `requests` a run if given.

    A model of one's own is asked for its usual steps and two thirds of them.
    """
    plan = PLANS[architecture or ALIKE[about.family]]
    if architecture is None:
        usual = rules.num_inference_steps
        plan = replace(plan, steps=(max(SHORT[0], usual * 2 // 3), max(SHORT[0], usual)))
    if about.device == "cpu" and architecture != "tiny":
        plan = ON_CPU
    return plan if requests is None else replace(plan, requests=requests)


def _rows(backend: Backend, pipeline: "Pipeline", rules: ModelRules, plan: Plan, tell: Tell) -> list[Row]:
    pictures = _pictures_a_call(plan, rules, backend.about)
    players = _players(backend, pipeline, rules, plan.rows, pictures)

    def make(kind: Traffic, per_s: float) -> Sequence[Request]:
        return traffic.make(kind, rules.shapes, plan.steps, per_s, plan.requests, SEED)

    def rows_of(request: Request) -> int:
        steps = evaluations(request.steps, request.strength, rules.sampler)
        return steps * _rows_a_picture(rules, backend.about)

    if plan.warm_up:
        for shape in {request.shape: None for kind in plan.traffics for request in make(kind, 1.0)}:
            tell(f"warm-up, {shape.width} × {shape.height}")
            _warm_up(players, shape, pictures)
    return measure(players, make, rows_of, plan, tell)


def _warm_up(players: Mapping[Way, Player], shape: Shape, pictures: int) -> None:
    """Batches of every size once: at the first, kernels are loaded, and on CUDA the engine's graphs are recorded."""
    ways: tuple[Way, ...] = ("dynamic batching", "step-level")
    for way in ways:
        for count in range(1, pictures + 1):
            players[way]([Request(0.0, shape, *SHORT)] * count, 0.0)


def _players(backend: Backend, pipeline: "Pipeline", rules: ModelRules, rows: int, pictures: int) -> dict[Way, Player]:
    """Most in a call: `rows` of the network; `pictures` of the pipeline, which come to as many rows."""

    def grouped(rule_of: Callable[[Sequence[Request], float], InGroups]) -> Player:
        def play_it(requests: Sequence[Request], window_s: float) -> Sequence[float]:
            jobs = play.jobs_of(requests, rules, PROMPT)
            rule = rule_of(requests, window_s)
            return play.in_groups(requests, rule, lambda group: pipeline.make([jobs[index] for index in group]))

        return play_it

    return {
        "sequential diffusers": grouped(lambda requests, window_s: groups.one_by_one()),
        "static batching": grouped(lambda requests, window_s: groups.static(pictures, requests[-1].arrives_s)),
        "dynamic batching": grouped(lambda requests, window_s: groups.dynamic(pictures, window_s)),
        "step-level": lambda requests, window_s: play.in_real_time(requests, AtOnce(), rows, backend, rules, PROMPT),
    }


def _rows_a_picture(rules: ModelRules, about: About) -> int:
    return 2 if rules.guidance_scale > 1 and not about.embeds_guidance else 1


def _pictures_a_call(plan: Plan, rules: ModelRules, about: About) -> int:
    return max(1, plan.rows // _rows_a_picture(rules, about))


def _rules_of(folder: Path, list_of_models: Path) -> ModelRules:
    """What the service would publish for this folder, read as it reads it."""
    table = f'[models.bench]\nbackend = "diffusers"\npath = {json.dumps(str(folder.resolve()), ensure_ascii=False)}\n'
    list_of_models.write_text(table, "utf-8")
    return Registry.load(list_of_models).get("bench").rules


def _caption(facts: Mapping[str, Any], plan: Plan, rows: Sequence[Row], ceiling: Ceiling) -> list[str]:
    windows = ", ".join(
        f"{row.traffic} {load.share:.2f}: {load.window_s:g} s"
        for row in rows
        if row.way == "dynamic batching"
        for load in row.loads
    )
    return [
        f"{facts['device']}, {facts['dtype']}, torch {facts['torch']}, diffusers {facts['diffusers']}; "
        f"{facts['sampler']}, guidance {facts['guidance_scale']:g}",
        f"pictures/s, rows/s: {plan.requests} requests waiting at once, at most {plan.rows} rows in a call.",
        *(["at: offered share of step-level's pictures/s."] if plan.shares else []),
        *([f"waiting window of dynamic batching: {windows}"] if windows else []),
        *lines(ceiling, rows, facts["dtype"]),
    ]


class _Bar:
    """What is done now and how far all of it is, on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task, self._told = progress, progress.add_task("", total=None), 0

    def tell(self, what: str) -> None:
        """This is done from now on."""
        self._told += 1
        if not self._progress.console.is_terminal:
            self._progress.console.print(what)  # there is no bar, and the table is minutes away
        self._progress.update(self._task, description=what, completed=self._told)

    def expect(self, more: int) -> None:
        """It will be told so often from now on."""
        self._progress.update(self._task, total=self._told + more)


@contextmanager
def _bar() -> Iterator[_Bar]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)
