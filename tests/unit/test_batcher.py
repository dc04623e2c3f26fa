import pytest

from sfumato.core.params import Shape
from sfumato.engine.batcher import Batcher, Call, Whose

SQUARE = Shape(64, 64)
WIDE = Shape(96, 48)


def test_empty_batcher_has_no_call() -> None:
    assert Batcher(4).next() is None


def test_oldest_job_chooses_the_shape_and_its_like_ride_along() -> None:
    batcher = Batcher(4)
    batcher.add("a", WIDE, 1)
    batcher.add("b", SQUARE, 1)
    batcher.add("c", WIDE, 1)

    assert batcher.next() == Call(WIDE, ("a", "c"))


def test_next_oldest_shape_follows_when_the_oldest_job_has_left() -> None:
    batcher = Batcher(4)
    batcher.add("a", WIDE, 1)
    batcher.add("b", SQUARE, 1)
    batcher.add("c", WIDE, 1)

    batcher.remove("a")

    assert batcher.next() == Call(SQUARE, ("b",))


def test_call_is_filled_oldest_first() -> None:
    batcher = Batcher(2)
    for key in "abc":
        batcher.add(key, SQUARE, 1)

    assert batcher.next() == Call(SQUARE, ("a", "b"))


def test_jobs_of_one_moment_keep_their_order() -> None:
    batcher = Batcher(2)
    for key in "cab":
        batcher.add(key, SQUARE, 1)

    assert batcher.next() == Call(SQUARE, ("c", "a"))


def test_guided_job_that_does_not_fit_lets_a_single_row_pass() -> None:
    batcher = Batcher(2)
    batcher.add("single", SQUARE, 1)
    batcher.add("guided", SQUARE, 2)
    batcher.add("late", SQUARE, 1)

    assert batcher.next() == Call(SQUARE, ("single", "late"))


def test_job_with_more_rows_than_a_call_has_goes_alone() -> None:
    batcher = Batcher(1)
    batcher.add("guided", SQUARE, 2)
    batcher.add("late", SQUARE, 1)

    assert batcher.next() == Call(SQUARE, ("guided",))


def test_urgent_job_is_in_the_next_call_of_a_full_model() -> None:
    batcher = Batcher(2)
    for key in "abc":
        batcher.add(key, SQUARE, 1)
    batcher.next()
    batcher.add("urgent", SQUARE, 1, urgent=True)

    assert batcher.next() == Call(SQUARE, ("urgent", "a"))


def test_urgent_job_chooses_its_own_shape() -> None:
    batcher = Batcher(1)
    batcher.add("running", SQUARE, 1)
    batcher.add("urgent", WIDE, 1, urgent=True)

    assert batcher.next() == Call(WIDE, ("urgent",))


def test_urgent_jobs_keep_their_order_among_themselves() -> None:
    batcher = Batcher(2)
    batcher.add("ordinary", SQUARE, 1)
    for key in "cab":
        batcher.add(key, SQUARE, 1, urgent=True)

    assert batcher.next() == Call(SQUARE, ("c", "a"))


def test_oldest_ordinary_job_leads_every_fourth_call_beside_a_stream_of_urgent_ones() -> None:
    batcher = Batcher(2)
    batcher.add("old", SQUARE, 1)
    batcher.add("young", SQUARE, 1)
    batcher.add("urgent", WIDE, 1, urgent=True)

    leaders = [call.keys[0] for _ in range(8) if (call := batcher.next())]

    assert leaders == [*["urgent"] * 3, "old"] * 2


def test_urgent_jobs_ride_along_when_an_ordinary_one_leads() -> None:
    batcher = Batcher(2)
    batcher.add("old", SQUARE, 1)
    for key in "abc":
        batcher.add(key, SQUARE, 1, urgent=True)

    calls = [call.keys for _ in range(4) if (call := batcher.next())]

    assert calls == [*[("a", "b")] * 3, ("old", "a")]


def test_ordinary_job_that_rides_along_was_not_left_out() -> None:
    batcher = Batcher(2)
    batcher.add("old", SQUARE, 1)
    batcher.add("urgent", SQUARE, 1, urgent=True)

    calls = [call.keys for _ in range(6) if (call := batcher.next())]

    assert calls == [("urgent", "old")] * 6


def test_newcomer_rides_at_once_beside_all_that_another_owner_put_in() -> None:
    batcher = Batcher(3)
    for key in "abcdef":
        batcher.add(key, SQUARE, 1, whose=Whose("flood"))
    batcher.add("single", SQUARE, 1, whose=Whose("ann"))

    assert batcher.next() == Call(SQUARE, ("a", "single", "b"))
    batcher.remove("single")
    assert batcher.next() == Call(SQUARE, ("a", "b", "c"))


def test_owner_of_more_weight_has_more_turns() -> None:
    batcher = Batcher(4)
    for key in "abcd":
        batcher.add(key, SQUARE, 1, whose=Whose("ann"))
    for key in "efgh":
        batcher.add(key, SQUARE, 1, whose=Whose("bob", weight=3.0))

    assert batcher.next() == Call(SQUARE, ("a", "e", "f", "g"))


def test_oldest_job_leads_however_many_owners_come() -> None:
    batcher = Batcher(2)
    for key in "ab":
        batcher.add(key, SQUARE, 1, whose=Whose("flood"))
    for key in "cdef":
        batcher.add(key, SQUARE, 1, whose=Whose(key))

    assert batcher.next() == Call(SQUARE, ("a", "c"))
    batcher.remove("a")
    assert batcher.next() == Call(SQUARE, ("b", "c"))


def test_lowered_cap_holds_for_its_shape_alone() -> None:
    batcher = Batcher(4)
    batcher.lower(WIDE, 2)

    assert (batcher.cap(WIDE), batcher.cap(SQUARE)) == (2, 4)


@pytest.mark.parametrize(("asked", "cap"), [(0, 1), (3, 2), (2, 2)])
def test_cap_only_falls_and_never_to_nothing(asked: int, cap: int) -> None:
    batcher = Batcher(4)
    batcher.lower(WIDE, 2)

    batcher.lower(WIDE, asked)

    assert batcher.cap(WIDE) == cap


def test_key_can_be_in_only_once() -> None:
    batcher = Batcher(4)
    batcher.add("a", SQUARE, 1)

    with pytest.raises(ValueError, match="a is in the batcher"):
        batcher.add("a", WIDE, 1)


def test_removing_an_unknown_key_says_so() -> None:
    assert Batcher(4).remove("a") is False
