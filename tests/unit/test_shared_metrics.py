"""The folder in which processes share their metrics stays small, however many of them come and go."""

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from sfumato.observability import exposition, forget_process


def leave_behind(folder: Path, pid: int, outcomes: float, running: float) -> None:
    """What a process that ended has counted."""
    for file, kind, value in (
        (f"counter_{pid}.db", "outcomes_total", outcomes),
        (f"gauge_livesum_{pid}.db", "running", running),
    ):
        values = MmapedDict(str(folder / file))  # type: ignore[no-untyped-call]
        name = f"sfumato_{kind}"
        key = mmap_key(name, name, ["model"], ["restyle"], "Of a test.")
        values.write_value(key, value, 1.0)  # type: ignore[no-untyped-call]
        values.close()  # type: ignore[no-untyped-call]


def test_counts_of_ended_processes_stay_and_their_files_and_gauges_go(tmp_path: Path) -> None:
    for pid in range(1_000, 1_200):
        leave_behind(tmp_path, pid, outcomes=2, running=1)
        forget_process(pid, tmp_path)
    leave_behind(tmp_path, 9_999, outcomes=5, running=3)

    shown = exposition(tmp_path).decode()

    assert 'sfumato_outcomes_total{model="restyle"} 405.0' in shown
    assert 'sfumato_running{model="restyle"} 3.0' in shown
    assert sorted(file.name for file in tmp_path.glob("*.db")) == [
        "counter_9999.db",
        "counter_ended.db",
        "gauge_livesum_9999.db",
    ]


def test_process_that_counted_nothing_leaves_nothing(tmp_path: Path) -> None:
    forget_process(1_234, tmp_path)
    forget_process(1_234, tmp_path / "gone")
    assert list(tmp_path.glob("*.db")) == []
