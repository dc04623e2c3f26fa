"""States, ids and slugs."""

import itertools

import pytest

from sfumato.core.job import TRANSITIONS, IllegalTransition, Priority, State, idempotent_job_id, model_slug, move, uuid7
from tests.support import NOW


@pytest.mark.parametrize(("start", "to"), list(itertools.product(State, State)))
def test_a_state_moves_only_where_the_table_has_an_arrow(start: State, to: State) -> None:
    if to in TRANSITIONS[start]:
        assert move(start, to) is to
    else:
        with pytest.raises(IllegalTransition, match=f"from {start} to {to}"):
            move(start, to)


def test_terminal_states_have_empty_rows() -> None:
    assert {state for state in State if state.terminal} == {State.SUCCEEDED, State.FAILED, State.CANCELED}


def test_ids_order_by_time_and_carry_version_seven() -> None:
    early, late = uuid7(NOW, bytes(10)), uuid7(NOW + 0.001, bytes(10))
    assert early < late
    assert early[14] == "7"
    assert early[19] in "89ab"


def test_the_same_owner_and_key_mean_the_same_job() -> None:
    assert idempotent_job_id("ann", "k") == idempotent_job_id("ann", "k")
    assert idempotent_job_id("ann", "k") != idempotent_job_id("bob", "k")
    assert idempotent_job_id("a", "b:c") != idempotent_job_id("a:b", "c")


def test_high_priority_ranks_first() -> None:
    assert sorted(Priority, key=lambda priority: priority.rank) == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


def test_a_slug_is_safe_in_topic_names() -> None:
    assert model_slug("SD XL/turbo_1.0") == "sd-xl-turbo-1-0"
    with pytest.raises(ValueError, match="no letter or digit"):
        model_slug("—")
