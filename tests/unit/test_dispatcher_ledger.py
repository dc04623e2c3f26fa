"""What a dispatcher concludes from the jobs and events it has read."""

import math
from collections.abc import Sequence
from typing import Any

from sfumato.core.events import Alive, Dispatched, Ended, Event, Retried, Returned, Running, Started, Unreadable
from sfumato.core.job import Job, Outcome, Priority, Problem, State, Work
from sfumato.core.ports import Batch, Lead, Logged
from sfumato.dispatcher.ledger import HandOut, Ledger
from tests.support import NOW, job_id, make_job

SILENCE_S = 3.0
PROBLEM = Problem(slug="try-again", title="Try again", detail="a passing trouble")


class Model:
    """A ledger, and the log that its events would be in."""

    def __init__(self, jobs: int = 0, patience_s: float = math.inf, **workers: int) -> None:
        self.now = NOW
        self.ledger = Ledger(Lead(0, ""), SILENCE_S, patience_s=patience_s)
        self.read: list[Logged[Job | Unreadable]] = []
        self.log: list[Event] = []
        self.lanes = {name: lane for lane, name in enumerate(workers)}
        self.slots = workers
        for n in range(1, jobs + 1):
            self.publish(make_job(n))
        for name in workers:
            self.beat(name)

    def publish(self, job: Job | Unreadable) -> None:
        item = Logged(len(self.read) + 1, job)
        self.read.append(item)
        self.ledger.read([item])

    def tell(self, event: Event) -> None:
        self.log.append(event)
        self.ledger.follow(Batch([Logged(len(self.log), event)], str(len(self.log))), self.now)

    def beat(self, worker: str, *running: Work, **changes: Any) -> None:
        tells = tuple(Running(**of(work), step=1, steps=2) for work in running)
        plain = {"slots": self.slots.get(worker, 1), "lanes": (self.lanes.setdefault(worker, len(self.lanes)),)}
        self.tell(Alive(at=self.now, worker=worker, running=tells, **(plain | changes)))

    def hand_outs(self) -> Sequence[HandOut]:
        """Hand out, and let the log have it."""
        hand_outs = self.ledger.hand_outs(self.now)
        for hand_out in hand_outs:
            self.tell(hand_out.told)
        return hand_outs

    def works(self) -> list[Work]:
        return [hand_out.work for hand_out in self.hand_outs()]

    def start(self, work: Work, worker: str) -> None:
        self.tell(Started(**of(work), at=self.now, worker=worker))

    def give_back(self, work: Work, worker: str, reason: str = "left_over") -> None:
        self.tell(Returned(**of(work), at=self.now, worker=worker, reason=reason))

    def end(self, work: Work, state: State = State.SUCCEEDED) -> None:
        outcome = Outcome(job_id=work.job.id, state=state, at=self.now)
        self.tell(Ended(**of(work), at=self.now, outcome=outcome))

    def dies_over(self, work: Work, worker: str, finder: str) -> None:
        """`worker` starts it and falls silent; `finder` lives, and finds it in the dead one's lane."""
        self.start(work, worker)
        self.now += SILENCE_S + 1
        self.beat(finder)
        self.give_back(work, finder)

    def successor(self) -> "Model":
        """A model whose ledger was folded anew from the same logs."""
        other = Model()
        other.now, other.log, other.read = self.now, self.log, self.read
        other.slots, other.lanes = self.slots, self.lanes
        other.ledger.read(self.read)
        events = [Logged(n, event) for n, event in enumerate(self.log, 1)]
        other.ledger.follow(Batch(events, str(len(events))), self.now, replay=True)
        return other


def of(work: Work) -> dict[str, Any]:
    return {"job_id": work.job.id, "attempt": work.attempt, "delivery": work.delivery}


def names(works: Sequence[Work]) -> list[str]:
    return [work.job.id for work in works]


def test_no_worker_gets_more_than_its_slots() -> None:
    assert len(Model(jobs=9, a=2, b=3).works()) == 5


def test_the_emptiest_worker_is_served_first() -> None:
    hand_outs = Model(jobs=3, a=2, b=4).hand_outs()
    assert [hand_out.told.worker for hand_out in hand_outs] == ["b", "b", "a"]


