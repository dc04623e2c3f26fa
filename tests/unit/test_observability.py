"""The benchmark decorator, log lines and the table of metrics."""

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest

from sfumato.observability import (
    METRICS,
    REPEATED_AFTER_S,
    Seldom,
    begin,
    benchmark,
    bound_log,
    count,
    exposition,
    setup_logging,
    setup_tracing,
    span,
    spanned,
    traceparent,
)


def test_each_call_appends_model_seconds_and_memory(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.txt"

    @benchmark("restyle", file)
    def double(number: int) -> int:
        return number * 2

    @benchmark("other;model", file)
    async def triple(number: int) -> int:
        return number * 3

    assert double(2) == 4
    assert asyncio.run(triple(2)) == 6
    lines = file.read_text().splitlines()
    assert re.fullmatch(r"restyle;\d+\.\d{6};\d+\.\d", lines[0])
    assert lines[1].startswith("other,model;")


def test_without_a_file_nothing_is_wrapped() -> None:
    def plain() -> None: ...

    assert benchmark("m", None)(plain) is plain


def test_a_call_that_raises_is_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.txt"

    @benchmark("m", file)
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert not file.exists()


def test_log_lines_carry_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("worker", "info", "json")
    with bound_log(job="j1"):
        logging.getLogger("x").info("done in %d s", 3)
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["job"], line["role"]) == ("done in 3 s", "j1", "worker")


def _said(text: str, at: float, level: int = logging.WARNING) -> logging.LogRecord:
    record = logging.LogRecord("any", level, "any.py", 1, text, (), None)
    record.created = at
    return record


def test_what_is_repeated_is_logged_now_and_then_with_how_often() -> None:
    seldom = Seldom(logging.LogRecord.getMessage)
    records = [_said("away", 100.0 + tenth / 10) for tenth in range(50)] + [_said("away", 100.0 + REPEATED_AFTER_S)]
    passed = [record for record in records if seldom.filter(record)]
    assert [record.getMessage() for record in passed] == ["away", "away (49 more like it)"]


def test_what_differs_or_is_no_warning_is_logged_each_time() -> None:
    seldom = Seldom(logging.LogRecord.getMessage)
    assert all(seldom.filter(_said(text, 100.0)) for text in ("one", "two", "three"))
    assert all(seldom.filter(_said("made a picture", 100.0, logging.INFO)) for _ in range(3))


def test_only_metrics_of_the_table_can_be_counted() -> None:
    with pytest.raises(KeyError, match="not in METRICS"):
        count("sfumato_surprises_total")


def test_metrics_are_named_by_noun_and_unit_and_never_carry_a_job() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"sfumato_[a-z_]+", metric.name)
        assert not {"job", "job_id", "id"} & set(metric.labels)


def test_counted_metrics_are_shown() -> None:
    count("sfumato_handouts_total", model="shown")
    assert b'sfumato_handouts_total{model="shown"} 1.0' in exposition(None)


def test_a_counter_may_be_shown_before_anything_was_counted() -> None:
    begin("sfumato_dead_letters_total", model="quiet")
    assert b'sfumato_dead_letters_total{model="quiet"} 0.0' in exposition(None)


def test_traces_cost_nothing_and_name_nothing_while_no_endpoint_is_set() -> None:
    setup_tracing("gateway", "")
    with span("accept", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", job="j"):
        assert traceparent() == ""
    spanned("wait", "", 0.0, 1.0)
    assert span("one") is span("two")
