"""One request and what its answer says: what every conversation is made of."""

from typing import TypeVar

from pydantic import ValidationError

from sfumato.client.errors import BadAnswer, error_of
from sfumato.client.messages import Flow, Lost, Request, Response, answer_to
from sfumato.core.frozen import Frozen

__all__ = ["ask", "read"]

V = TypeVar("V", bound=Frozen)


def ask(request: Request, *good: int) -> Flow[Response]:
    """The answer, if its status is one of the good ones.

    Raises:
        SfumatoError: it is another, or no answer came.
    """
    reply = yield from answer_to(request)
    if isinstance(reply, Lost) or reply.status not in good:
        raise error_of(request, reply)
    return reply


def read(kind: type[V], response: Response) -> V:
    """The answer's body as a value. Raises BadAnswer when it is none of this kind."""
    try:
        return kind.model_validate_json(response.body)
    except ValidationError as error:
        raise BadAnswer(f"its answer can't be read ({error.error_count()} fields). Check the URL.") from error
