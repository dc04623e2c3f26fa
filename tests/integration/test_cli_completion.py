"""The completion script of each shell is one that the shell takes, and real bash completes by it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


def script_of(shell: str) -> str:
    asked = dict(os.environ) | {"_SFUMATO_COMPLETE": f"source_{shell}"}  # noqa: TID251 - the child's, handed through
    command = [sys.executable, "-m", "sfumato"]
    return subprocess.run(command, env=asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", CHECKS)
def test_the_script_names_the_command_and_the_shell_takes_it(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(script_of(shell))
    assert "sfumato" in script.read_text()
    assert f"_SFUMATO_COMPLETE=complete_{shell}" in script.read_text()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not on this machine")
    done = subprocess.run([*CHECKS[shell], str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not on this machine")
def test_real_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "sfumato"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sfumato "$@"\n')
    command.chmod(0o755)
    line = (
        f'export PATH="{command.parent}:$PATH"; eval "$(_SFUMATO_COMPLETE=source_bash sfumato)"; '
        'COMP_WORDS=(sfumato jobs p); COMP_CWORD=2; _sfumato_completion sfumato; echo "${COMPREPLY[@]}"; '
        'COMP_WORDS=(sfumato up --po); COMP_CWORD=2; _sfumato_completion sfumato; echo "${COMPREPLY[@]}"; '
        "complete -p sfumato"
    )
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["purge", "--port", "complete -o default -F _sfumato_completion sfumato"]
    assert done.stderr == ""
