"""The benchmark on real models, without one: who is in a group, what is measured and how it is shown."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sfumato.bench import play, real
from sfumato.bench.baselines.rules import dynamic, one_by_one, queued, services_s, static
from sfumato.bench.ceiling import Ceiling, Loop, lines
from sfumato.bench.policies import Gate, InGroups
from sfumato.bench.stopping import Stopped
from sfumato.bench.traffic import Request, Traffic
from sfumato.bench.ways import Plan, Player, Way, measure, runs_of, table_of
from sfumato.cli import main
from sfumato.core.params import ModelRules, Sampler, Shape
from sfumato.engine.backends import About, BackendUnusable
from sfumato.engine.schedule import NoiseSchedule

SQUARE, WIDE = Shape(64, 64), Shape(128, 32)
RULES = ModelRules(shapes=(SQUARE, WIDE))
PLAN = Plan(requests=4, rows=2, steps=(4,), shares=(0.5, 0.8), windows_s=(0.0, 2.0), traffics=("photos",))
CALL_S = 10.0


def request(arrives_s: float, steps: int = 4, strength: float = 0.5, shape: Shape = SQUARE) -> Request:
    return Request(arrives_s, shape, steps, strength)


def served(requests: Sequence[Request], rule: InGroups) -> tuple[list[tuple[int, ...]], list[float]]:
    """The groups, and when each request was answered, by a server that takes ten seconds for a group of any size."""
    gate, now, groups = Gate(requests, rule), 0.0, []
    while gate.missing:
        group = gate.enter(now)
        if not group:
            now = gate.next_s
            continue
        groups.append(tuple(group))
        now += CALL_S
        for index in group:
            gate.leave(index, now)
    return groups, gate.ended


def test_one_by_one_keeps_the_order() -> None:
    requests = [request(0), request(0), request(50)]

    assert served(requests, one_by_one()) == ([(0,), (1,), (2,)], [10, 20, 60])


def test_group_has_one_shape_one_number_of_steps_and_one_strength() -> None:
    requests = [request(0), request(0, steps=5), request(0, strength=0.6), request(0, shape=WIDE), request(0)]

    groups, _ = served(requests, dynamic(4, 0.0))

    assert groups == [(0, 4), (1,), (2,), (3,)]


def test_static_batching_waits_until_a_group_is_full_or_nobody_comes_any_more() -> None:
    requests = [request(0), request(1, steps=5), request(20), request(90, steps=6)]

    groups, ended = served(requests, static(2, end_s=90))

    assert groups == [(0, 2), (1,), (3,)]
    assert ended == [30, 100, 30, 110]


def test_dynamic_batching_waits_for_its_window_unless_full() -> None:
    requests = [request(0), request(3), request(50), request(58)]

    assert served(requests, dynamic(2, 5.0)) == ([(0, 1), (2,), (3,)], [13, 13, 65, 75])
    assert served(requests[:2], dynamic(3, 5.0)) == ([(0, 1)], [15, 15])


def test_times_of_a_busy_server_tell_when_it_would_answer_others() -> None:
    services = services_s([3.0, 5.0, 9.0])

    assert services == [3, 2, 4]
    assert queued([request(0), request(1), request(20)], services) == [3, 5, 24]


def test_groups_are_answered_together_in_real_time() -> None:
    made: list[Sequence[int]] = []

    ended = play.in_groups([request(0), request(0), request(0.01, steps=5)], dynamic(4, 0.0), made.append)

    assert made == [[0, 1], [2]]
    assert ended[0] == ended[1] < ended[2]


def test_every_request_has_its_own_seed_and_text() -> None:
    first, second = play.jobs_of([request(0), request(1, shape=WIDE)], RULES, "picture {}")

    assert (first.params.seed, second.params.seed) == (0, 1)
    assert (first.params.prompt, second.params.prompt) == ("picture 0", "picture 1")
    assert second.pixels.shape == (32, 128, 3)
    assert (second.params.strength, second.params.num_inference_steps) == (0.5, 4)


def after(seconds: float) -> Player:
    """Answers every request so long after it came, and the longer the window the later."""
    return lambda requests, window_s: [
        one.arrives_s + seconds * number + window_s for number, one in enumerate(requests, 1)
    ]


PLAYERS: dict[Way, Player] = {
    "sequential diffusers": after(2.0),
    "static batching": after(1.5),
    "dynamic batching": after(1.0),
    "step-level": after(0.5),
}


def make(kind: Traffic, per_s: float) -> Sequence[Request]:
    return [request(number / per_s) for number in range(4)]


def test_ways_are_compared_with_everybody_waiting_and_at_each_share() -> None:
    told: list[str] = []

    *_, rows = measure(PLAYERS, make, lambda one: 4, PLAN, told.append)

    assert [row.way for row in rows] == list(PLAYERS)
    assert [round(row.pictures_per_s, 2) for row in rows] == [0.5, 0.67, 1.0, 2.0]
    assert [round(row.times_sequential, 2) for row in rows] == [1.0, 1.33, 2.0, 4.0]
    assert [round(row.rows_per_s) for row in rows] == [2, 3, 4, 8]
    assert all([load.share for load in row.loads] == [0.5, 0.8] for row in rows)
    assert all([row.answered, *(load.answered for load in row.loads)] == [4, 4, 4] for row in rows)
    assert len(told) == runs_of(PLAN)


def test_dynamic_batching_keeps_the_window_with_the_lowest_p99() -> None:
    def better_with_a_window(requests: Sequence[Request], window_s: float) -> Sequence[float]:
        return [one.arrives_s + 5.0 - window_s for one in requests]

    *_, rows = measure({**PLAYERS, "dynamic batching": better_with_a_window}, make, lambda one: 1, PLAN, str)

    (found,) = [row for row in rows if row.way == "dynamic batching"]
    assert [(load.window_s, load.p99_s) for load in found.loads] == [(2.0, 3.0), (2.0, 3.0)]


def test_table_has_a_line_for_each_way_and_a_column_for_each_share() -> None:
    *_, rows = measure(PLAYERS, make, lambda one: 1, PLAN, str)

    table = table_of(rows, "title", "caption")

    assert table.row_count == 4
    assert [column.header for column in table.columns][-2:] == ["at 0.50: p50 p99 s", "at 0.80: p50 p99 s"]


def test_rows_come_after_every_run_and_a_table_can_be_made_of_them_at_any_time() -> None:
    so_far = list(measure(PLAYERS, make, lambda one: 1, PLAN, str))

    assert len(so_far) == runs_of(PLAN)
    assert [len(rows) for rows in so_far[:4]] == [1, 2, 3, 4]
    assert [sum(len(row.loads) for row in rows) for rows in so_far[3:]] == [0, 2, 3, 3, 4, 6, 7, 7, 8]
    assert table_of([], "title", "caption").row_count == 0
    last_column = table_of(so_far[-2], "title", "caption").columns[-1]
    assert list(last_column.cells)[-1] == "–"


def test_ceiling_is_the_best_loop_and_says_what_did_not_work() -> None:
    loops = (Loop("eager", 8.0, 0.2), Loop("CUDA graph", 16.0, 0.4))
    ceiling = Ceiling(16, (512, 512), 8e11, 8192, 3.2e13, loops, {"torch.compile": "RuntimeError: no compiler"})

    *_, rows = measure(PLAYERS, make, lambda one: 4, PLAN, str)

    said = "\n".join(lines(ceiling, rows, "float16"))

    assert ceiling.best.way == "CUDA graph"
    assert "CUDA graph 16.0 rows/s (40.0% of the matrix peak)" in said
    assert "torch.compile failed: RuntimeError: no compiler" in said
    assert "a row is 0.8 TFLOP; matrix peak: 32 TFLOP/s, float16, 8192 × 8192" in said
    assert "photos 50%" in said


def about(family: str, device: str) -> About:
    return About(family, "float32", device, 4, 8, NoiseSchedule())


def test_plan_fits_the_device() -> None:
    assert real.plan_for("tiny", about("stable-diffusion", "cpu"), RULES, None) == real.PLANS["tiny"]
    assert real.plan_for("sdxl", about("stable-diffusion-xl", "cuda"), RULES, None) == real.PLANS["sdxl"]
    assert real.plan_for("sdxl", about("stable-diffusion-xl", "cpu"), RULES, None) == real.ON_CPU
    assert real.plan_for("sdxl", about("stable-diffusion-xl", "cpu"), RULES, 3).requests == 3


def test_model_of_ones_own_is_measured_at_its_usual_steps() -> None:
    turbo = ModelRules(shapes=(SQUARE,), num_inference_steps=4, sampler=Sampler.EULER)

    assert real.plan_for(None, about("stable-diffusion-xl", "cuda"), RULES, None).steps == (20, 30)
    assert real.plan_for(None, about("stable-diffusion", "cuda"), turbo, None).steps == (4, 4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--architecture", "tiny", "--random-weights"], "--architecture"),
        (["--backend", "onnx", "--device", "cpu"], "--device"),
        (["--requests", "5"], "--requests"),
        (["--random-weights"], "--random-weights"),
        (["--minutes", "5"], "--minutes"),
        (["--backend", "diffusers"], "--model"),
        (["--backend", "diffusers", "--random-weights"], "--architecture"),
        (["--backend", "diffusers", "--architecture", "tiny"], "--random-weights"),
        (["--backend", "diffusers", "--model", ".", "--architecture", "tiny"], "--model"),
        (["--backend", "diffusers", "--model", ".", "--random-weights"], "--model"),
        (["--backend", "diffusers", "--architecture", "tiny", "--random-weights", "--requests", "1"], "--requests"),
    ],
)
def test_options_that_make_no_sense_together_are_named(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["bench", "engine", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--architecture", "sd15", "--random-weights"], ("sd15", None, "auto", None, None, None)),
        (
            ["--model", ".", "--device", "cpu", "--requests", "3", "--minutes", "2.5"],
            (None, Path(), "cpu", None, 3, 2.5),
        ),
    ],
)
def test_options_are_handed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], given: tuple[Any, ...]
) -> None:
    calls: list[Any] = []

    def remember(*arguments: Any, requests: int | None, minutes: float | None) -> None:
        *handed_on, show = arguments
        calls.append((*handed_on, requests, minutes))
        show("the table")

    monkeypatch.setattr(real, "run", remember)

    assert main(["bench", "engine", "--backend", "diffusers", *words]) == 0
    assert calls == [given]
    assert "the table" in capsys.readouterr().out


def test_interrupted_measurement_shows_its_table_and_ends_as_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(*arguments: Any, requests: int | None, minutes: float | None) -> None:
        arguments[-1]("half a table")
        raise Stopped(in_time=False)

    monkeypatch.setattr(real, "run", half)

    assert main(["bench", "engine", "--backend", "diffusers", "--architecture", "tiny", "--random-weights"]) == 130
    said = capsys.readouterr()
    assert "half a table" in said.out
    assert "interrupted" in said.err


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sfumato.bench.baselines.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(BackendUnusable, match=r"needs diffusers: pip install 'sfumato\[diffusers\]'"):
        real.run("tiny", None, "cpu", None, str)
