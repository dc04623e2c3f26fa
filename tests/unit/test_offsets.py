"""The offset tracker: what may be committed while entries are decided in any order."""

from sfumato.broker.offsets import OffsetTracker


def test_undecided_entry_holds_back_everything_behind_it() -> None:
    tracker = OffsetTracker(committed=10)
    for position in (11, 12, 13):
        tracker.register(position)

    tracker.decide(13)
    tracker.decide(12)

    assert tracker.committable == 10


def test_last_gap_to_close_frees_the_whole_prefix() -> None:
    tracker = OffsetTracker(committed=10)
    for position in (11, 12, 13):
        tracker.register(position)
    tracker.decide(13)
    tracker.decide(12)

    tracker.decide(11)

    assert tracker.committable == 13
    assert tracker.undecided == 0


def test_positions_missing_from_the_log_do_not_hold_back() -> None:
    tracker = OffsetTracker(committed=0)
    tracker.register(5)
    tracker.register(9)

    tracker.decide(5)
    tracker.decide(9)

    assert tracker.committable == 9


def test_deciding_twice_changes_nothing() -> None:
    tracker = OffsetTracker(committed=0)
    tracker.register(1)
    tracker.register(2)
    tracker.decide(1)

    tracker.decide(1)

    assert (tracker.committable, tracker.undecided) == (1, 1)
