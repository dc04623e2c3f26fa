"""`sfumato keys`: made once, shown once, listed without secrets, revoked; on SQLite and PostgreSQL."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.config import load_settings
from sfumato.core.job import Priority
from sfumato.core.keys import ApiKey, Quota, Scope
from sfumato.wiring import open_keys
from tests.postgres import PostgresServer


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)], autouse=True)
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name an empty database of one kind."""
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path))
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv("SFUMATO_DATABASE_URL", server.fresh())


def kept() -> dict[str, ApiKey]:
    async def run() -> dict[str, ApiKey]:
        async with open_keys(load_settings()) as store:
            return dict(await store.keys())

    return asyncio.run(run())


def made(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["keys", "create", *words]) == 0
    written = capsys.readouterr()
    assert "shown once" in written.err
    text = written.out.rstrip("\n")
    assert text not in written.err
    return text


def test_a_key_is_made_with_all_that_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--rate", "2.5", "--in-flight", "7", "--per-day", "5000000000000", "--max-priority", "low"]
    text = made(capsys, "alice", "--scope", "read, admin", "--expires", "90d", "--weight", "2.5", *limits)

    (key,) = kept().values()
    assert key.matches(text)
    assert (key.owner, key.scopes, key.max_priority) == ("alice", frozenset((Scope.READ, Scope.ADMIN)), Priority.LOW)
    assert (key.quota, key.weight) == (Quota(2.5, 7, 5 * 10**12), 2.5)
    assert key.expires_at is not None
    assert abs(key.expires_at - time.time() - 90 * 86_400) < 60


def test_a_key_is_by_default_for_submit_and_read_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "alice")
    (key,) = kept().values()
    assert (key.scopes, key.quota, key.expires_at) == (frozenset((Scope.READ, Scope.SUBMIT)), Quota(), None)


def test_keys_are_listed_by_their_prefixes_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "no keys\n"
    texts = [made(capsys, owner, "--rate", "3") for owner in ("alice", "bob")]

    assert main(["keys", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["keys", "list", "--owner", "bob"]) == 0

    assert [re.split(" +", line)[:4] for line in lines] == [
        [text.split("_")[1], "good", owner, "read,submit"] for text, owner in zip(texts, ("alice", "bob"), strict=True)
    ]
    assert all("3/s" in line for line in lines)
    assert capsys.readouterr().out.splitlines() == lines[1:]
    assert not any(text.split("_", 2)[2] in line for text in texts for line in lines)


def test_a_key_is_revoked_by_its_prefix_or_by_the_whole_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = made(capsys, "alice"), made(capsys, "alice")
    assert main(["keys", "revoke", first.split("_")[1]]) == 0
    assert main(["keys", "revoke", second]) == 0
    assert main(["keys", "revoke", second]) == 0
    assert not any(key.good(time.time()) for key in kept().values())
    shown = capsys.readouterr().out
    assert "revoked" in shown
    assert second not in shown


def test_an_unknown_prefix_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "revoke", "aaaaaaaa"]) == 1
    assert "has the prefix aaaaaaaa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["a b"], 1, "owner 'a b' must be"),
        (["alice", "--scope", "write"], 2, "submit, read, admin"),
        (["alice", "--scope", ","], 1, "at least one scope"),
        (["alice", "--expires", "soon"], 2, "90d"),
        (["alice", "--expires", "0d"], 2, "90d"),
        (["alice", "--rate", "0"], 2, "0.001"),
        (["alice", "--in-flight", "0"], 2, "--in-flight"),
        (["alice", "--weight", "0"], 2, "0.01"),
        (["alice", "--max-priority", "urgent"], 2, "--max-priority"),
    ],
)
def test_what_can_be_no_key_is_refused(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", *words]) == status
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert kept() == {}
