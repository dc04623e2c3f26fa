"""What a measurement found is in its file as a whole, whatever ends the process that writes it."""

import json
from pathlib import Path

import pytest

from sfumato.bench.findings import Findings


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found.json"
    found = Findings(file)
    found.keep()
    before = file.read_text()
    plain = Path.write_text

    def half(path: Path, text: str) -> int:
        plain(path, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        found.keep()
    assert file.read_text() == before
    assert json.loads(before)["rows"] == []
