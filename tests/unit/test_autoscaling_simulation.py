"""The simulation itself: its fleet, its traces, its oracle's plan, its judge and what it writes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from sfumato.cli import main
from sfumato.controller.simulation import tables
from sfumato.controller.simulation.fleet import COLD_START_S, FIXED_S, ROW_S, SLOTS, Fleet
from sfumato.controller.simulation.judge import JUDGING, TARGETS, front, hours_at, judge
from sfumato.controller.simulation.oracle import STEP_S, plan
from sfumato.controller.simulation.sweep import POLICIES, Point, Result, Run
from sfumato.controller.simulation.traces import TRACES, Trace


def played(fleet: Fleet, until: int, begin: int = 0) -> None:
    for second in range(begin + 1, until + 1):
        fleet.advance(float(second), 1.0)


def trace(*arrivals: tuple[float, int, int], places: int = 2) -> Trace:
    return Trace("made", ("a", "b"), places, 100.0, arrivals)


def test_a_job_waits_for_the_cold_start_and_then_takes_its_steps() -> None:
    fleet = Fleet(trace((0.5, 0, 30)))
    fleet.ask(0, 1, 0.0)
    played(fleet, 60)
    assert fleet.stations[0].latencies == [pytest.approx(COLD_START_S - 0.5 + 30 * (FIXED_S + ROW_S))]


def test_jobs_of_one_batch_are_slower_each_and_faster_together() -> None:
    fleet = Fleet(trace(*[(0.5, 0, 30)] * SLOTS))
    fleet.ask(0, 1, 0.0)
    played(fleet, 60)
    slowest = COLD_START_S - 0.5 + 30 * (FIXED_S + SLOTS * ROW_S)
    assert fleet.stations[0].latencies == [pytest.approx(slowest)] * SLOTS


def test_jobs_are_served_in_order_of_arrival() -> None:
    fleet = Fleet(trace(*[(1.0 + number / 10, 0, 30) for number in range(3 * SLOTS)]))
    fleet.ask(0, 1, 0.0)
    played(fleet, 100)
    ends = [1.0 + number / 10 + wait for number, wait in enumerate(fleet.stations[0].latencies)]
    assert len(ends) == 3 * SLOTS
    assert ends == sorted(ends)


def test_every_second_on_a_gpu_counts_with_cold_start_and_drain() -> None:
    fleet = Fleet(trace((19.0, 0, 100)))
    fleet.ask(0, 1, 0.0)
    played(fleet, 25)
    fleet.ask(0, 0, 25.0)
    played(fleet, 60, begin=25)
    assert fleet.place_s == pytest.approx(35.0, abs=1.0)  # 20 s of start and 15 s of work, in whole seconds
    assert fleet.held == 0


def test_who_asks_for_more_than_there_is_waits_for_a_gpu() -> None:
    fleet = Fleet(trace(places=1))
    fleet.ask(0, 1, 0.0)
    fleet.ask(1, 1, 0.0)
    played(fleet, 30)
    assert (fleet.stations[0].ready, fleet.stations[1].ready) == (1, 0)
    fleet.ask(0, 0, 30.0)
    played(fleet, 51, begin=30)
    assert (fleet.stations[0].ready, fleet.stations[1].ready) == (0, 1)


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_the_same_for_the_same_seed_and_another_for_another(name: str) -> None:
    assert TRACES[name](1, 0.1) == TRACES[name](1, 0.1)
    assert TRACES[name](1, 0.1) != TRACES[name](2, 0.1)
    moments = [at for at, _, _ in TRACES[name](1, 0.1).arrivals]
    assert moments == sorted(moments)


def starts(serving: list[int]) -> int:
    return sum(max(now - before, 0) for before, now in itertools.pairwise([0, *serving]))


def test_the_oracle_keeps_a_worker_through_a_pause_that_is_cheaper_than_a_cold_start() -> None:
    busy = [10.0] * 3
    assert starts(plan(np.array([*busy, 0.0, *busy]), STEP_S, 4)) == 1
    assert starts(plan(np.array([*busy, *[0.0] * 9, *busy]), STEP_S, 4)) == 2


def test_the_oracle_serves_steady_work_with_whole_workers_and_lets_the_rest_wait() -> None:
    steady = plan(np.full(60, 15.0), 30.0, 4)
    assert sum(steady) * STEP_S == pytest.approx(15.0 * 60, rel=0.15)


def test_every_policy_has_as_many_settings() -> None:
    assert len({len(settings) for settings in POLICIES.values()}) == 1
    assert {len({setting.words for setting in settings}) for settings in POLICIES.values()} == {12}


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [Point(0.9, 1.0), Point(0.99, 2.0), Point(0.95, 2.5), Point(1.0, 3.0), Point(1.0, 4.0)]
    assert front(points) == [Point(0.9, 1.0), Point(0.99, 2.0), Point(1.0, 3.0)]


def test_hours_are_interpolated_between_settings_and_never_guessed_beyond_them() -> None:
    points = [Point(0.90, 1.0), Point(0.98, 3.0)]
    assert hours_at(0.94, points) == pytest.approx(2.0)
    assert hours_at(0.80, points) == 1.0
    assert hours_at(0.99, points) is None


def test_settings_are_chosen_on_some_seeds_and_judged_on_others() -> None:
    """The setting that looked best while choosing counts with what it gives while judging."""
    chosen = [Result(Run("wave", 1, "ours", 0), Point(1.0, 1.0)), Result(Run("wave", 1, "ours", 1), Point(1.0, 2.0))]
    judged = [
        Result(Run("wave", JUDGING[0], "ours", 0), Point(1.0, 5.0)),
        Result(Run("wave", JUDGING[0], "ours", 1), Point(1.0, 2.0)),
    ]
    assert [verdict.hours["ours"] for verdict in judge(chosen + judged)] == [5.0] * len(TARGETS)


def test_a_run_prints_one_line_a_goal_and_writes_rows_and_curves(tmp_path: Path) -> None:
    table = tables.run(
        ["flash"], ["ours", "fixed"], tmp_path / "rows.json", tmp_path / "curves.svg", scale=0.05, processes=1
    )
    console = Console(record=True, width=140, file=(tmp_path / "printed").open("w"))
    console.print(table)
    console.file.close()
    printed = (tmp_path / "printed").read_text()
    assert printed.count("flash") == len(TARGETS)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 24
    assert rows[0].keys() == {"trace", "policy", "setting", "share_within_objective", "gpu_hours"}
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.startswith("<svg")
    assert drawn.count("<polyline") == 2


def test_the_verb_plays_what_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def play_nothing(*arguments: object) -> Table:
        asked.extend(arguments)
        return Table("played")

    monkeypatch.setattr(tables, "run", play_nothing)
    assert main(["simulate", "--trace", "flash", "--plot", "curves.svg"]) == 0
    assert asked == [["flash"], list(POLICIES), None, Path("curves.svg")]
    assert "played" in capsys.readouterr().out
