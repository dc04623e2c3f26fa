"""JSON with pictures in it, sent one picture at a time: sixteen at once, each as base64 too, would be much to hold."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from fastapi.responses import JSONResponse, Response, StreamingResponse

from sfumato.core.job import Outcome
from sfumato.gateway.compat.calls import Calls

__all__ = ["base64_of", "with_pictures"]

MEDIA_TYPE: Final = "application/json"


def base64_of(data: bytes) -> str:
    """The bytes as JSON can hold them."""
    return base64.b64encode(data).decode()


async def with_pictures(
    calls: Calls, ends: Sequence[Outcome], body: Mapping[str, Any], name: str, shown: Callable[[str], Any]
) -> Response:
    """`body` with a list `name` behind it: of each picture, in base64, what `shown` makes of it.

    Raises:
        Refusal: the first picture is gone. One that goes while the answer is under way breaks it off.
    """
    first = [shown(base64_of(await calls.picture(end))) for end in ends[:1]]
    if len(ends) <= 1:
        return JSONResponse({**body, name: first})

    async def parts() -> AsyncIterator[str]:
        yield f"{json.dumps(body)[:-1]}{', ' if body else ''}{json.dumps(name)}: [{json.dumps(first.pop())}"
        for end in ends[1:]:
            yield f", {json.dumps(shown(base64_of(await calls.picture(end))))}"
        yield "]}"

    return StreamingResponse(parts(), media_type=MEDIA_TYPE)
