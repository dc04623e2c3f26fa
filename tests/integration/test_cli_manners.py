"""The command as a shell runs it: closed and full streams, pipes, Ctrl-C, other encodings. Never a trace."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "sfumato"]
NOBODY = "http://127.0.0.1:9"
PRINTING = ["--version", "--help", "doctor --port 0", "keys list", "db status", "jobs --help"]


def shell(line: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A line for bash in which `sfumato` is the command."""
    function = f'sfumato() {{ {sys.executable} -m sfumato "$@"; }}\n{line}'
    # Unbuffered, which some environments ask for, nothing is left to be written at the end.
    ours = dict(os.environ) | {"PYTHONUNBUFFERED": ""} | environment  # noqa: TID251 - the child's, handed through
    return subprocess.run(
        ["bash", "-c", function], cwd=folder, env=ours, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("verb", PRINTING)
def test_closed_standard_output_is_no_fault_of_the_command(verb: str, tmp_path: Path) -> None:
    done = shell(f"sfumato {verb} >&-", tmp_path)
    assert done.returncode in (0, 1)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", [*PRINTING, f"jobs list --url {NOBODY}"])
def test_closed_standard_error_is_no_fault_of_the_command(verb: str, tmp_path: Path) -> None:
    closed, opened = (shell(f"sfumato {verb} {stderr}", tmp_path) for stderr in ("2>&-", ""))
    assert (closed.returncode, closed.stdout) == (opened.returncode, opened.stdout)


@pytest.mark.parametrize("verb", PRINTING)
def test_a_pipe_that_nobody_reads_is_left_without_a_word(verb: str, tmp_path: Path) -> None:
    done = shell(f"(sfumato {verb}; echo status $? >&2) | true", tmp_path)
    assert done.stderr == "status 1\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("verb", PRINTING)
def test_a_full_disk_is_told_in_one_line(verb: str, tmp_path: Path) -> None:
    done = shell(f"sfumato {verb} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "sfumato: No space left on device\n"


def test_a_terminal_without_unicode_gets_what_it_can_show(tmp_path: Path) -> None:
    done = shell("sfumato doctor --port 0", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "data folder" in done.stdout


@pytest.mark.parametrize(
    ("words", "module"),
    [
        ("--help", "sfumato.cli"),
        ("--help", "typer"),
        (f"jobs list --url {NOBODY}", "httpx"),
        ("doctor --port 0", "sfumato.config"),
    ],
)
def test_an_interrupt_while_modules_are_loaded_leaves_no_trace(words: str, module: str, tmp_path: Path) -> None:
    # A finder that stands first and sends Ctrl-C, once, as soon as this module is looked for.
    code = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r} and self in sys.meta_path:\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from sfumato.__main__ import command\n"
        "sys.exit(command())\n"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 130


def interrupted(waiting: "subprocess.Popen[str]") -> str:
    """What it says on standard error once Ctrl-C has ended it.

    A signal that comes in the instant before Python waits for the answer is noticed with the next one.
    """
    for _ in range(5):
        waiting.send_signal(signal.SIGINT)
        try:
            return waiting.communicate(timeout=4)[1]
        except subprocess.TimeoutExpired:
            continue
    waiting.kill()
    raise AssertionError("Ctrl-C did not end it")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["jobs", "list"], ""),
        (
            ["get", "0190b0f0-0000-7000-8000-000000000000"],
            " Jobs that were accepted go on; see them with: sfumato jobs",
        ),
    ],
)
def test_an_interrupt_ends_with_130_and_says_what_holds(words: list[str], hint: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = subprocess.Popen([*COMMAND, *words, "--url", url], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0] as asked:
            assert asked.recv(1)
            said = interrupted(waiting)
    assert waiting.returncode == 130
    assert said == f"sfumato: interrupted.{hint}\n"


ID = "0190b0f0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("db status", "database data/rows.sqlite can't be opened: file is not a database."),
        ("db upgrade", "database data/rows.sqlite can't be opened: file is not a database."),
        ("keys list", "database data/rows.sqlite can't be opened: file is not a database."),
        (f"trace {ID}", "database data/rows.sqlite can't be opened: file is not a database."),
        ("jobs purge --older-than 1d", "database data/rows.sqlite can't be opened: file is not a database."),
        ("up --port 0", "rows.sqlite can't be opened: file is not a database."),
        ("up --port 0 --models broken.toml", "broken.toml: can't be read"),
        ("models add ours data --models broken.toml", "is no UTF-8 text"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(verb: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.sqlite").write_text("no database")
    (tmp_path / "broken.toml").write_bytes(b"\x00\xff")
    done = shell(f"sfumato {verb}", tmp_path, SFUMATO_DATA_DIR="data")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["postgresql://a:secret@[::1/x", "postgresql://a:secret@h:port/x"])
def test_an_address_that_can_not_be_one_is_told_without_its_password(url: str, tmp_path: Path) -> None:
    done = shell("sfumato db status", tmp_path, SFUMATO_DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr == (
        "sfumato: SFUMATO_DATABASE_URL can't be read; it looks like postgresql://user:password@host:5432/sfumato.\n"
    )


@pytest.mark.parametrize("verb", [f"trace {ID}", "jobs purge --older-than 1d"])
@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_a_verb_that_looks_makes_no_files_and_says_where_it_looked(verb: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = shell(f"sfumato {verb} --data-dir {folder}", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"sfumato: no service ever ran on the folder {tmp_path / folder}; name the service's own with --data-dir.\n"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_looking_for_keys_makes_no_database(tmp_path: Path) -> None:
    assert shell("sfumato keys list", tmp_path).stdout == "no keys\n"
    assert "no key in sfumato-data has the prefix" in shell("sfumato keys revoke abcdefgh", tmp_path).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_nothing_knows_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    assert shell("sfumato db upgrade --data-dir data", tmp_path).returncode == 0
    done = shell(f"sfumato trace {ID} --data-dir data", tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(f"Looked in {tmp_path / 'data'}.\n")
