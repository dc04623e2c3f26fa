"""How a row follows its job's events (core.events.advance): late, repeated and stale ones change nothing."""

from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.events import (
    MAX_LIFECYCLE,
    Dispatched,
    Ended,
    JobEvent,
    JobRow,
    Retried,
    Returned,
    Started,
    advance,
    new_row,
)
from sfumato.core.job import Outcome, Problem, State
from tests.support import NOW, make_job

JOB = make_job(1)
PROBLEM = Problem(slug="try-again", title="It did not work now", detail="the disk is full")


def dispatched(attempt: int = 0, delivery: int = 0) -> Dispatched:
    return Dispatched(job_id=JOB.id, at=NOW, attempt=attempt, delivery=delivery, lane=0, worker="w")


def started(attempt: int = 0, delivery: int = 0, worker: str = "w") -> Started:
    return Started(job_id=JOB.id, at=NOW + 1, attempt=attempt, delivery=delivery, worker=worker)


def returned(attempt: int = 0, delivery: int = 0) -> Returned:
    return Returned(job_id=JOB.id, at=NOW + 2, attempt=attempt, delivery=delivery, worker="w", reason="drain")


def retried(attempt: int = 1) -> Retried:
    return Retried(job_id=JOB.id, at=NOW + 3, attempt=attempt, delivery=0, not_before=NOW + 9, error=PROBLEM)


def ended(state: State = State.SUCCEEDED, attempt: int = 0) -> Ended:
    outcome = Outcome(job_id=JOB.id, state=state, attempt=attempt, at=NOW + 4)
    return Ended(job_id=JOB.id, at=NOW + 4, attempt=attempt, delivery=0, outcome=outcome)


def after(*events: JobEvent, row: JobRow | None = None) -> JobRow:
    """The row after these events, at positions 1, 2, …"""
    row = row or new_row(JOB)
    for position, event in enumerate(events, 1):
        row = advance(row, event, position)
    return row


def test_new_row_is_queued_and_says_since_when() -> None:
    row = new_row(JOB)

    assert (row.state, row.position) == (State.QUEUED, 0)
    assert [(line.kind, line.at) for line in row.events] == [("queued", JOB.created_at)]


def test_dispatching_shows_nothing_new() -> None:
    assert after(dispatched()) == new_row(JOB).model_copy(update={"position": 1})


def test_started_job_runs() -> None:
    row = after(started())

    assert (row.state, row.worker, row.started_at) == (State.RUNNING, "w", NOW + 1)


def test_redelivered_job_runs_on_its_new_worker() -> None:
    row = after(started(), started(delivery=1, worker="other"))

    assert (row.state, row.worker, row.delivery) == (State.RUNNING, "other", 1)


def test_job_that_waits_for_its_retry_shows_queued_with_its_attempt_and_when() -> None:
    row = after(started(), retried())

    assert (row.state, row.attempt, row.not_before, row.last_error) == (State.QUEUED, 1, NOW + 9, PROBLEM)
    assert row.worker == ""


def test_retry_is_over_when_it_starts() -> None:
    assert after(started(), retried(), started(attempt=1)).not_before is None


def test_end_is_kept_with_its_outcome() -> None:
    row = after(started(), ended())

    assert row.state is State.SUCCEEDED
    assert row.outcome == ended().outcome


def test_end_may_come_before_its_start_was_seen() -> None:
    assert after(ended(State.SUCCEEDED)).state is State.SUCCEEDED
    assert after(ended(State.CANCELED)).state is State.CANCELED


def test_stale_events_change_nothing_but_the_position() -> None:
    row = after(started(), retried(attempt=1))

    for stale in (started(delivery=5), returned(), retried(attempt=0)):
        assert advance(row, stale, 9) == row.model_copy(update={"position": 9})


def test_end_told_for_an_older_attempt_still_ends_the_job() -> None:
    assert after(started(), retried(), ended(State.CANCELED, attempt=0)).state is State.CANCELED


def test_history_keeps_the_first_line_and_the_latest() -> None:
    row = after(*(started(delivery=n) for n in range(40)), ended())

    assert len(row.events) == MAX_LIFECYCLE
    assert (row.events[0].kind, row.events[-1].kind) == ("queued", "final")


orders = st.integers(0, 2)
any_event: st.SearchStrategy[JobEvent] = st.one_of(
    st.builds(dispatched, orders, orders),
    st.builds(started, orders, orders),
    st.builds(returned, orders, orders),
    st.builds(retried, orders),
    st.builds(ended, st.sampled_from([state for state in State if state.terminal]), orders),
)
stories = st.lists(any_event, max_size=12)


@given(stories)
def test_no_order_of_events_is_refused(story: list[JobEvent]) -> None:
    assert after(*story).position == len(story)


@given(stories, st.data())
def test_reading_again_from_anywhere_changes_nothing(story: list[JobEvent], data: st.DataObject) -> None:
    row = after(*story)
    again = data.draw(st.lists(st.integers(1, max(1, len(story))), max_size=20))

    for position in again:
        if story:
            assert advance(row, story[position - 1], position) == row


@given(stories, stories)
def test_nothing_moves_a_row_that_has_ended(before: list[JobEvent], late: list[JobEvent]) -> None:
    row = after(*before, ended())
    assert row.state.terminal

    for position, event in enumerate(late, row.position + 1):
        row_then, row = row, advance(row, event, position)
        assert row == row_then.model_copy(update={"position": position})


@given(stories)
def test_first_end_that_is_told_holds(story: list[JobEvent]) -> None:
    ends = [event.outcome for event in story if isinstance(event, Ended)]

    assert after(*story).outcome == (ends[0] if ends else None)


@given(stories)
def test_attempts_never_go_back(story: list[JobEvent]) -> None:
    row = new_row(JOB)
    for position, event in enumerate(story, 1):
        later = advance(row, event, position)
        assert (later.attempt, later.delivery) >= (row.attempt, row.delivery)
        row = later
