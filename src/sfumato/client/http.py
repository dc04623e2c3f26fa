"""Between the conversations' messages and httpx, for both shells. Nothing is sent here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import httpx

from sfumato.client.messages import Image, Lost, Request, Response
from sfumato.core.errors import InvalidRequest

__all__ = [
    "DEFAULT_URL",
    "ImageSource",
    "Readable",
    "arguments",
    "authorization",
    "base_url",
    "image_of",
    "lost",
    "response",
]

DEFAULT_URL: Final = "http://127.0.0.1:8000"


class Readable(Protocol):
    """A file opened in binary mode."""

    def read(self) -> bytes: ...


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Readable
"""A picture: a file's path, its bytes, or the file opened in binary mode."""


def image_of(source: ImageSource) -> Image:
    """The whole picture in memory, so that a retry can send it again.

    Raises:
        InvalidRequest: there is no such file, it can't be read, or `source` is something else.
    """
    if isinstance(source, bytes):
        return Image("image", source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            return Image(path.name, path.read_bytes())
        except OSError as error:
            raise InvalidRequest(f"{path} can't be read: {error.strerror}.") from error
    data = source.read() if hasattr(source, "read") else None
    if not isinstance(data, bytes):
        wanted = "give a path, the picture's bytes, or a file opened in binary mode"
        raise InvalidRequest(f"image is of type {type(source).__name__}; {wanted}.")
    return Image(Path(str(getattr(source, "name", "image"))).name, data)


def base_url(url: str) -> httpx.URL:
    """The service's address, checked before anything is sent.

    Raises:
        InvalidRequest: it is no http address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"url {url!r} is no address ({error}); give one like {DEFAULT_URL}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest(f"url {url!r} must begin with http:// or https://, like {DEFAULT_URL}.")
    return parsed


def authorization(api_key: str | None) -> Mapping[str, str]:
    """The header that shows the key.

    Raises:
        InvalidRequest: it can't be a key. What was given is not shown.
    """
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise InvalidRequest("api_key is no key: it must be one word, as `sfumato keys create` printed it.")
    return {"Authorization": f"Bearer {api_key}"}


def arguments(request: Request, timeout_s: float, base: httpx.URL, shown: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of httpx's `request` for this request; the key is `shown` to the service itself alone."""
    asked = base.join(request.url)
    ours = (asked.scheme, asked.host, asked.port) == (base.scheme, base.host, base.port)
    # No claim about the type: a name's ending may lie, and the service looks at the bytes anyway.
    image = request.image
    files = {"image": (image.name, image.data, "application/octet-stream")} if image else None
    about_body = {"Content-Type": "application/json"} if request.content else {}
    return {
        "method": request.method,
        "url": request.url,
        "params": dict(request.query) or None,
        "headers": about_body | dict(request.headers) | (dict(shown) if ours else {}),
        "files": files,
        "content": request.content or None,
        "timeout": httpx.Timeout(timeout_s, read=timeout_s + request.server_wait_s),
    }


def response(answer: httpx.Response, sent_at: float, at: float) -> Response:
    """httpx's answer, read whole, as a conversation takes it; times are the shell's (seconds)."""
    headers = {name.lower(): text for name, text in answer.headers.items()}
    return Response(answer.status_code, headers, answer.content, at, took_s=at - sent_at)


def lost(request: Request, base: httpx.URL, error: httpx.RequestError) -> Lost:
    """What a conversation is told when no answer came."""
    where = base.join(request.url)
    return Lost(f"no answer from {where.scheme}://{where.netloc.decode()} ({error or type(error).__name__}).")
