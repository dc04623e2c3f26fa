"""Whatever is measured and whatever the clock does: bounds, places and the ramp hold, and nothing raises."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.controller.autoscaler import RAMP, RAMP_S, Autoscaler, Bounds, Load

MODELS = ("a", "b", "c")

anything = st.one_of(st.floats(0, 1e4), st.floats())
counts = st.integers(-2, 10_000)
loads = st.builds(
    Load,
    waiting=counts,
    running=counts,
    waiting_work_s=anything,
    arriving_fast=anything,
    arriving_slow=anything,
    oldest_wait_s=anything,
    seconds_per_job=anything,
    cold_start_s=anything,
    workers=counts,
    broken=st.booleans(),
)
bounds = st.builds(Bounds, objective_s=anything, least=st.integers(-1, 3), most=st.integers(0, 40), weight=anything)
some_loads = st.dictionaries(st.sampled_from(MODELS), loads)
all_bounds = st.fixed_dictionaries(dict.fromkeys(MODELS, bounds))
turns = st.lists(st.tuples(some_loads, st.integers(0, 50), anything), max_size=12)


@given(turns=turns, bounds=all_bounds, before=st.dictionaries(st.sampled_from(MODELS), st.integers(-1, 60)))
def test_bounds_and_places_hold_and_every_decision_has_its_reason(
    turns: list[tuple[dict[str, Load], int, float]], bounds: dict[str, Bounds], before: dict[str, int]
) -> None:
    autoscaler = Autoscaler(before)
    for told, places, now in turns:
        decisions = autoscaler.decide(told, bounds, places, now)
        assert decisions.keys() == bounds.keys()
        assert sum(decision.replicas for decision in decisions.values()) <= places
        enough = places >= sum(max(bound.most, 0) for bound in bounds.values())
        for model, decision in decisions.items():
            assert 0 <= decision.replicas <= max(bounds[model].most, 0)
            assert not enough or decision.replicas >= min(bounds[model].least, bounds[model].most)
            assert decision.why.startswith(f"{decision.replicas} worker")


@given(steps=st.lists(st.tuples(loads, st.floats(0, 15), st.floats(-1e6, 0)), min_size=1, max_size=60))
def test_counts_change_no_faster_than_the_ramp_also_when_the_clock_jumps_back(
    steps: list[tuple[Load, float, float]],
) -> None:
    """By the time that really passed: in any RAMP_S seconds at most doubled or RAMP more, at most halved."""
    autoscaler, clock_s, passed_s, seen = Autoscaler(), 0.0, 0.0, [(-1e9, 0)]
    for load, span_s, jump_s in steps:
        passed_s += span_s
        clock_s += span_s
        count = autoscaler.decide({"a": load}, {"a": Bounds(60.0, 0, 10_000)}, 10_000, clock_s)["a"].replicas
        clock_s += jump_s
        ends = [*(at for at, _ in seen[1:]), passed_s]
        recent = [had for (_, had), end in zip(seen, ends, strict=True) if end > passed_s - RAMP_S + 1e-6]
        assert not recent or count <= max(min(recent) + RAMP, 2 * min(recent))
        assert not recent or count >= max(recent) // 2
        seen.append((passed_s, count))


@given(loads=st.lists(loads, min_size=2, max_size=60))
def test_from_nothing_a_minute_makes_a_bounded_number_of_workers(loads: list[Load]) -> None:
    """From 0 the ramp allows 4, 8, 16, 32, 64, 128 in six steps of RAMP_S, however large the numbers are."""
    autoscaler = Autoscaler()
    for second, load in zip(range(61), loads * 31, strict=False):
        count = autoscaler.decide({"a": load}, {"a": Bounds(60.0, 0, 10**9)}, 10**9, float(second))["a"].replicas
        assert count <= RAMP * 2 ** (second // int(RAMP_S))


@settings(deadline=None, max_examples=25)
@given(wait_s=st.floats(0, 1e6), pairs=st.lists(st.integers(1, 1_000), min_size=2, max_size=2))
def test_with_one_place_neither_of_two_models_starves(wait_s: float, pairs: list[int]) -> None:
    """However unequal their queues, each is served at least once in an hour, and keeps its turn for a while."""
    autoscaler, served = Autoscaler(), list[str]()
    both = {model: Bounds(60.0, 0, 8) for model in ("a", "b")}
    for second in range(0, 3_600, 5):
        last = served[-1] if served else ""
        told = {
            model: Load(
                waiting=count,
                waiting_work_s=2.0 * count,
                seconds_per_job=2.0,
                cold_start_s=20.0,
                oldest_wait_s=wait_s,
                workers=int(last == model),
            )
            for model, count in zip(("a", "b"), pairs, strict=True)
        }
        decisions = autoscaler.decide(told, both, 1, float(second))
        served.append(max(decisions, key=lambda model: decisions[model].replicas))
    assert set(served) == {"a", "b"}
    swaps = [index for index in range(1, len(served)) if served[index] != served[index - 1]]
    assert all(after - before >= 8 for before, after in itertools.pairwise(swaps))
