"""When a failed attempt is tried again."""

from sfumato.core.errors import EngineDead, PermanentError, TransientError
from sfumato.core.retry import GiveUp, Retry, RetryPolicy
from tests.support import NOW

POLICY = RetryPolicy(max_attempts=4, first_s=1.0, factor=4.0, longest_s=10.0)
AWAY = TransientError("away")


def test_waits_grow_up_to_the_longest() -> None:
    waits = [POLICY.after(attempt, AWAY, NOW, dice=1.0) for attempt in range(3)]
    assert waits == [Retry(1, NOW + 1), Retry(2, NOW + 4), Retry(3, NOW + 10)]


def test_dice_spread_the_upper_half() -> None:
    assert POLICY.after(0, AWAY, NOW, dice=0.0) == Retry(1, NOW + 0.5)


def test_the_last_attempt_is_the_last() -> None:
    assert POLICY.after(3, AWAY, NOW, dice=0.0) == GiveUp()


def test_what_can_never_succeed_is_not_tried_again() -> None:
    assert POLICY.after(0, PermanentError("no picture"), NOW, dice=0.0) == GiveUp()
    assert POLICY.after(0, EngineDead("device lost"), NOW, dice=0.0) == GiveUp()


def test_an_unforeseen_error_gets_one_more_try() -> None:
    assert isinstance(POLICY.after(0, ZeroDivisionError(), NOW, dice=0.0), Retry)
    assert POLICY.after(1, ZeroDivisionError(), NOW, dice=0.0) == GiveUp()
