"""Bodies as they arrive: a picture is checked while it streams in, and kept in memory until it is known to be good.

Nothing here writes anywhere. A body is refused at the first byte that shows it to be too large, of the wrong type or
with too many pixels; what follows is never read. File names say nothing about a picture.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from sfumato.gateway.pictures import MEDIA_TYPES, NotAPicture, PictureHeader, media_type_of, read_header
from sfumato.gateway.problems import Refusal

__all__ = [
    "FileFields",
    "Form",
    "Hold",
    "InFlight",
    "Limits",
    "Received",
    "Receiving",
    "check_header",
    "declared_length",
    "held",
    "media_type",
    "read_body",
    "read_form",
    "read_picture",
    "too_large",
]

FORM_OVERHEAD_BYTES: Final = 256 * 1024
JSON_OVERHEAD_BYTES: Final = 64 * 1024
FIELD_BYTES: Final = 64 * 1024
FIELDS: Final = 32
LEAST_BYTES_PER_S: Final = 8 * 1024
FIRST_LOOK_BYTES: Final = 4 * 1024
ALIASES: Final = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
SILENT: Final = ("", "application/octet-stream", "binary/octet-stream")
"""Declared types that claim nothing."""
SAID_LATE: Final = ("image/webp",)
"""Types that may say their orientation behind their pixels, so that the whole is looked at once more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may measure, and how far a body may fall behind the least rate."""

    max_bytes: int
    max_pixels: int
    stall_s: float = 30.0

    @property
    def max_json_bytes(self) -> int:
        """What a JSON body may measure that has a picture in base64."""
        return self.max_bytes * 4 // 3 + JSON_OVERHEAD_BYTES


class InFlight:
    """The bytes of bodies held at once, within one budget. What was only announced takes no room from others."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextmanager
    def holding(self, announced_bytes: int) -> Iterator["Hold"]:
        """Count what this task reads of a body as held while inside.

        Raises:
            Refusal: overloaded; what is announced has no room beside what others hold now.
        """
        hold = Hold(self)
        hold.check(announced_bytes)
        token = _hold.set(hold)
        try:
            yield hold
        finally:
            _hold.reset(token)
            self.held_bytes -= hold.size_bytes


class Hold:
    """One body's part of the budget; it grows as bytes come."""

    def __init__(self, budget: InFlight) -> None:
        self._budget = budget
        self.size_bytes = 0

    def check(self, more_bytes: int) -> None:
        """Raises Refusal (overloaded) when there is no room for more; a body all alone always has room."""
        held_bytes = self._budget.held_bytes
        if held_bytes > self.size_bytes and held_bytes + more_bytes > self._budget.limit_bytes:
            raise Refusal("overloaded", "Too many pictures are arriving at once; send it again.", retry_after_s=1)

    def grow(self, more_bytes: int) -> None:
        """Count bytes that came; raises Refusal (overloaded)."""
        self.check(more_bytes)
        self.size_bytes += more_bytes
        self._budget.held_bytes += more_bytes


_hold: Final[ContextVar[Hold | None]] = ContextVar("hold", default=None)
"""The hold that the running task reads into."""


@dataclass(frozen=True, slots=True)
class Received:
    """A whole picture whose header is good; `sha256` is the hex digest of `data`."""

    data: bytes
    sha256: str
    header: PictureHeader


class Receiving:
    """One picture as its bytes come: `feed` refuses as soon as that can be known, `finish` gives the whole."""

    def __init__(self, limits: Limits, declared: str = "") -> None:
        self._limits = limits
        self._declared = ALIASES.get(declared.lower(), declared.lower())
        if self._declared not in (*SILENT, *MEDIA_TYPES):
            raise Refusal(
                "unsupported-picture", f"image is declared as {declared[:80]!r}; send one of {', '.join(MEDIA_TYPES)}."
            )
        self._data: bytes | bytearray = b""
        self._size_bytes = 0
        self._digest = hashlib.sha256()
        self._next_look_bytes = FIRST_LOOK_BYTES
        self._header: PictureHeader | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; raises Refusal."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self._limits.max_bytes:
            raise too_large(self._limits.max_bytes)
        if not self._data:
            self._data = chunk
        else:
            # One buffer that grows, not a list to be joined: many that end at once would all be held twice.
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += chunk
        self._digest.update(chunk)
        if self._next_look_bytes and self._size_bytes >= self._next_look_bytes:
            # A header may be long (profiles, thumbnails): look again each time as much again has come.
            self._header = check_header(bytes(self._data), self._declared, self._limits.max_pixels)
            self._next_look_bytes = 0 if self._header else 4 * self._size_bytes

    def finish(self) -> Received:
        """The whole picture; raises Refusal when it is empty or its header never became whole."""
        if not self._size_bytes:
            raise Refusal("missing-image", "image is empty; send a PNG, JPEG or WebP picture.")
        data, header = bytes(self._data), self._header
        self._data = b""
        if header is None or header.media_type in SAID_LATE:
            header = check_header(data, self._declared, self._limits.max_pixels)
        if header is None:
            raise Refusal("unsupported-picture", "image ends within its header; it was cut off or is no picture.")
        return Received(data, self._digest.hexdigest(), header)


