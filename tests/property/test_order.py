"""Whatever waits and however it is mixed: nothing is lost, the forecast is exact, and owners share by cost."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.job import Priority
from sfumato.dispatcher.order import Order, Ticket

owners = st.sampled_from(["ann", "bob", "cy"])
weights = st.fixed_dictionaries({"ann": st.floats(0.5, 4), "bob": st.floats(0.5, 4)})
jobs = st.tuples(owners, st.sampled_from(Priority), st.integers(1, 1_000), st.sampled_from([0.0, 5.0, 10.0]))
steps = st.lists(
    st.one_of(jobs, st.just("take"), st.just("wait"), st.tuples(st.just("remove"), st.integers(0, 30))), max_size=80
)


@given(steps=steps, weights=weights)
def test_each_job_goes_exactly_once_or_is_removed_and_never_before_its_time(
    steps: list[object], weights: dict[str, float]
) -> None:
    order, now, waiting = Order(), 0.0, dict[str, float]()
    for number, step in enumerate(steps):
        match step:
            case "take":
                job_id = order.take(now)
                assert (job_id is None) is all(not_before > now for not_before in waiting.values())
                assert job_id is None or waiting.pop(job_id) <= now
            case "wait":
                now += 3.0
            case ("remove", int(place)):
                order.remove(f"{place}")
                waiting.pop(f"{place}", None)
            case (str(owner), Priority() as priority, int(cost), float(not_before)):
                order.add(Ticket(f"{number}", owner, priority, cost, number, not_before, weights.get(owner, 1.0)))
                waiting[f"{number}"] = not_before
        assert len(order) == len(waiting)
    assert sorted(order.front(now, 1_000)) == sorted(waiting)


@given(waiting=st.lists(jobs, max_size=60), taken=st.integers(0, 30), weights=weights)
def test_the_forecast_is_what_comes(
    waiting: list[tuple[str, Priority, int, float]], taken: int, weights: dict[str, float]
) -> None:
    order = Order()
    for number, (owner, priority, cost, _) in enumerate(waiting):
        order.add(Ticket(f"{number}", owner, priority, cost, number, weight=weights.get(owner, 1.0)))
    for _ in range(taken):
        order.take(0.0)
    forecast = order.front(0.0, len(order))
    assert [order.take(0.0) for _ in forecast] == list(forecast)
    assert order.take(0.0) is None


@given(
    costs=st.lists(st.tuples(st.integers(1, 1_000), st.integers(1, 1_000)), min_size=40, max_size=40),
    weights=weights,
    taken=st.integers(0, 40),
)
def test_owners_who_both_wait_stay_within_one_job_of_their_shares(
    costs: list[tuple[int, int]], weights: dict[str, float], taken: int
) -> None:
    order, cost_of = Order(), dict[str, int]()
    for number, pair in enumerate(costs):
        for owner, cost in zip(("ann", "bob"), pair, strict=True):
            job_id = f"{owner} {number}"
            cost_of[job_id] = cost
            order.add(Ticket(job_id, owner, Priority.NORMAL, cost, number, weight=weights[owner]))
    served: Counter[str] = Counter()
    for job_id in order.front(0.0, taken):
        served[job_id.split()[0]] += cost_of[job_id]
    largest = {owner: max(cost_of[job_id] for job_id in cost_of if job_id.startswith(owner)) for owner in weights}
    lead = served["ann"] / weights["ann"] - served["bob"] / weights["bob"]
    # The bound of start-time fair queueing.
    assert abs(lead) <= sum(largest[owner] / weights[owner] for owner in weights) + 1e-6
