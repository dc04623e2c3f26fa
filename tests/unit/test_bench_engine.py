"""The engine benchmark: its baselines do what they say, its virtual time is exact, and its goals hold."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from sfumato.bench import engine, traffic
from sfumato.bench.play import Cost, in_virtual_time
from sfumato.bench.policies import POLICIES, AtOnce, InGroups, Policy, Rule
from sfumato.bench.traffic import Request
from sfumato.core.params import Shape
from sfumato.models.registry import BUNDLED, Registry

COST = Cost(fixed_s=8.0, row_s=2.0)
SQUARE, WIDE = Shape(64, 64), Shape(128, 32)
RULES = Registry.load(None).get(BUNDLED).rules


def request(arrives_s: float, evaluations: int, shape: Shape = SQUARE) -> Request:
    made = Request(arrives_s, shape, evaluations, 1.0)
    assert made.evaluations == evaluations
    return made


def played(policy: Policy, requests: Sequence[Request], rows: int = 16, window_s: float = 0.0) -> list[float]:
    return in_virtual_time(requests, POLICIES[policy](rows, window_s), rows, COST)


def test_sequential_runs_one_after_the_other() -> None:
    assert played("sequential", [request(0, 3), request(0, 2), request(100, 1)]) == [30, 50, 110]


def test_same_parameter_runs_only_equals_together() -> None:
    requests = [request(0, 3), request(0, 2), request(0, 3), request(0, 3, WIDE)]

    assert played("same-parameter", requests) == [36, 56, 36, 86]


def test_request_level_lets_nobody_join_and_short_ones_leave() -> None:
    requests = [request(0, 3), request(0, 1), request(1, 1), request(2, 1, WIDE)]

    assert played("request-level", requests) == [32, 12, 42, 52]


def test_step_level_lets_everyone_join_at_the_next_step() -> None:
    requests = [request(0, 3), request(1, 2), request(25, 2)]

    assert played("step-level", requests) == [34, 34, 54]


def test_group_takes_no_more_than_fit() -> None:
    assert played("request-level", [request(0, 1)] * 3, rows=2) == [12, 12, 22]


def test_group_waits_for_its_window_unless_full() -> None:
    requests = [request(0, 1), request(3, 1), request(50, 1), request(51, 1)]

    assert played("request-level", requests, rows=2, window_s=5) == [15, 15, 63, 63]
    assert played("request-level", requests[:2], rows=3, window_s=5) == [17, 17]


@pytest.mark.parametrize("policy", list(POLICIES))
def test_leaping_to_the_next_change_changes_nothing(policy: Policy) -> None:
    """Virtual time leaps over steps in which nobody comes or goes; here it stops at every arrival."""
    requests = traffic.make("photos", RULES.shapes, (20, 30), per_s=0.1, count=60, seed=3)

    def stopping_often(rule: Rule) -> Rule:
        rule.joins = True
        return rule

    often = in_virtual_time(requests, stopping_often(POLICIES[policy](4, 0.0)), 4, COST)

    assert often == pytest.approx(in_virtual_time(requests, POLICIES[policy](4, 0.0), 4, COST))


def test_no_call_is_larger_than_allowed_and_all_work_is_done() -> None:
    requests = traffic.make("square", RULES.shapes, (20,), per_s=1e6, count=40, seed=1)
    steps = sum(one.evaluations for one in requests)

    for policy in POLICIES:
        last = max(played(policy, requests, rows=4))
        assert last >= steps * (COST.row_s + COST.fixed_s / 4)
        assert last <= steps * COST.of(1) + 1


def test_rules_say_when_to_ask_again() -> None:
    group, at_once = InGroups(lambda one: one.shape, 4, window_s=2.0), AtOnce()
    assert (group.due_s, at_once.due_s) == (math.inf, math.inf)

    for rule in (group, at_once):
        rule.arrive(0, request(7, 1))

    assert group.due_s == 9
    assert at_once.due_s <= 7


def test_traffic_is_the_same_for_the_same_seed_and_keeps_its_rate() -> None:
    make = partial(traffic.make, "photos", RULES.shapes, (20, 30, 50), 4.0, 4000)

    assert make(seed=1) == make(seed=1) != make(seed=2)
    assert 4000 / make(seed=1)[-1].arrives_s == pytest.approx(4.0, rel=0.05)
    assert {one.shape for one in make(seed=1)} == set(RULES.shapes)
    assert all(one.evaluations >= 6 for one in make(seed=1))


def test_goals_hold_on_a_short_run(tmp_path: Path) -> None:
    plan = engine.Plan(rates=(0.4, 0.85), windows_s=(0.0, 0.5), requests=1500, rows=16, steps=(20, 30, 50))
    file = tmp_path / "engine.json"

    table = engine.run("simulated", file, plan)

    rows = json.loads(file.read_text())
    assert table.row_count == 4
    assert len(rows) == 2 * 2 * 4
    assert {"policy", "traffic", "rate", "throughput", "p50_s", "p99_s"} <= rows[0].keys()
    assert rows[0]["traffic"] == "photos"
    for kind in traffic.TRAFFICS:
        for rate in plan.rates:
            found = {row["policy"]: row for row in rows if (row["traffic"], row["rate"]) == (kind, rate)}
            ours = found.pop("step-level")
            assert all(ours["throughput"] >= 0.97 * row["throughput"] for row in found.values())
            assert all(ours["p99_s"] <= row["p99_s"] / 0.97 for row in found.values())
        assert ours["p99_s"] <= found["same-parameter"]["p99_s"] / 3
        assert ours["p99_s"] <= found["request-level"]["p99_s"] / 2
        assert ours["capacity"] >= 1.2 * found["request-level"]["capacity"]
        assert ours["capacity"] >= 3.5 * found["sequential"]["capacity"]


def test_measuring_twice_gives_the_same_rows() -> None:
    plan = engine.Plan(rates=(0.8,), windows_s=(0.0,), requests=300, rows=16, steps=(20, 30, 50))
    playing = partial(in_virtual_time, cost=engine.COST)

    assert engine.measure(playing, plan, RULES) == engine.measure(playing, plan, RULES)