def test_a_worker_of_quick_jobs_is_given_one_ahead() -> None:
    model = Model(jobs=9, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.now += 0.05
    model.end(work)
    assert len(model.works()) == 2


def test_a_free_slot_is_filled_as_soon_as_a_job_ends() -> None:
    model = Model(jobs=3, a=2)
    first, _ = model.works()
    assert model.works() == []
    model.end(first)
    assert len(model.works()) == 1


def test_a_draining_or_silent_or_laneless_worker_gets_nothing() -> None:
    model = Model(jobs=3)
    model.beat("silent")
    model.now += SILENCE_S + 0.1
    model.beat("leaving", draining=True)
    model.beat("without a lane", lanes=())
    assert model.works() == []


def test_a_job_unknown_here_that_a_worker_runs_takes_a_slot() -> None:
    model = Model(jobs=3, a=2)
    model.beat("a", Work(job=make_job(77), lane=0, attempt=0, delivery=0))
    assert len(model.works()) == 1


def test_a_beat_told_after_an_end_it_was_made_before_holds_no_slot() -> None:
    model = Model(jobs=2, a=1)
    (work,) = model.works()
    model.end(work)
    model.beat("a", work)
    assert len(model.works()) == 1


def test_a_lane_belongs_to_who_told_it_last() -> None:
    model = Model(jobs=2, dead=1)
    model.beat("heir", lanes=(0,))
    assert [hand_out.told.worker for hand_out in model.hand_outs()] == ["heir"]


def test_a_job_published_twice_is_handed_out_once_and_both_positions_are_decided_together() -> None:
    model = Model(jobs=1, a=2)
    model.publish(make_job(1))
    (work,) = model.works()
    assert model.ledger.commit().position == 0
    model.end(work)
    assert model.ledger.commit().position == 2


def test_a_job_that_ended_before_it_was_read_is_not_handed_out() -> None:
    model = Model(a=1)
    model.end(Work(job=make_job(1), lane=0, attempt=0, delivery=0), State.CANCELED)
    model.publish(make_job(1))
    assert model.works() == []
    assert model.ledger.commit().position == 1


def test_a_cancel_takes_a_waiting_job_out_of_the_queue() -> None:
    model = Model(jobs=2, a=2)
    model.end(Work(job=make_job(1), lane=0, attempt=0, delivery=0), State.CANCELED)
    assert names(model.works()) == [job_id(2)]


def test_an_unreadable_job_holds_the_commit_and_nothing_else() -> None:
    model = Model(a=1)
    model.publish(Unreadable(raw="{}", why="version 9"))
    model.publish(make_job(2))
    (work,) = model.works()
    model.end(work)
    assert model.ledger.commit().position == 0


def test_commit_keeps_the_cursor_from_which_the_oldest_undecided_job_is_told() -> None:
    model = Model(a=2)
    for n in (1, 2, 3):
        model.publish(make_job(n))
        model.beat("a")
    first, second = model.works()
    model.end(second)
    assert model.ledger.commit() == Lead(0, "1")
    model.end(first)
    assert model.ledger.commit() == Lead(2, "3")


def test_a_retry_waits_for_its_time_and_begins_at_delivery_zero() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.tell(Retried(job_id=work.job.id, at=NOW, attempt=1, delivery=0, not_before=NOW + 5, error=PROBLEM))
    assert model.works() == []
    assert model.ledger.next_at(NOW) == NOW + 5
    model.now = NOW + 5
    model.beat("a")
    (again,) = model.works()
    assert (again.attempt, again.delivery, again.alone) == (1, 0, False)


def test_a_drained_job_is_redelivered_and_nothing_is_held_against_it() -> None:
    model = Model(jobs=1, a=1)
    for delivery in range(6):
        (work,) = model.works()
        assert (work.delivery, work.alone) == (delivery, False)
        model.start(work, "a")
        model.give_back(work, "a", "drain")


def test_a_redelivery_is_not_charged_to_its_owner_again() -> None:
    model = Model(a=1)
    for n, owner in enumerate(["ann", "bob", "ann", "bob"], 1):
        model.publish(make_job(n, owner=owner))
    model.give_back(model.works()[0], "a", "drain")
    order = []
    while works := model.works():
        order += names(works)
        model.end(works[0])
    assert order == [job_id(n) for n in (2, 1, 3, 4)]


def test_a_job_left_over_unstarted_is_redelivered_and_nothing_is_held_against_it() -> None:
    model = Model(jobs=1, a=1)
    for delivery in range(6):
        (work,) = model.works()
        assert (work.delivery, work.alone) == (delivery, False)
        model.give_back(work, "b")


def test_late_news_of_an_earlier_delivery_changes_nothing() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.give_back(work, "b")
    (again,) = model.works()
    model.give_back(work, "b")
    assert model.works() == []
    assert again.delivery == 1


def test_a_job_whose_worker_fell_silent_runs_alone() -> None:
    model = Model(jobs=3, a=2)
    works = model.works()
    model.dies_over(works[0], "a", finder="b")
    model.slots = {"b": 4}
    model.beat("b")
    alone = model.works()
    assert names(alone) == [works[0].job.id]
    assert (alone[0].alone, alone[0].delivery) == (True, 1)
    model.end(alone[0])
    assert not any(work.alone for work in model.works())


def test_a_suspect_that_comes_back_unstarted_still_runs_alone() -> None:
    model = Model(jobs=3, a=2)
    model.dies_over(model.works()[0], "a", finder="b")
    model.slots = {"b": 2}
    model.beat("b")
    (suspect,) = model.works()
    model.give_back(suspect, "b", "drain")
    (again,) = model.works()
    assert (again.job.id, again.alone, again.delivery) == (suspect.job.id, True, 2)


def test_a_worker_is_emptied_for_a_suspect_while_others_go_on() -> None:
    model = Model(jobs=9, a=2)
    suspect = model.works()[0]
    model.slots = {"b": 2, "c": 2}
    model.now += SILENCE_S + 1
    model.beat("b")
    model.beat("c")
    busy = model.hand_outs()
    model.start(suspect, "a")
    model.give_back(suspect, "b")
    on_b = [hand_out.work for hand_out in busy if hand_out.told.worker == "b"]
    model.end(on_b[0])
    assert model.works() == []
    model.end(on_b[1])
    (hand_out,) = model.hand_outs()
    assert (hand_out.work.job.id, hand_out.work.alone, hand_out.told.worker) == (suspect.job.id, True, "b")


def test_the_third_death_alone_is_a_dead_letter() -> None:
    model = Model(jobs=1)
    for death in range(4):
        assert model.ledger.ends(model.now, 10) == []
        model.beat(f"w{death}")
        (work,) = model.works()
        assert work.alone is (death > 0)
        model.dies_over(work, f"w{death}", finder=f"w{death + 1}")
    (end,) = model.ledger.ends(model.now, 10)
    assert (end.outcome.state, end.outcome.error and end.outcome.error.slug) == (State.FAILED, "dead-letter")
    assert model.works() == []
    model.tell(end)
    assert model.ledger.commit().position == 1


def test_a_successor_counts_the_deaths_its_predecessor_saw() -> None:
    model = Model(jobs=1)
    for death in range(4):
        model = model.successor()
        model.beat(f"w{death}")
        (work,) = model.works()
        model.dies_over(work, f"w{death}", finder=f"w{death + 1}")
    assert len(model.successor().ledger.ends(model.now, 10)) == 1


def test_a_failure_told_by_a_living_worker_clears_the_suspicion() -> None:
    model = Model(jobs=1)
    model.beat("a")
    model.dies_over(model.works()[0], "a", finder="b")
    (work,) = model.works()
    model.start(work, "b")
    model.tell(Retried(job_id=work.job.id, at=model.now, attempt=1, delivery=0, not_before=0.0, error=PROBLEM))
    assert not model.works()[0].alone


def test_a_job_that_a_living_worker_still_tells_is_held_back() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.beat("a", work)
    model.give_back(work, "b")
    model.beat("b")
    assert model.works() == []
    model.end(work)
    assert model.works() == []
    assert model.ledger.commit().position == 1


def test_a_job_held_back_goes_out_again_after_twice_its_expected_time() -> None:
    model = Model(jobs=2, a=1)
    (before,) = model.works()
    model.start(before, "a")
    model.now += 10
    model.end(before)
    model.beat("a")
    (work,) = model.works()
    model.start(work, "a")
    begun_at = model.now
    model.give_back(work, "b")
    redelivered = {}
    for after_s in (2, 19, 20):
        model.now = begun_at + after_s
        model.beat("a", work)
        model.beat("b")
        redelivered[after_s] = [(again.delivery, again.alone) for again in model.works()]
    assert redelivered == {2: [], 19: [], 20: [(1, False)]}


def test_a_job_held_back_is_a_suspect_once_its_worker_falls_silent() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.give_back(work, "b")
    model.now += SILENCE_S + 0.1
    model.beat("b")
    assert model.works()[0].alone


def test_a_quick_job_is_held_back_until_the_silence_of_its_worker_would_be_heard() -> None:
    model = Model(jobs=2, a=1)
    (before,) = model.works()
    model.start(before, "a")
    model.now += 0.05
    model.end(before)
    work = model.works()[0]
    model.start(work, "a")
    model.now += 1
    model.give_back(work, "b")
    model.beat("b")
    assert model.works() == []
    model.now += SILENCE_S
    model.beat("b")
    assert model.works()[0].alone


def test_a_successor_holds_against_a_job_what_its_predecessor_did() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.give_back(work, "b")
    model.now += SILENCE_S + 0.1
    model.beat("b")
    (suspect,) = model.works()
    model = model.successor()
    model.give_back(suspect, "b", "drain")
    assert model.works()[0].alone


def test_a_successor_holds_nothing_else_against_it() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.give_back(work, "b")
    model.now += 60
    model.beat("a", work)
    model.beat("b")
    (again,) = model.works()
    model = model.successor()
    model.now += SILENCE_S + 1
    model.give_back(again, "c")
    model.beat("c")
    assert not model.works()[0].alone


def test_a_job_held_back_that_its_worker_gives_back_is_redelivered() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.give_back(work, "b")
    model.give_back(work, "a", "drain")
    model.beat("b")
    (again,) = model.works()
    assert (again.delivery, again.alone) == (1, False)


def test_what_waits_past_its_time_is_to_be_ended() -> None:
    model = Model(a=1)
    model.publish(make_job(1, expires_at=NOW + 10))
    model.publish(make_job(2, expires_at=NOW + 20))
    assert model.ledger.ends(NOW + 9, 10) == []
    (end,) = model.ledger.ends(NOW + 10, 10)
    assert end.outcome == Outcome.expired(job_id(1), 0, NOW + 10)


def test_what_is_out_does_not_expire_here() -> None:
    model = Model(a=1)
    model.publish(make_job(1, expires_at=NOW + 10))
    model.works()
    assert model.ledger.ends(NOW + 10, 10) == []


def test_a_hand_out_that_may_have_failed_is_made_again() -> None:
    model = Model(jobs=1, a=1)
    hand_outs = model.ledger.hand_outs(NOW)
    model.ledger.take_back(hand_outs)
    assert model.ledger.hand_outs(NOW) == hand_outs


def test_a_hand_out_that_did_not_fail_after_all_is_known_by_its_start() -> None:
    model = Model(jobs=1, a=1)
    hand_outs = model.ledger.hand_outs(NOW)
    model.ledger.take_back(hand_outs)
    model.start(hand_outs[0].work, "a")
    assert model.works() == []


def test_start_told_before_dispatched_is_understood() -> None:
    model = Model(jobs=2, a=1)
    (hand_out,) = model.ledger.hand_outs(NOW)
    model.start(hand_out.work, "b")
    model.tell(hand_out.told)
    assert len(model.works()) == 1


def test_a_successor_knows_what_is_out() -> None:
    model = Model(jobs=4, a=2)
    first, _ = model.works()
    model.end(first)
    successor = model.successor()
    assert len(successor.works()) == 1
    assert successor.ledger.standing(NOW).running == 2


def test_standing_tells_what_waits_runs_and_goes_next() -> None:
    model = Model(jobs=3, a=2)
    model.publish(make_job(4, priority=Priority.HIGH))
    model.beat("b", slots=1, draining=True)
    model.works()
    standing = model.ledger.standing(NOW)
    assert (standing.waiting, standing.running, standing.slots, standing.workers) == (2, 2, 2, 1)
    assert standing.front == (job_id(2), job_id(3))
    (share,) = standing.shares
    assert (share.owner, sum(share.jobs), share.running) == ("local", 2, 2)
    assert standing.oldest_created_at == NOW + 2


def test_seconds_per_job_is_learned_from_start_to_success() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    model.now += 8
    model.end(work)
    assert model.ledger.standing(NOW).seconds_per_job == 8


def test_standing_tells_what_the_waiting_and_the_running_cost() -> None:
    model = Model(a=1)
    for number, cost in ((1, 1), (2, 20), (3, 300)):
        model.publish(make_job(number, cost=cost))
    (work,) = model.works()
    standing = model.ledger.standing(NOW)
    assert (standing.running_cost, standing.waiting_cost, standing.front_costs) == (1, 320, (20, 300))
    model.give_back(work, "a", reason="drain")
    standing = model.ledger.standing(NOW)
    assert (standing.running_cost, standing.waiting_cost, standing.front_costs) == (0, 321, (1, 20, 300))
    model.end(work, State.CANCELED)
    assert model.ledger.standing(NOW).waiting_cost == 320


def test_the_pace_is_unknown_until_a_job_is_done_and_a_successor_learns_it() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.start(work, "a")
    assert model.ledger.standing(NOW).cost_per_s is None
    model.now += 8
    model.end(work)
    standing = model.ledger.standing(model.now)
    assert standing.cost_per_s == work.job.cost / 8
    successor = Model()
    successor.tell(standing)
    assert successor.ledger.standing(model.now).cost_per_s == work.job.cost / 8


def test_the_event_tells_what_the_work_message_says() -> None:
    (hand_out,) = Model(jobs=1, a=1).hand_outs()
    assert hand_out.told == Dispatched(**of(hand_out.work), at=NOW, lane=0, worker="a", deaths=0)


# What the controller goes by


def test_standing_tells_what_arrives_and_how_much_a_worker_does() -> None:
    model = Model(a=4)
    for number in range(1, 5):
        model.publish(make_job(number, cost=100, created_at=NOW))
    works = model.works()
    for work in works:
        model.start(work, "a")
    model.now += 8
    for work in works:
        model.end(work)

    standing = model.ledger.standing(model.now)

    assert standing.worker_cost_per_s == 4 * 100 / 8
    assert standing.mean_cost == 100
    assert standing.arriving[0] > standing.arriving[1] > 0
    assert model.successor().ledger.standing(model.now).arriving == standing.arriving


def test_job_that_went_to_another_worker_counts_for_that_one_alone() -> None:
    model = Model(jobs=1, a=1)
    (work,) = model.works()
    model.dies_over(work, "a", finder="b")
    (again,) = model.works()
    model.start(again, "b")
    model.now += 2
    model.end(again)
    assert model.ledger.standing(model.now).worker_cost_per_s == work.job.cost / 2


def test_cold_start_is_that_of_the_last_worker_and_outlives_it() -> None:
    model = Model()
    model.beat("a", cold_start_s=7.5)
    model.now += SILENCE_S + 1
    standing = model.ledger.standing(model.now)
    assert (standing.workers, standing.cold_start_s) == (0, 7.5)
    successor = Model()
    successor.tell(standing)
    assert successor.ledger.standing(model.now).cold_start_s == 7.5


# A model that can't be loaded


def not_loaded(model: Model, worker: str = "a") -> None:
    model.beat(worker, slots=0, draining=True, trouble="the weights are cut off")


def test_jobs_fail_with_the_reason_when_their_model_can_not_be_loaded_for_too_long() -> None:
    model = Model(jobs=2, patience_s=60)
    model.now += 10
    not_loaded(model)
    model.now += 59
    not_loaded(model, "b")
    assert model.ledger.ends(model.now, 9) == []

    model.now += 1
    ends = model.ledger.ends(model.now, 9)

    assert [end.job_id for end in ends] == [job_id(1), job_id(2)]
    for end in ends:
        assert end.outcome.error is not None
        assert (end.outcome.error.slug, end.outcome.state) == ("model-broken", State.FAILED)
        assert "the weights are cut off" in end.outcome.error.detail
        model.tell(end)
    assert model.ledger.standing(model.now).waiting == 0


def test_each_job_waits_its_time_for_a_model_that_is_broken_already() -> None:
    model = Model(patience_s=60)
    not_loaded(model)
    model.now += 100
    model.publish(make_job(1, created_at=model.now))
    assert model.ledger.ends(model.now + 59, 9) == []
    assert len(model.ledger.ends(model.now + 60, 9)) == 1


def test_model_that_was_mended_keeps_its_jobs() -> None:
    model = Model(jobs=1, patience_s=60)
    not_loaded(model)
    model.now += 50
    model.beat("b")
    model.now += 50
    assert model.ledger.ends(model.now, 9) == []


def test_job_that_runs_does_not_fail_for_a_worker_that_could_not_start() -> None:
    model = Model(jobs=1, patience_s=60, a=1)
    (work,) = model.works()
    model.start(work, "a")
    not_loaded(model, "b")
    model.now += 100
    assert model.ledger.ends(model.now, 9) == []
