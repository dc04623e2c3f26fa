"""The benchmark file is shared by all workers of a host."""

import re
import subprocess
import sys
from pathlib import Path

WRITER = """
import sys
from pathlib import Path
from sfumato.observability import benchmark

@benchmark("model " + sys.argv[2] * 50, Path(sys.argv[1]))
def nothing():
    pass

for _ in range(300):
    nothing()
"""


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in "abcd"]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0, 0]
    lines = file.read_text().splitlines()
    assert len(lines) == 1200
    assert all(re.fullmatch(r"model (a{50}|b{50}|c{50}|d{50});\d+\.\d{6};\d+\.\d", line) for line in lines)
