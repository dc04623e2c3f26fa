"""A reader of the docs who does what a page says, in its order, and looks whether what it shows is what comes."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.service import Service

__all__ = ["ROOT", "Block", "Reader", "blocks", "commands"]

ROOT: Final = Path(__file__).resolve().parent.parent
RUN_AS_THEY_ARE: Final = ("sfumato", ".venv/bin/sfumato", "python", "curl", "export", "cp", ".")
"""First words of the commands that a reader types as they are."""
FENCE: Final = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS: Final = re.compile(r"\b(?:127\.0\.0\.1|localhost):8000\b")
NAMED: Final = re.compile(r"# (\S+\.py)\n")


class Block(NamedTuple):
    """A fenced block: its language ("" when it has none) and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    return [Block(*found.groups()) for found in FENCE.finditer(page.read_text())]


def commands(text: str) -> list[str]:
    """The commands of a block, without comments; one that goes on in the next line is one."""
    whole = re.sub(r"(\\|\|)\n\s*", lambda end: "| " if end[1] == "|" else "", text)
    bare = (re.sub(r"(?:^|\s+)# .*$", "", line).strip() for line in whole.splitlines())
    return [line for line in bare if line]


class Reader:
    """Works in the service's folder, as in a clone; the service that the page speaks of runs already.

    `stands_for` says what is run in place of a command (None: nothing). What one block sets, variables and the
    environment, holds in the next one.
    """

    def __init__(self, folder: Path, service: Service, stands_for: Mapping[str, str | None]) -> None:
        self.folder = folder
        self._service, self._stands_for = service, stands_for
        self._host = service.url.removeprefix("http://")
        self._seen = ""
        lay_out(folder)

    def follow(self, page: Path) -> None:
        """Do all that the page says, from its top to its end."""
        for block in blocks(page):
            self.do(block)

    def do(self, block: Block) -> None:
        """Run one block, write what it says should be written, or compare it with what was seen last.

        Raises:
            AssertionError: no rule says what to do with it, it failed, or it shows something else than came.
        """
        text = ADDRESS.sub(self._host, block.text)
        match block.language:
            case "sh":
                self._seen = self.type("\n".join(self.typed(each) for each in commands(block.text)))
            case "python" if named := NAMED.match(text):
                (self.folder / named[1]).write_text(text)
            case "python":
                (self.folder / "page.py").write_text(text)
                self._seen = self.type(".venv/bin/python page.py")
            case "toml":
                (self._service.data_dir / "models.toml").write_text(text)
            case "text":
                self._sees(block.text)
            case "json":
                answers = [line for line in self._seen.splitlines() if line.startswith("{")]
                assert answers, f"no JSON came:\n{self._seen}"
                assert alike(json.loads(block.text), json.loads(answers[-1])), f"{block.text}\nCame:\n{answers[-1]}"
            case _:
                raise AssertionError(f"no rule says what to do with a block of {block.language!r}:\n{block.text}")

    def typed(self, command: str) -> str:
        """What is typed for a command of a page."""
        if command in self._stands_for:
            return self._stands_for[command] or ":"
        first = re.split(r"[\s(]", re.sub(r"^(\w+)=\$\(", "", command))[0]
        assert first in RUN_AS_THEY_ARE, f"no rule says how to run: {command}"
        return ADDRESS.sub(self._host, command)

    def type(self, script: str) -> str:
        """Run it by a shell that goes on where the last one was; everything that it wrote."""
        kept = f"set -aeuo pipefail; if [ -f .shell ]; then . ./.shell; fi\n{script}\nexport -p > .shell\n"
        ended = subprocess.run(
            ["bash", "-c", kept],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 0, f"{script}\nended with {ended.returncode}:\n{ended.stdout}"
        return ended.stdout.replace(self._host, "127.0.0.1:8000")

    def _environment(self) -> dict[str, str]:
        """That of a shell where nothing of ours is set, but for where the service is: its port is not always free."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "SFUMATO_URL": self._service.url,
            "SFUMATO_PORT": self._service.url.rpartition(":")[2],
        }

    def _sees(self, text: str) -> None:
        seen = [_spaced(line) for line in self._seen.splitlines()]
        for line in text.splitlines():
            assert any(fnmatchcase(each, f"*{_pattern(_spaced(line))}*") for each in seen), (
                f"{line}\nCame:\n{self._seen}"
            )


def lay_out(folder: Path) -> None:
    """What a clone has and a reader uses, with a virtual environment that is this one."""
    for name in ("images", "src", "examples"):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "activate").write_text(f'PATH="{environment}:$PATH"\n')
    for name, words in {"python": [], "sfumato": ["-m", "sfumato"]}.items():
        (environment / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
        (environment / name).chmod(0o755)


def alike(shown: Any, came: Any) -> bool:
    """Whether what came has the same names and values; … stands for anything."""
    if isinstance(shown, dict):
        return isinstance(came, dict) and shown.keys() == came.keys() and all(alike(shown[k], came[k]) for k in shown)
    if isinstance(shown, str):
        return fnmatchcase(str(came), _pattern(shown))
    return bool(shown == came)


def _pattern(words: str) -> str:
    return re.sub(r"([\[?*])", r"[\1]", words).replace("…", "*")


def _spaced(line: str) -> str:
    return " ".join(line.split())
