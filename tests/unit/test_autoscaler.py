"""What the autoscaler decides, and how it says why."""

import itertools
from collections.abc import Mapping
from typing import Any

from sfumato.controller.autoscaler import Autoscaler, Bounds, Decision, Load

COLD_S = 20.0
BOUNDS = {"restyle": Bounds(objective_s=60.0, most=8)}
TWO = {"a": Bounds(objective_s=60.0, most=8), "b": Bounds(objective_s=60.0, most=8)}


def load(**numbers: Any) -> Load:
    """A model whose jobs are two seconds of work each."""
    plain: dict[str, Any] = {"seconds_per_job": 2.0, "cold_start_s": COLD_S}
    if "waiting" in numbers:
        plain["waiting_work_s"] = 2.0 * numbers["waiting"]
    return Load(**(plain | numbers))


def decided(
    autoscaler: Autoscaler,
    loads: Mapping[str, Load],
    seconds: int,
    bounds: Mapping[str, Bounds] = BOUNDS,
    places: int = 8,
    begin: int = 0,
) -> Mapping[str, Decision]:
    """The decision after the same load was told every second for so long."""
    decision: Mapping[str, Decision] = {}
    for second in range(begin, begin + seconds):
        decision = autoscaler.decide(loads, bounds, places, float(second))
    return decision


def replicas(decisions: Mapping[str, Decision]) -> dict[str, int]:
    return {model: decision.replicas for model, decision in decisions.items()}


def test_a_first_job_starts_one_worker() -> None:
    decision = Autoscaler().decide({"restyle": load(waiting=1)}, BOUNDS, 8, 0.0)["restyle"]
    assert decision.replicas == 1
    assert decision.why == ("1 worker: 1 job waits (2 s of work), 0 run, 0.0 workers' worth arrives; jobs start one")


def test_nothing_to_do_needs_nobody() -> None:
    decision = Autoscaler().decide({"restyle": load()}, BOUNDS, 8, 0.0)["restyle"]
    assert decision == Decision(0, "0 workers: no job waits or runs; it may rest until the next job")


def test_as_many_as_end_the_waiting_jobs_in_the_objective_less_a_cold_start() -> None:
    # 60 s less the job's 2 and a cold start of 20: 38 s for 114 s of work.
    assert replicas(Autoscaler().decide({"restyle": load(waiting=57)}, BOUNDS, 8, 0.0)) == {"restyle": 3}
    assert replicas(Autoscaler().decide({"restyle": load(waiting=58)}, BOUNDS, 8, 0.0)) == {"restyle": 4}


def test_a_queue_that_will_be_worked_off_in_time_starts_nobody() -> None:
    at_work = load(waiting=20, running=4, workers=1)
    decision = decided(Autoscaler({"restyle": 1}), {"restyle": at_work}, 10)["restyle"]
    assert decision.replicas == 1


def test_workers_are_added_a_cold_start_before_the_wait_would_be_too_long() -> None:
    # In 20 s two workers do 40 s of work, while 100 s come: 130 s wait then, and each may have 56 s at most.
    soon = load(waiting=35, running=4, workers=2, arriving_fast=5.0)
    decision = Autoscaler({"restyle": 2}).decide({"restyle": soon}, BOUNDS, 8, 0.0)["restyle"]
    assert decision.replicas == 3
    assert decision.why == (
        "3 workers: 35 jobs wait (70 s of work), 4 run, 5.0 workers' worth arrives; "
        "with 2 a wait of 65 s is ahead, 56 s are planned, and a new one takes 20 s to start"
    )


def test_workers_that_are_starting_count() -> None:
    autoscaler, waiting = Autoscaler(), {"restyle": load(waiting=50, arriving_fast=1.0)}
    first = autoscaler.decide(waiting, BOUNDS, 8, 0.0)
    assert replicas(decided(autoscaler, waiting, 15, begin=1)) == replicas(first)


