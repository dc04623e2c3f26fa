import pytest

from sfumato.core.params import Shape
from sfumato.engine.batcher import Batcher, Call

SQUARE = Shape(64, 64)
WIDE = Shape(96, 48)


def test_empty_batcher_has_no_call() -> None:
    assert Batcher(4).next() is None


def test_oldest_job_chooses_the_shape_and_its_like_ride_along() -> None:
    batcher = Batcher(4)
    batcher.add("a", WIDE, 1, now=1.0)
    batcher.add("b", SQUARE, 1, now=2.0)
    batcher.add("c", WIDE, 1, now=3.0)

    assert batcher.next() == Call(WIDE, ("a", "c"))


def test_next_oldest_shape_follows_when_the_oldest_job_has_left() -> None:
    batcher = Batcher(4)
    batcher.add("a", WIDE, 1, now=1.0)
    batcher.add("b", SQUARE, 1, now=2.0)
    batcher.add("c", WIDE, 1, now=3.0)

    batcher.remove("a")

    assert batcher.next() == Call(SQUARE, ("b",))


def test_call_is_filled_oldest_first() -> None:
    batcher = Batcher(2)
    for number, key in enumerate("abc"):
        batcher.add(key, SQUARE, 1, now=number)

    assert batcher.next() == Call(SQUARE, ("a", "b"))


def test_jobs_of_one_moment_keep_their_order() -> None:
    batcher = Batcher(2)
    for key in "cab":
        batcher.add(key, SQUARE, 1, now=0.0)

    assert batcher.next() == Call(SQUARE, ("c", "a"))


def test_guided_job_that_does_not_fit_lets_a_single_row_pass() -> None:
    batcher = Batcher(2)
    batcher.add("single", SQUARE, 1, now=1.0)
    batcher.add("guided", SQUARE, 2, now=2.0)
    batcher.add("late", SQUARE, 1, now=3.0)

    assert batcher.next() == Call(SQUARE, ("single", "late"))


def test_job_with_more_rows_than_a_call_has_goes_alone() -> None:
    batcher = Batcher(1)
    batcher.add("guided", SQUARE, 2, now=1.0)
    batcher.add("late", SQUARE, 1, now=2.0)

    assert batcher.next() == Call(SQUARE, ("guided",))


def test_head_start_pauses_younger_jobs() -> None:
    batcher = Batcher(1)
    batcher.add("running", SQUARE, 1, now=100.0)
    batcher.add("urgent", WIDE, 1, now=105.0, head_start_s=10.0)

    assert batcher.next() == Call(WIDE, ("urgent",))


def test_head_start_does_not_pass_jobs_older_than_it() -> None:
    batcher = Batcher(1)
    batcher.add("old", SQUARE, 1, now=90.0)
    batcher.add("urgent", SQUARE, 1, now=105.0, head_start_s=10.0)

    assert batcher.next() == Call(SQUARE, ("old",))


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
    batcher.add("a", SQUARE, 1, now=0.0)

    with pytest.raises(ValueError, match="a is in the batcher"):
        batcher.add("a", WIDE, 1, now=0.0)


def test_removing_an_unknown_key_says_so() -> None:
    assert Batcher(4).remove("a") is False
