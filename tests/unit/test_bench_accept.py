"""The pure parts of the benchmarks of accepting and handing out: what requests are sent, how figures are made."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from rich.console import Console

from sfumato.bench import accept, machine
from sfumato.bench.accept import Row, Slow
from sfumato.bench.load import Load, _read_head, _Turns, form, post
from sfumato.cli import main
from sfumato.gateway.uploads import Limits, read_form

ROW = Row("50 KB multipart", "answers at once", "usual", 700.0, 1.2, 350.0, 5.0, 20.0)


def test_quantiles_are_of_the_latencies_in_order() -> None:
    load = Load(tuple(second / 100 for second in range(100, 0, -1)), {202: 100}, 4.0)
    assert load.per_s == 25
    assert [load.quantile_s(share) for share in (0.01, 0.5, 0.99, 1.0)] == [0.01, 0.5, 0.99, 1.0]


def test_the_form_is_one_that_the_gateway_reads() -> None:
    picture = accept._picture(2_000)
    head, _, body = form("/x", picture, "image/jpeg").partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    read = asyncio.run(read_form(chunks(), fields["Content-Type"], Limits(10_000_000, 10_000_000)))
    assert int(fields["Content-Length"]) == len(body)
    assert read.picture is not None
    assert read.picture.data == picture


def test_a_post_says_how_long_it_is() -> None:
    assert post("/x", "a/b", b"four") == (
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nfour"
    )


@pytest.mark.parametrize(
    ("head", "read"),
    [
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 17\r\nx: y", (202, 17)),
        (b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length:3", (503, 3)),
        (b"HTTP/1.1 204 No Content", (204, 0)),
    ],
)
def test_an_answers_head_is_read(head: bytes, read: tuple[int, int]) -> None:
    assert _read_head(head) == read


def test_turns_at_a_rate_are_evenly_due_and_end() -> None:
    async def due() -> list[float | None]:
        turns = _Turns(0.0, float("inf"), per_s=4.0)
        ended = _Turns(0.0, 0.0, per_s=None)
        return [await turns.next(), await turns.next(), await turns.next(), await ended.next()]

    assert asyncio.run(due()) == [0.0, 0.25, 0.5, None]


def test_rounds_are_joined_figure_by_figure() -> None:
    rows = [ROW, replace(ROW, per_s=100.0, cpu_ms=9.0), replace(ROW, per_s=800.0, cpu_ms=1.1, p99_ms=99.0)]
    assert accept._median(rows) == replace(ROW, per_s=700.0, cpu_ms=1.2)


def test_the_table_says_how_many_times_the_cpu() -> None:
    rows = [ROW, replace(ROW, gateway="sfumato", cpu_ms=0.3), replace(ROW, what="JSON", gateway="sfumato", cpu_ms=0.2)]
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(accept._table(rows, Slow(1_000, 894, 106, 98.0, 400.0, 402.0)))
    text = console.export_text()
    assert "answers at once: the usual gateway takes 4.0 times the CPU." in text
    assert "894 accepted, 106 told to come back (503)" in text
    assert "98 MiB before, 400 after, 402 after as many again" in text


def test_a_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name in ("boto3", "confluent_kafka") else object())
    assert main(["bench", "accept"]) == 1
    assert "needs boto3: pip install 'sfumato[bench]'" in capsys.readouterr().err
    assert main(["bench", "dispatch"]) == 1
    assert main(["bench", "overhead", "--cluster"]) == 1
    assert capsys.readouterr().err.count("needs confluent_kafka: pip install 'sfumato[cluster]'") == 2


def test_a_wrong_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "accept", "--connections", "3"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    with machine.on_cores(machine.cores()[0]):
        assert len(os.sched_getaffinity(0)) == (1 if len(before) > 1 else len(before))
    assert os.sched_getaffinity(0) == before


def test_a_process_is_measured() -> None:
    before_s = machine.cpu_s(os.getpid())
    while machine.cpu_s(os.getpid()) == before_s:
        sum(range(100_000))
    assert machine.peak_mib(os.getpid()) > 10
