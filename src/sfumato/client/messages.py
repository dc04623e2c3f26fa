"""What a conversation and its shell say to each other: requests and pauses out, replies in. No I/O.

A conversation is a generator. It yields `Request` (answered by `Response` or `Lost`), `Sleep` (answered by None) and,
when it is a stream, `Found` (a value for the caller, answered by None); its return value is the result.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

__all__ = [
    "Conversation",
    "Flow",
    "Found",
    "Image",
    "Lost",
    "Reply",
    "Request",
    "Response",
    "Sleep",
    "Stream",
    "answer_to",
]

F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Image:
    """A picture to send, held whole, so that a retry can send it again."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `url` is a path of the service or a whole link; `server_wait_s` is how long it was asked to
    hold the answer back, so the shell must wait that much longer. `content` is a JSON body. What is not `repeatable`
    would be done twice if it were sent twice."""

    method: str
    url: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    image: Image | None = None
    server_wait_s: float = 0.0
    content: bytes = b""
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: header names in lower case, the body read whole.

    `at` is when it came, on the shell's monotonic clock (seconds); `took_s` how long it took.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float
    took_s: float

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds (RFC 9110, section 10.2.3); dates are not used by Sfumato and read as absent."""
        told = self.headers.get("retry-after", "")
        return float(told) if told.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came: refused, reset or timed out. Whether the request took effect is unknown."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let `seconds` pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Found(Generic[F_co]):
    """One value of a stream."""

    value: F_co


Reply: TypeAlias = Response | Lost
Flow: TypeAlias = Generator[Request | Sleep, Reply | None, T]
Conversation: TypeAlias = Generator[Request | Sleep | Found[F], Reply | None, T]
Stream: TypeAlias = Generator[Request | Sleep | Found[F], Reply | None, None]


def answer_to(request: Request) -> Flow[Reply]:
    """Yield `request` and give its reply."""
    reply = yield request
    if reply is None:
        raise TypeError("a shell must answer every Request")
    return reply
