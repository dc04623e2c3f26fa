"""Retries, as a conversation around another one: what may pass is tried again before anyone hears of it."""

from collections.abc import Callable, Generator
from typing import Final, TypeVar

from sfumato.client.messages import Flow, Reply, Request, Response, Sleep, answer_to
from sfumato.core.errors import TransientError
from sfumato.core.retry import Retry, RetryPolicy

__all__ = ["PATIENCE", "persistent"]

S = TypeVar("S")
T = TypeVar("T")

PATIENCE: Final = RetryPolicy(max_attempts=6, first_s=0.25, factor=2.0, longest_s=30.0)
"""How often and how long the clients try again by default: six attempts, about eight seconds of pauses."""

_PASSING: Final = frozenset({429, 502, 503, 504})
_UNDONE: Final = frozenset({429})
"""Of these, those that say for sure that nothing was done."""


def persistent(
    talk: Generator[S, Reply | None, T], policy: RetryPolicy, dice: Callable[[], float]
) -> Generator[S | Request | Sleep, Reply | None, T]:
    """`talk`, but what may pass (no answer, 429, 502, 503, 504) is tried again as `policy` and Retry-After say.

    Of what is not repeatable, only what was not done for sure is (429).

    The very same request goes out again, its Idempotency-Key with it. `dice` is uniform in [0, 1).
    """
    reply: Reply | None = None
    while True:
        try:
            step = talk.send(reply)
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        if isinstance(step, Request):
            reply = yield from _answered(step, policy, dice)
        else:
            yield step
            reply = None


def _answered(request: Request, policy: RetryPolicy, dice: Callable[[], float]) -> Flow[Reply]:
    attempt = 0
    while True:
        reply = yield from answer_to(request)
        passing = _PASSING if request.repeatable else _UNDONE
        if reply.status not in passing if isinstance(reply, Response) else not request.repeatable:
            return reply
        told_s = reply.retry_after_s if isinstance(reply, Response) else None
        verdict = policy.after(attempt, TransientError(""), 0.0, dice())
        if not isinstance(verdict, Retry) or (told_s or 0.0) > policy.longest_s:
            return reply
        yield Sleep(max(verdict.not_before, told_s or 0.0))
        attempt = verdict.attempt
