"""The overhead benchmark measures a real service and says so when there is none."""

import json
import sys
from pathlib import Path

import pytest

from sfumato.bench import follow, overhead, protocols

pytestmark = pytest.mark.server


def test_both_ways_to_a_result_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "overhead.json"

    table = overhead.run(file, jobs=8, clients=2)

    rows = json.loads(file.read_text())
    assert table.row_count == 4
    assert {(row["way"], row["clients"], row["jobs"]) for row in rows} == {
        ("Prefer: wait", 1, 8),
        ("Prefer: wait", 2, 8),
        ("access link", 1, 8),
        ("access link", 2, 8),
    }
    assert all(0 < row["p50_s"] <= row["p99_s"] < 5 for row in rows)


def test_each_protocol_is_measured_beside_the_service_s_own_way(tmp_path: Path) -> None:
    file = tmp_path / "protocols.json"

    table = protocols.run(file, jobs=4)

    rows = {row["way"]: row for row in json.loads(file.read_text())}
    assert table.row_count == len(rows) == 5
    assert {way for way, row in rows.items() if row["over_s"] is None} == set(protocols.OWN.values())
    assert all(0 < row["p50_s"] <= row["p99_s"] < 5 for row in rows.values())
    over = rows["OpenAI"]["p50_s"] - rows["own, Prefer: wait, then its link"]["p50_s"]
    assert rows["OpenAI"]["over_s"] == pytest.approx(over, abs=1e-5)


def test_a_service_that_does_not_start_is_told_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/ls")

    with pytest.raises(overhead.ServiceFailed, match=r"ended with status [12](.|\n)*ls:"):
        overhead.run(None)


def test_followers_of_a_gateway_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "follow.json"

    table = follow.run(file, followers=(40,), still_s=0.5)

    (row,) = json.loads(file.read_text())
    assert table.row_count == 1
    assert row["followers"] == 40
    assert 0 < row["before_mib"] < row["with_mib"]
    assert 0 < row["told_p50_s"] <= row["told_p99_s"] < 5
