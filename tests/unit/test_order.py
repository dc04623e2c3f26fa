"""Which waiting job goes next."""

from collections import Counter
from itertools import count
from typing import Any

from sfumato.core.job import Priority
from sfumato.dispatcher.order import Order, Ticket

positions = count(1)


def ticket(job_id: str, owner: str = "ann", **changes: Any) -> Ticket:
    plain: dict[str, Any] = {"priority": Priority.NORMAL, "cost": 100, "position": next(positions)}
    return Ticket(job_id, owner, **(plain | changes))


def order_of(*tickets: Ticket) -> Order:
    order = Order()
    for one in tickets:
        order.add(one)
    return order


def taken(order: Order, most: int = 1_000, now: float = 0.0) -> list[str]:
    found = (order.take(now) for _ in range(most))
    return [job_id for job_id in found if job_id is not None]


def test_jobs_of_one_owner_and_priority_go_in_the_order_of_the_log() -> None:
    assert taken(order_of(ticket("a"), ticket("b"), ticket("c"))) == ["a", "b", "c"]


def test_owners_take_turns_however_many_jobs_one_has() -> None:
    order = order_of(*(ticket(f"a{n}") for n in range(4)), ticket("b0", "bob"), ticket("b1", "bob"))
    assert taken(order) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_owners_share_by_cost_not_by_count() -> None:
    dear = [ticket(f"dear {n}", "ann", cost=300) for n in range(30)]
    cheap = [ticket(f"cheap {n}", "bob", cost=100) for n in range(90)]
    first = Counter(job_id.split()[0] for job_id in taken(order_of(*dear, *cheap), 40))
    assert first == {"dear": 10, "cheap": 30}


def test_a_weight_of_two_gets_twice_as_much() -> None:
    weights = {"a": 2.0, "b": 1.0}
    tickets = [ticket(f"{owner}{n}", owner, weight=weights[owner]) for n in range(60) for owner in "ab"]
    first = Counter(job_id[0] for job_id in taken(order_of(*tickets), 30))
    assert first == {"a": 20, "b": 10}


def test_a_newcomer_goes_next_beside_a_flood() -> None:
    order = order_of(*(ticket(f"a{n}") for n in range(100)))
    taken(order, 50)
    order.add(ticket("b", "bob"))
    assert "b" in taken(order, 2)


def test_who_was_away_has_saved_up_nothing() -> None:
    order = order_of(*(ticket(f"a{n}") for n in range(100)), ticket("b", "bob"))
    taken(order, 60)
    for n in range(40):
        order.add(ticket(f"b{n}", "bob"))
    assert Counter(job_id[0] for job_id in taken(order, 20)) == {"a": 10, "b": 10}


def test_one_job_at_a_time_is_no_way_around_the_share() -> None:
    order = order_of(*(ticket(f"a{n}", cost=10) for n in range(200)))
    went: Counter[str] = Counter()
    for n in range(110):
        if "b" not in order:
            order.add(ticket("b", "bob", cost=100, position=1_000 + n))
        went.update(job_id[0] for job_id in taken(order, 1))
    assert went == {"a": 100, "b": 10}


def test_high_goes_first_within_an_owner() -> None:
    order = order_of(ticket("low", priority=Priority.LOW), ticket("normal"), ticket("high", priority=Priority.HIGH))
    assert taken(order) == ["high", "normal", "low"]


def test_slots_go_seventy_twenty_five_five_when_all_priorities_wait() -> None:
    tickets = [ticket(f"{p} {n}", priority=p) for n in range(100) for p in Priority]
    first = Counter(job_id.split()[0] for job_id in taken(order_of(*tickets), 100))
    assert first == {"high": 70, "normal": 25, "low": 5}


def test_a_fresh_high_overtakes_a_backlog_of_low() -> None:
    order = order_of(*(ticket(f"low {n}", priority=Priority.LOW) for n in range(50)))
    taken(order, 20)
    order.add(ticket("high", priority=Priority.HIGH))
    assert taken(order, 1) == ["high"]


def test_priority_orders_only_within_its_owner() -> None:
    order = order_of(*(ticket(f"a{n}", priority=Priority.HIGH) for n in range(4)))
    order.add(ticket("b", "bob", priority=Priority.LOW))
    assert "b" in taken(order, 2)


def test_a_retry_does_not_go_before_its_time() -> None:
    order = order_of(ticket("a", not_before=10.0))
    assert order.take(9.9) is None
    assert order.next_at() == 10.0
    assert order.take(10.0) == "a"


def test_a_job_that_comes_back_takes_its_old_place_and_is_not_charged_again() -> None:
    order = order_of(first := ticket("a0"), ticket("a1"), *(ticket(f"b{n}", "bob") for n in range(3)))
    assert taken(order, 2) == ["a0", "b0"]
    order.add(Ticket(first.job_id, first.owner, first.priority, 0, first.position))
    assert taken(order) == ["a0", "a1", "b1", "b2"]


def test_a_canceled_job_leaves_no_trace() -> None:
    order = order_of(*(ticket(f"a{n}") for n in range(3)), ticket("b", "bob", not_before=5.0))
    order.remove("a1")
    order.remove("b")
    order.remove("never seen")
    assert (len(order), order.next_at()) == (2, None)
    assert taken(order) == ["a0", "a2"]


def test_what_was_canceled_costs_its_priority_no_turn() -> None:
    tickets = [ticket(f"normal {n}") for n in range(40)]
    order, other = order_of(*tickets), order_of(*tickets)
    for n in range(20):
        order.add(ticket(f"canceled {n}", priority=Priority.LOW))
        order.remove(f"canceled {n}")
    for one in (order, other):
        one.add(Ticket("low", "ann", Priority.LOW, 100, 10_000))
    assert taken(order) == taken(other)


def test_front_foretells_exactly_what_is_taken_and_changes_nothing() -> None:
    tickets = [
        ticket(f"{n}", f"owner {n % 4}", priority=list(Priority)[n % 3], cost=1 + n * 37 % 50) for n in range(200)
    ]
    order = order_of(*tickets)
    foretold = order.front(0.0, 1_000)
    assert order.front(0.0, 20) == foretold[:20]
    assert taken(order) == foretold


def test_position_counts_those_that_wait_for_their_time_last() -> None:
    order = order_of(ticket("later", not_before=10.0), ticket("a"), ticket("b"))
    assert [order.position(job_id, 0.0) for job_id in ("a", "b", "later", "unknown")] == [1, 2, 3, None]


def test_memory_follows_what_waits_not_what_ever_came() -> None:
    order = order_of(ticket("stays"))
    for n in range(2_000):
        order.add(ticket(f"a{n}", f"owner {n}"))
        order.remove(f"a{n}")
    assert len(order._shares) < 100
    assert len(order._active._entries) < 200
