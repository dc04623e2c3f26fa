"""Bodies are refused at the first byte that shows they are no good, and nothing behind it is read."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import Form, InFlight, Limits, Receiving, declared_length, read_form, read_picture
from tests.sample_pictures import animated, giant_png, picture

LIMITS = Limits(max_bytes=100_000, max_pixels=10_000)
TYPE = "multipart/form-data; boundary=border"
PNG = picture("PNG")


def _part(name: str, data: bytes, *, filename: str = "", kind: str = "") -> bytes:
    about = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    about += f"\r\nContent-Type: {kind}" if kind else ""
    return f"--border\r\n{about}\r\n\r\n".encode() + data + b"\r\n"


def _form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--border--\r\n"


class Body:
    """A body in chunks that counts how many were asked for."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks, self.read = chunks, 0

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += 1
            yield chunk


def _read(body: bytes, size: int = 50, limits: Limits = LIMITS) -> Form:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return asyncio.run(read_form(Body(chunks).stream(), TYPE, limits))


def _refused(body: bytes, size: int = 50) -> Refusal:
    with pytest.raises(Refusal) as refused:
        _read(body, size)
    return refused.value


@pytest.mark.parametrize("size", [1, 7, 50, 100_000])
def test_form_comes_out_however_it_is_cut(size: int) -> None:
    form = _read(_form(_part("prompt", "ein Mädchen".encode()), _part("image", PNG, filename="a.png")), size)
    assert form.fields == {"prompt": "ein Mädchen"}
    assert form.picture is not None
    assert form.picture.data == PNG
    assert (form.picture.header.width, form.picture.header.height) == (64, 48)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs.png", "a\\..\\b.png", "C:nul.png", "\u202egnp.exe"])
def test_file_names_are_not_looked_at(name: str) -> None:
    assert _read(_form(_part("image", PNG, filename=name))).picture is not None


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "missing-image"),
        (b"GIF89a" + bytes(5_000), "unsupported-picture"),
        (b"hello", "unsupported-picture"),
        (PNG[:30], "unsupported-picture"),
        (giant_png(), "too-many-pixels"),
        (animated("PNG"), "animated-picture"),
        (animated("WEBP"), "animated-picture"),
        (picture("PNG", (200, 51)), "too-many-pixels"),
    ],
    ids=["empty", "gif", "text", "half a header", "giant", "moving png", "moving webp", "too many pixels"],
)
def test_bad_pictures_are_refused(data: bytes, slug: str) -> None:
    assert _refused(_form(_part("image", data, filename="x"))).case.slug == slug


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "", "IMAGE/PNG"])
def test_declared_type_that_agrees_or_is_silent_is_taken(kind: str) -> None:
    assert _read(_form(_part("image", PNG, kind=kind))).picture is not None


@pytest.mark.parametrize(("kind", "slug"), [("image/jpeg", "mislabeled-picture"), ("text/html", "unsupported-picture")])
def test_declared_type_that_lies_is_refused(kind: str, slug: str) -> None:
    assert _refused(_form(_part("image", PNG, kind=kind))).case.slug == slug


@pytest.mark.parametrize(
    "body",
    [
        _form(_part("image", PNG))[:-12],
        _part("image", PNG)[: len(PNG) // 2],
        b"",
        b"no form",
        b"--border\r\nno header\r\n\r\nx\r\n--border--\r\n",
    ],
    ids=["no last border", "cut in the picture", "nothing", "no form", "no header"],
)
def test_broken_forms_are_refused(body: bytes) -> None:
    assert _refused(body).case.slug == "bad-multipart"


def test_a_field_sent_twice_is_refused() -> None:
    assert _refused(_form(_part("image", PNG), _part("image", PNG))).case.slug == "invalid-parameters"
    assert _refused(_form(_part("seed", b"1"), _part("seed", b"2"))).case.slug == "invalid-parameters"


def test_a_field_without_end_is_not_kept() -> None:
    assert _refused(_form(_part("prompt", b"x" * 1_000_000)), 10_000).case.slug in ("invalid-parameters",)


def test_a_field_that_is_no_text_is_refused() -> None:
    assert _refused(_form(_part("prompt", b"\xff\xfe"))).case.slug == "invalid-parameters"


def test_very_many_fields_are_refused() -> None:
    assert _refused(_form(*(_part(f"f{n}", b"") for n in range(50)))).case.slug == "body-too-large"


@pytest.mark.parametrize(
    ("data", "most"),
    [(PNG[:-12] + bytes(1_000_000), 101), (giant_png() + bytes(1_000_000), 6), (b"GIF89a" + bytes(1_000_000), 6)],
    ids=["too long", "too many pixels", "no picture"],
)
def test_what_follows_the_bad_byte_is_not_read(data: bytes, most: int) -> None:
    body = Body([data[at : at + 1_000] for at in range(0, len(data), 1_000)])
    with pytest.raises(Refusal):
        asyncio.run(read_picture(body.stream(), "", LIMITS))
    assert body.read <= most


def test_a_body_that_stands_still_is_given_up() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.Event().wait()

    with pytest.raises(Refusal) as refused:
        asyncio.run(read_picture(stalled(), "", Limits(100_000, 10_000, stall_s=0.01)))
    assert refused.value.case.slug == "request-timeout"


def test_a_body_that_trickles_is_given_up() -> None:
    async def trickling() -> AsyncIterator[bytes]:
        for at in range(len(PNG)):
            await asyncio.sleep(0.01)
            yield PNG[at : at + 1]

    with pytest.raises(Refusal) as refused:
        asyncio.run(read_picture(trickling(), "", Limits(100_000, 10_000, stall_s=0.2)))
    assert refused.value.case.slug == "request-timeout"


def test_a_picture_of_exactly_the_limit_is_taken() -> None:
    receiving = Receiving(Limits(len(PNG), 64 * 48))
    receiving.feed(PNG)
    assert receiving.finish().data == PNG


def test_length_is_judged_before_the_body() -> None:
    assert declared_length("500", 1_000) == 500
    assert declared_length(None, 1_000) == 1_000
    assert declared_length("-5", 1_000) == 1_000
    assert declared_length("1100", 1_000, overhead_bytes=100) == 1_100
    with pytest.raises(Refusal, match="1000 bytes"):
        declared_length("1101", 1_000, overhead_bytes=100)


def test_bodies_held_at_once_stay_within_their_budget() -> None:
    in_flight = InFlight(1_000)
    with in_flight.holding(600) as first:
        first.grow(600)
        with pytest.raises(Refusal) as refused, in_flight.holding(600):
            pass
        with in_flight.holding(400) as second:
            second.grow(400)
            assert in_flight.held_bytes == 1_000
            with pytest.raises(Refusal, match="Too many"):
                first.grow(1)
    assert refused.value.case.slug == "overloaded"
    assert in_flight.held_bytes == 0


def test_one_body_larger_than_the_budget_is_let_through_alone() -> None:
    with InFlight(100).holding(600) as alone:
        alone.grow(600)


def test_what_was_announced_and_did_not_come_takes_no_room() -> None:
    in_flight = InFlight(1_000)

    async def read() -> None:
        with in_flight.holding(1_000), in_flight.holding(1_000):
            await read_picture(Body([PNG[:60], PNG[60:]]).stream(), "", LIMITS)
            assert in_flight.held_bytes == len(PNG)

    asyncio.run(read())
    assert in_flight.held_bytes == 0