def held(more_bytes: int) -> None:
    """Count bytes that came from elsewhere into what the running task holds; raises Refusal (overloaded)."""
    if (hold := _hold.get()) is not None:
        hold.grow(more_bytes)


def check_header(head: bytes, declared: str, max_pixels: int) -> PictureHeader | None:
    """The header of the picture that begins with `head`, None when more bytes are needed; raises Refusal."""
    try:
        header = read_header(head)
    except NotAPicture as error:
        raise Refusal("unsupported-picture", f"image can't be read: {error}") from error
    actual = media_type_of(head)
    if declared not in (*SILENT, actual):
        raise Refusal("mislabeled-picture", f"image is declared as {declared} and begins like {actual}.")
    if header is None:
        return None
    if header.pixels > max_pixels:
        size = f"{header.width} x {header.height}"
        raise Refusal("too-many-pixels", f"image has {size} pixels; at most {max_pixels} pixels are taken. Shrink it.")
    if header.moves:
        raise Refusal("animated-picture", "image is animated; send one of its frames as a still picture.")
    return header


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a body over the limit."""
    return Refusal("body-too-large", f"At most {max_bytes} bytes are taken; shrink the picture.", max_bytes=max_bytes)


@dataclass(frozen=True, slots=True)
class FileFields:
    """The fields of a form that pictures come in, the first of them the one to name; `most` in all.

    `unwelcome`: other fields that files are sent in, and what to say of them. `claims_count`: a picture that is
    declared to be of another type than its bytes is refused; else any image/… is taken for what its bytes are.
    """

    names: tuple[str, ...] = ("image",)
    most: int = 1
    unwelcome: Mapping[str, str] = field(default_factory=dict)
    claims_count: bool = True


ONE_IMAGE: Final = FileFields()


@dataclass(slots=True)
class Form:
    """A multipart form: its text fields, and its pictures in their order, with what their files are called there."""

    fields: dict[str, str] = field(default_factory=dict)
    pictures: list[Received] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def picture(self) -> Received | None:
        """The first picture, if there is one."""
        return self.pictures[0] if self.pictures else None


async def read_picture(chunks: AsyncIterator[bytes], declared: str, limits: Limits) -> Received:
    """A body that is the picture itself; raises Refusal."""
    receiving = Receiving(limits, declared)
    await _read(chunks, limits.stall_s, receiving.feed)
    return receiving.finish()


async def read_body(chunks: AsyncIterator[bytes], max_bytes: int, stall_s: float) -> bytes:
    """A small body whole; raises Refusal when it is larger than `max_bytes`."""
    body: list[bytes] = []
    size_bytes = 0

    def take(chunk: bytes) -> None:
        nonlocal size_bytes
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise too_large(max_bytes)
        body.append(chunk)

    await _read(chunks, stall_s, take)
    return body[0] if len(body) == 1 else b"".join(body)


async def read_form(
    chunks: AsyncIterator[bytes], content_type: str, limits: Limits, files: FileFields = ONE_IMAGE
) -> Form:
    """A multipart/form-data body (RFC 7578), whose pictures have `limits.max_bytes` together; raises Refusal."""
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    reader = _FormReader(limits, files)
    try:
        with PushMultipartParser(boundary, max_segment_count=FIELDS, max_segment_size=limits.max_bytes) as parser:

            def take(chunk: bytes) -> bool:
                for event in parser.parse(chunk):
                    reader.take(event)
                return bool(parser.closed)

            await _read(chunks, limits.stall_s, take)
    except ParserLimitReached as error:
        raise Refusal("body-too-large", f"The form is too large: {error}.") from error
    except MultipartError as error:
        said = f"{error}. Send multipart/form-data with the picture in field {files.names[0]}."
        raise Refusal("bad-multipart", said) from error
    return reader.form


class _FormReader:
    def __init__(self, limits: Limits, files: FileFields) -> None:
        self.form = Form()
        self._limits, self._files = limits, files
        self._left_bytes = limits.max_bytes
        self._name = ""
        self._text = bytearray()
        self._picture: Receiving | None = None

    def take(self, event: MultipartSegment | bytes | None) -> None:
        if event is None:
            self._end()
        elif isinstance(event, MultipartSegment):
            self._begin(event)
        elif self._picture is not None:
            self._left_bytes -= len(event)
            if self._left_bytes < 0:
                raise too_large(self._limits.max_bytes)
            self._picture.feed(event)
        else:
            self._text += event
            if len(self._text) > FIELD_BYTES:
                raise Refusal("invalid-parameters", f"{self._name} is longer than {FIELD_BYTES} bytes.")

    def _begin(self, segment: MultipartSegment) -> None:
        self._name = segment.name or ""
        self._text.clear()
        files, shown = self._files, self._name[:80]
        if self._name in files.unwelcome:
            raise Refusal("unknown-parameter", files.unwelcome[self._name], param=self._name)
        if self._name in self.form.fields:
            raise Refusal("invalid-parameters", f"{shown} is in the form twice; send it once.")
        if self._name in files.names:
            if len(self.form.pictures) == files.most:
                many = "twice; send it once" if files.most == 1 else f"over {files.most} times; send fewer"
                raise Refusal("invalid-parameters", f"{files.names[0]} is in the form {many}.")
            declared = segment.content_type or ""
            claims = files.claims_count or not declared.lower().startswith("image/")
            self._picture = Receiving(self._limits, declared if claims else "")
            self.form.names.append(segment.filename or "")
        elif segment.filename is not None:
            called = f"the picture's field is called {files.names[0]}"
            raise Refusal("unknown-parameter", f"{shown} came as a file; {called}.")

    def _end(self) -> None:
        if self._picture is not None:
            self.form.pictures.append(self._picture.finish())
            self._picture = None
            return
        try:
            self.form.fields[self._name] = self._text.decode()
        except UnicodeDecodeError as error:
            raise Refusal("invalid-parameters", f"{self._name[:80]} is not UTF-8 text.") from error


async def _read(chunks: AsyncIterator[bytes], stall_s: float, take: Callable[[bytes], bool | None]) -> None:
    """Give each chunk to `take`, counted into the task's hold, until it says that it has all.

    Raises Refusal: request-timeout, and what `take` raises.

    Each byte buys time at the least rate, and no more than `stall_s` of it can be saved up (a token bucket): neither a
    body that trickles nor one that stops after a quick start keeps its place for long.
    """
    now, hold = asyncio.get_running_loop().time, _hold.get()
    deadline = armed = now() + stall_s
    try:
        async with asyncio.timeout_at(deadline) as timer:
            async for chunk in chunks:
                if not chunk:
                    continue
                deadline = min(deadline + len(chunk) / LEAST_BYTES_PER_S, now() + stall_s)
                # Setting a timer costs more than most chunks do, so it may be late by a hundredth.
                if deadline - armed > stall_s / 100:
                    armed = deadline
                    timer.reschedule(armed)
                if hold is not None:
                    hold.grow(len(chunk))
                if take(chunk):
                    break
    except TimeoutError as error:
        slow = f"The body fell {stall_s:g} s behind {LEAST_BYTES_PER_S} bytes a second; send it again, faster."
        raise Refusal("request-timeout", slow) from error


def declared_length(header: str | None, max_bytes: int, overhead_bytes: int = 0) -> int:
    """How many bytes to count for a body: its Content-Length, or the most it may have when it does not say.

    Raises:
        Refusal: it says more than `max_bytes` + `overhead_bytes`, so nothing of it needs to be read.
    """
    if header is None or not re.fullmatch(r"\d{1,18}", header):
        return max_bytes
    if int(header) > max_bytes + overhead_bytes:
        raise too_large(max_bytes)
    return int(header)


def media_type(request: Request) -> str:
    """The media type of a body, "" where the request names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