def test_a_worker_goes_only_when_fewer_have_been_enough_for_a_while() -> None:
    autoscaler, quiet = Autoscaler({"restyle": 3}), {"restyle": load(running=4, workers=3, arriving_fast=0.5)}
    assert replicas(decided(autoscaler, quiet, 5)) == {"restyle": 3}
    assert replicas(decided(autoscaler, quiet, 2, begin=5)) == {"restyle": 1}


def test_a_moment_without_jobs_sends_nobody_away_and_a_longer_one_never_more_than_half_at_once() -> None:
    """A dispatcher that was just replaced may tell of no jobs for a moment."""
    autoscaler = Autoscaler({"restyle": 8})
    decided(autoscaler, {"restyle": load(waiting=200, running=32, workers=8)}, 20)
    assert replicas(decided(autoscaler, {"restyle": load(workers=8)}, 5, begin=20)) == {"restyle": 8}
    assert replicas(decided(autoscaler, {"restyle": load(workers=8)}, 5, begin=25)) == {"restyle": 4}
    assert replicas(decided(autoscaler, {"restyle": load(workers=4)}, 7, begin=30)) == {"restyle": 2}


def test_what_is_starting_is_not_given_up_and_what_does_not_come_is_not_counted_on() -> None:
    autoscaler, waiting = Autoscaler(), {"restyle": load(waiting=20, running=4, workers=1, arriving_fast=4.0)}
    assert replicas(decided(autoscaler, waiting, 1)) == {"restyle": 2}
    assert replicas(decided(autoscaler, waiting, 38, begin=1)) == {"restyle": 2}
    longer = {"restyle": load(waiting=50, running=4, workers=1, arriving_fast=4.0)}
    assert replicas(decided(autoscaler, longer, 2, begin=39)) == {"restyle": 4}


def test_the_last_worker_goes_soon_where_the_objective_leaves_time_for_a_cold_start() -> None:
    autoscaler = Autoscaler({"restyle": 1})
    decided(autoscaler, {"restyle": load(running=1, workers=1)}, 1)
    assert replicas(decided(autoscaler, {"restyle": load(workers=1)}, 4, begin=1)) == {"restyle": 1}
    assert replicas(decided(autoscaler, {"restyle": load(workers=1)}, 3, begin=5)) == {"restyle": 0}


def test_the_last_worker_stays_warm_for_minutes_where_a_cold_start_takes_too_long() -> None:
    autoscaler, hasty = Autoscaler({"restyle": 1}), {"restyle": Bounds(objective_s=15.0, most=8)}
    decided(autoscaler, {"restyle": load(running=1, workers=1)}, 1, hasty)
    assert replicas(decided(autoscaler, {"restyle": load(workers=1)}, 299, hasty, begin=1)) == {"restyle": 1}
    assert replicas(decided(autoscaler, {"restyle": load(workers=1)}, 2, hasty, begin=300)) == {"restyle": 0}


def test_bounds_hold() -> None:
    bounds = {"restyle": Bounds(objective_s=60.0, least=2, most=3)}
    assert replicas(Autoscaler().decide({"restyle": load()}, bounds, 8, 0.0)) == {"restyle": 2}
    assert replicas(Autoscaler().decide({"restyle": load(waiting=500)}, bounds, 8, 0.0)) == {"restyle": 3}


def test_a_flood_is_met_in_steps_and_the_decision_says_so() -> None:
    autoscaler, bounds = Autoscaler(), {"restyle": Bounds(objective_s=60.0, most=100)}
    first = autoscaler.decide({"restyle": load(waiting=5_000)}, bounds, 100, 0.0)["restyle"]
    assert first.replicas == 4
    assert first.why.endswith("100 wanted, but at most 4 more or twice as many in 10 s")
    assert replicas(decided(autoscaler, {"restyle": load(waiting=5_000)}, 11, bounds, 100, begin=1)) == {"restyle": 8}


