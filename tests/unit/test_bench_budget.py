"""A benchmark that must end in time: what is cut of its plan, when its clock rings, and what it tells meanwhile."""

import io
import signal
import time
from dataclasses import replace

import pytest
from rich.console import Console
from rich.progress import Progress

from sfumato.bench import real
from sfumato.bench.budget import fitted, left_out
from sfumato.bench.progress import Bar
from sfumato.bench.stopping import Stopped, stopped_after
from sfumato.bench.ways import Plan, runs_of

PLAN = Plan(requests=48, rows=16, steps=(20, 30))


def a_second_a_request(plan: Plan) -> float:
    return runs_of(plan) * plan.requests


def test_plan_that_fits_stays_whole() -> None:
    assert fitted(PLAN, a_second_a_request, runs_of(PLAN) * 48) == PLAN
    assert left_out(PLAN, PLAN) == []


@pytest.mark.parametrize(
    ("left_s", "requests", "shares", "traffics"),
    [
        (runs_of(PLAN) * 47, 47, (0.5, 0.8), ("photos", "square")),
        (runs_of(PLAN) * 16, 16, (0.5, 0.8), ("photos", "square")),
        (runs_of(PLAN) * 16 - 1, 24, (0.8,), ("photos", "square")),
        (9 * 20, 20, (0.8,), ("square",)),
        (9 * 16 - 1, 35, (), ("square",)),
        (4 * 5, 5, (), ("square",)),
        (0, 2, (), ("square",)),
    ],
)
def test_runs_get_shorter_then_fewer(
    left_s: float, requests: int, shares: tuple[float, ...], traffics: tuple[str, ...]
) -> None:
    cut = fitted(PLAN, a_second_a_request, left_s)

    assert (cut.requests, cut.shares, cut.traffics) == (requests, shares, traffics)
    assert (cut.windows_s, cut.rows, cut.steps) == (PLAN.windows_s, PLAN.rows, PLAN.steps)


def test_what_was_cut_is_named() -> None:
    cut = replace(PLAN, requests=20, shares=(0.8,), traffics=("square",))

    assert left_out(PLAN, cut) == ["28 of 48 requests a run", "traffic photos", "offered share 0.50"]


def test_requests_that_were_asked_for_are_the_most() -> None:
    assert fitted(replace(PLAN, requests=4), a_second_a_request, 1e9).requests == 4


def test_clock_ends_a_wait_and_says_that_it_was_the_clock() -> None:
    begin = time.monotonic()

    with pytest.raises(Stopped) as stopped, stopped_after(0.05):
        signal.sigtimedwait([signal.SIGUSR1], 30)

    assert stopped.value.in_time
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_and_is_handled_as_before_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with pytest.raises(Stopped) as stopped, stopped_after(30):
        signal.raise_signal(number)

    assert not stopped.value.in_time
    assert signal.getsignal(number) is before


def test_work_that_ends_in_time_hears_no_clock() -> None:
    with stopped_after(0.2):
        pass

    assert signal.sigtimedwait([signal.SIGUSR1], 0.4) is None


def test_lines_tell_the_time_and_what_is_left() -> None:
    said = io.StringIO()
    bar = Bar(Progress(console=Console(file=said, width=60)))

    bar.tell("making a model")
    bar.expect(2, guess_s=90)
    bar.tell("photos, all waiting: sequential diffusers")
    bar.tell("photos, all waiting: step-level")
    bar.tell("network alone: torch.compile")

    first, second, third, last = said.getvalue().splitlines()
    assert first == "   0 s  making a model"
    assert second == "   0 s  photos, all waiting: sequential diffusers (run 1 of 2, about 90 s left)"
    assert third.endswith("(run 2 of 2, about 0 s left)")
    assert last == "   0 s  network alone: torch.compile"


def test_minutes_that_end_before_the_first_figure_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_measure", lambda *given: signal.sigtimedwait([signal.SIGUSR1], 30))

    with pytest.raises(real.OutOfTime, match=r"0\.001 minutes were over before anything was measured"):
        real.run("tiny", None, "cpu", None, str, minutes=0.001)
