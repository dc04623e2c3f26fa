"""The offset tracker against a plain model: two sets and a scan."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfumato.broker.offsets import OffsetTracker

COMMITTED = 41


class TrackerBesideSets(RuleBasedStateMachine):
    """Every step is done to the tracker and to a list of positions with a set of the decided."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker(COMMITTED)
        self.registered: list[int] = []
        self.decided: set[int] = set()

    @rule(gap=st.integers(1, 5))
    def register(self, gap: int) -> None:
        position = (self.registered[-1] if self.registered else COMMITTED) + gap
        self.tracker.register(position)
        self.registered.append(position)

    @precondition(lambda self: self.registered)
    @rule(data=st.data())
    def decide(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(self.registered))
        self.tracker.decide(position)
        self.decided.add(position)

    @precondition(lambda self: self.registered)
    @rule(back=st.integers(0, 3))
    def refuse_what_was_read_before(self, back: int) -> None:
        with pytest.raises(ValueError, match="in its order"):
            self.tracker.register(self.registered[-1] - back)

    @rule(ahead=st.integers(1, 3))
    def refuse_to_decide_the_unread(self, ahead: int) -> None:
        with pytest.raises(ValueError, match="before it was registered"):
            self.tracker.decide((self.registered[-1] if self.registered else COMMITTED) + ahead)

    @invariant()
    def commits_exactly_the_decided_prefix(self) -> None:
        prefix = COMMITTED
        for position in self.registered:
            if position not in self.decided:
                break
            prefix = position
        assert self.tracker.committable == prefix

    @invariant()
    def counts_the_undecided(self) -> None:
        assert self.tracker.undecided == len(set(self.registered) - self.decided)


TestTrackerBesideSets = TrackerBesideSets.TestCase
TestTrackerBesideSets.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