def test_a_model_of_which_nothing_is_known_keeps_what_it_has() -> None:
    decision = decided(Autoscaler({"restyle": 2}), {}, 500)["restyle"]
    assert decision == Decision(2, "2 workers: nothing is known of its load, so it keeps what it has")


def test_two_models_take_turns_on_one_place_and_no_turn_is_short() -> None:
    autoscaler, held = Autoscaler(), list[str]()
    for second in range(1_800):
        served = held[-1] if held else ""
        loads = {
            model: load(waiting=30, oldest_wait_s=100.0, workers=1 if served == model else 0) for model in ("a", "b")
        }
        decision = replicas(autoscaler.decide(loads, TWO, 1, float(second)))
        assert sum(decision.values()) == 1
        held.append("a" if decision["a"] else "b")
    turns = [index for index in range(1, len(held)) if held[index] != held[index - 1]]
    lengths = [after - before for before, after in itertools.pairwise(turns)]
    assert min(lengths) >= 3 * COLD_S
    assert max(lengths) <= 120.0


def test_models_whose_cold_start_is_unknown_and_long_get_ready_before_their_turn_ends() -> None:
    autoscaler, began, served = Autoscaler(), {"a": -1, "b": -1}, set[str]()
    for second in range(2_400):
        ready = {model: began[model] >= 0 and second - began[model] >= 300 for model in ("a", "b")}
        served |= {model for model in ready if ready[model]}
        told = {model: load(waiting=9, cold_start_s=0.0, workers=int(ready[model])) for model in ("a", "b")}
        for model, count in replicas(autoscaler.decide(told, TWO, 1, float(second))).items():
            began[model] = (began[model] if began[model] >= 0 else second) if count else -1
    assert served == {"a", "b"}


def test_a_model_without_jobs_yields_its_place_at_once() -> None:
    autoscaler = Autoscaler({"a": 1})
    loads = {"a": load(running=1, workers=1), "b": load()}
    autoscaler.decide(loads, TWO, 1, 0.0)
    decision = autoscaler.decide({"a": load(workers=1), "b": load(waiting=1)}, TWO, 1, 1.0)
    assert replicas(decision) == {"a": 0, "b": 1}


def test_who_gets_less_than_wanted_is_told_who_holds_the_places() -> None:
    autoscaler = Autoscaler({"a": 1})
    decided(autoscaler, {"a": load(running=4, waiting=2, workers=1)}, 1, TWO, 1)
    decision = autoscaler.decide({"a": load(running=4, waiting=2, workers=1), "b": load(waiting=1)}, TWO, 1, 1.0)
    assert decision["b"].why.endswith("1 wanted, but of 1 place others hold: a 1")


def test_the_heavier_model_gets_the_places_first() -> None:
    bounds = {"a": Bounds(objective_s=60.0, most=8), "b": Bounds(objective_s=60.0, most=8, weight=3.0)}
    loads = {"a": load(waiting=100), "b": load(waiting=100)}
    assert replicas(Autoscaler().decide(loads, bounds, 4, 0.0)) == {"a": 1, "b": 3}


def test_a_broken_model_holds_no_place_that_others_wait_for() -> None:
    autoscaler = Autoscaler({"a": 1})
    loads = {"a": load(waiting=50, broken=True), "b": load(waiting=1)}
    decision = autoscaler.decide(loads, TWO, 1, 0.0)
    assert replicas(decision) == {"a": 0, "b": 1}
    assert "could not load" in decision["a"].why


def test_a_broken_model_may_try_on_a_place_that_nobody_wants() -> None:
    decision = Autoscaler().decide({"a": load(waiting=5, broken=True), "b": load()}, TWO, 1, 0.0)
    assert replicas(decision) == {"a": 1, "b": 0}


def test_a_new_leader_goes_on_with_what_the_last_one_decided() -> None:
    at_work = {"restyle": load(running=12, waiting=20, workers=3, arriving_fast=2.8)}
    assert replicas(Autoscaler({"restyle": 3}).decide(at_work, BOUNDS, 8, 1e9)) == {"restyle": 3}
