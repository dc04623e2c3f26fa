"""`sfumato bench engine --backend diffusers`: step-level batching beside diffusers' own pipeline, on a real model.

The same folder is loaded twice, by our backend and as diffusers' img2img pipeline, on one device in one dtype, and both
answer the same requests in one run: one after the other, in groups of equals (static: only full ones; dynamic: with a
waiting window), and step by step. Then the network alone says what the device could do at most.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from rich.table import Table

from sfumato.bench import play, traffic
from sfumato.bench.baselines import rules as groups
from sfumato.bench.budget import fitted, left_out
from sfumato.bench.findings import BY_HAND, DONE, IN_TIME, Findings
from sfumato.bench.policies import AtOnce, InGroups
from sfumato.bench.progress import Bar, bar
from sfumato.bench.stopping import Stopped, stopped_after
from sfumato.bench.traffic import Request, Traffic
from sfumato.bench.ways import Plan, Player, Row, Way, measure, runs_of
from sfumato.core.errors import SfumatoError
from sfumato.core.params import ModelRules, Shape, evaluations
from sfumato.engine import backends
from sfumato.engine.backends import About, Backend, BackendUnusable, Options
from sfumato.models.registry import Registry

if TYPE_CHECKING:
    from sfumato.bench.baselines.pipeline import Pipeline

__all__ = ["ON_CPU", "PLANS", "Architecture", "Device", "OutOfTime", "plan_for", "run"]

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
MIDDLE_STRENGTH: Final = 0.6
WARMED: Final[tuple[Way, ...]] = ("dynamic batching", "step-level")
PLANNED: Final = 0.85
"""Share of the time left that is planned; the rest is for the ways of the network alone."""


class OutOfTime(SfumatoError):
    """There was not enough time to measure anything."""

    slug = "out-of-time"
    title = "There was not enough time to measure anything"


def run(
    architecture: Architecture | None,
    folder: Path | None,
    device: Device,
    json_file: Path | None,
    show: Callable[[Table], object],
    *,
    requests: int | None = None,
    minutes: float | None = None,
) -> None:
    """Measure the model in `folder`, without one this architecture with random weights, and show the table.

    `requests` a run in place of the plan's own number; the plan is cut to about `minutes`, which end it in any case.
    What was measured goes to `json_file` if given, after every run. Ctrl-C, SIGTERM and the clock end it with the table
    of what there is by then.

    Raises:
        BackendUnusable: torch or diffusers is not installed, there is no such device, or the folder is not whole.
        BadModels: the folder is no diffusers folder.
        OutOfTime: the minutes were over before anything was measured.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the table was shown.
    """
    found = Findings(json_file)
    try:
        with (
            bar() as told,
            tempfile.TemporaryDirectory(prefix="sfumato-bench-") as scratch,
            # Innermost: nothing rings any more while the gigabytes of the others are removed.
            stopped_after(None if minutes is None else minutes * 60),
        ):
            _measure(found, architecture, folder, device, requests, minutes, Path(scratch), told)
    except Stopped as stop:
        found.ended = IN_TIME if stop.in_time else BY_HAND
        if found.rows or found.ceiling:
            found.keep()
            show(found.table())
        elif stop.in_time:
            raise OutOfTime(f"{minutes:g} minutes were over before anything was measured; give more.") from None
        if not stop.in_time:
            raise
    else:
        found.ended = DONE
        found.keep()
        show(found.table())


def _measure(
    found: Findings,
    architecture: Architecture | None,
    folder: Path | None,
    device: Device,
    requests: int | None,
    minutes: float | None,
    scratch: Path,
    told: Bar,
) -> None:
    told.tell("importing torch and diffusers")
    try:
        from sfumato.bench.baselines import architectures, network
        from sfumato.bench.baselines.pipeline import Pipeline
    except ImportError as error:
        raise BackendUnusable(f"--backend diffusers needs {error.name}: pip install 'sfumato[diffusers]'.") from error
    if folder is None:
        told.tell(f"making {architecture}")
        folder = scratch / "model"
        model = f"{architectures.build(str(architecture), folder, device)}, with random weights"
    else:
        model = str(folder)
    told.tell("loading it, for the engine")
    rules = _rules_of(folder, scratch / "models.toml")
    # Threads that meet at every small operation crawl as soon as anything else has one of the cores.
    threads = 1 if architecture == "tiny" else 0
    backend = backends.load("diffusers", folder, rules, Options(threads=threads, device=device))
    about = backend.about
    place = about.device.partition(" ")[0]  # what is behind it is for people
    told.tell("loading it, as diffusers' pipeline")
    pipeline = Pipeline(folder, place, about.dtype, rules.sampler)
    found.about = {
        "model": model,
        "family": about.family,
        "device": network.name_of(place),
        "dtype": about.dtype,
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "sampler": rules.sampler.value,
        "guidance_scale": rules.guidance_scale,
    }
    bench = _Bench(backend, pipeline, rules, plan_for(architecture, about, rules, requests), told)
    ceilings = network.measure(pipeline, bench.full_call(), place, told.tell)
    found.ceiling = next(ceilings)
    found.keep()
    found.plan, found.left_out = bench.plan_within(None if minutes is None else minutes * 60)
    for rows in bench.measured(found.plan):
        found.rows, found.runs = rows, found.runs + 1
        found.keep()
    for ceiling in ceilings:
        found.ceiling = ceiling
        found.keep()


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


class _Bench:
    """One model on both sides, and what of its plan there is time for."""

    def __init__(self, backend: Backend, pipeline: "Pipeline", rules: ModelRules, plan: Plan, told: Bar) -> None:
        self._rules, self._whole, self._told = rules, plan, told
        self._rows_a_picture = 2 if rules.guidance_scale > 1 and not backend.about.embeds_guidance else 1
        self._pictures = max(1, plan.rows // self._rows_a_picture)
        self._players = _players(backend, pipeline, rules, plan.rows, self._pictures)
        self._warm: set[Shape] = set()

    def full_call(self) -> list[play.Job]:
        """As many pictures of the first shape as the network takes in one call."""
        return play.jobs_of([Request(0.0, self._rules.shapes[0], *SHORT)] * self._pictures, self._rules, PROMPT)

    def plan_within(self, seconds: float | None) -> tuple[Plan, list[str]]:
        """(What of the plan fits into the time since the beginning, what does not in words), by a picture's time."""
        plan = self._whole
        first, *_ = self._shapes(plan)
        warm_up_s = self._warm_up(first) if plan.warm_up else 0.0
        picture = Request(0.0, first, round(sum(plan.steps) / len(plan.steps)), MIDDLE_STRENGTH)
        self._told.tell("one picture, for an estimate")
        picture_s = max(self._players["sequential diffusers"]([picture], 0.0))

        def seconds_of(cut: Plan) -> float:
            # No run takes much longer than one by one: whoever batches is quicker, at half a share half as busy.
            return (len(self._shapes(cut)) - 1) * warm_up_s + runs_of(cut) * cut.requests * picture_s

        if seconds is not None:
            plan = fitted(plan, seconds_of, PLANNED * (seconds - self._told.elapsed_s))
        if plan.warm_up:
            for shape in self._shapes(plan):
                self._warm_up(shape)
        self._told.expect(runs_of(plan), runs_of(plan) * plan.requests * picture_s)
        return plan, left_out(self._whole, plan)

    def measured(self, plan: Plan) -> Iterator[list[Row]]:
        """After each run all rows as they are then."""
        return measure(self._players, partial(self._requests, plan), self._rows_of, plan, self._told.tell)

    def _requests(self, plan: Plan, kind: Traffic, per_s: float) -> Sequence[Request]:
        return traffic.make(kind, self._rules.shapes, plan.steps, per_s, plan.requests, SEED)

    def _rows_of(self, request: Request) -> int:
        return evaluations(request.steps, request.strength, self._rules.sampler) * self._rows_a_picture

    def _shapes(self, plan: Plan) -> list[Shape]:
        """Those that the plan's requests have, the last traffic's first: it is the last to be left out."""
        requests = [one for kind in reversed(plan.traffics) for one in self._requests(plan, kind, 1.0)]
        return list(dict.fromkeys(request.shape for request in requests))

    def _warm_up(self, shape: Shape) -> float:
        """Batches of every size once, unless they were; the seconds that it took.

        At the first, kernels are loaded, and on CUDA the engine's graphs are recorded.
        """
        if shape in self._warm:
            return 0.0
        self._told.tell(f"warm-up, {shape.width} × {shape.height}")
        self._warm.add(shape)
        begin_s = self._told.elapsed_s
        for way, count in product(WARMED, range(1, self._pictures + 1)):
            self._players[way]([Request(0.0, shape, *SHORT)] * count, 0.0)
        return self._told.elapsed_s - begin_s


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


def _rules_of(folder: Path, list_of_models: Path) -> ModelRules:
    """What the service would publish for this folder, read as it reads it."""
    table = f'[models.bench]\nbackend = "diffusers"\npath = {json.dumps(str(folder.resolve()), ensure_ascii=False)}\n'
    list_of_models.write_text(table, "utf-8")
    return Registry.load(list_of_models).get("bench").rules
