"""Access links: who holds one may enter, until it ends; nobody can make one."""

import stat
import threading
from pathlib import Path

import pytest

from sfumato.core.links import Links
from sfumato.storage.secrets import NoSecret, kept_secret
from tests.support import NOW, job_id

LINKS = Links([b"first secret"])
ID = job_id(1)


def test_a_token_opens_what_it_was_made_for() -> None:
    token = LINKS.token("job", ID, NOW + 10)
    assert LINKS.opens(token, "job", ID, NOW)


def test_a_token_opens_nothing_else() -> None:
    token = LINKS.token("job", ID, NOW + 10)
    assert not LINKS.opens(token, "job", job_id(2), NOW)
    assert not LINKS.opens(token, "upload", ID, NOW)


def test_a_token_ends() -> None:
    token = LINKS.token("job", ID, NOW + 10)
    assert not LINKS.opens(token, "job", ID, NOW + 10)


def test_a_later_expiry_cannot_be_written_in() -> None:
    _, _, signature = LINKS.token("job", ID, NOW + 10).partition(".")
    assert not LINKS.opens(f"{int(NOW) + 9_999}.{signature}", "job", ID, NOW)


@pytest.mark.parametrize("token", ["", ".", "1.", ".abc", "x.y", "1e9.abc", "٣.abc", "9" * 400 + ".a", "1.ü"])
def test_nonsense_opens_nothing(token: str) -> None:
    assert not LINKS.opens(token, "job", ID, NOW)


def test_a_rotated_secret_still_opens_and_the_new_one_signs() -> None:
    old = LINKS.token("job", ID, NOW + 10)
    rotated = Links([b"second secret", b"first secret"])
    assert rotated.opens(old, "job", ID, NOW)
    assert not LINKS.opens(rotated.token("job", ID, NOW + 10), "job", ID, NOW)


def test_links_without_a_secret_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        Links([])


def test_the_secret_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "link-secret"
    secret = kept_secret(file)
    assert kept_secret(file) == secret
    assert len(secret) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["link-secret"]


def test_racing_makers_get_one_secret(tmp_path: Path) -> None:
    start, found = threading.Barrier(8), []

    def make() -> None:
        start.wait()
        found.append(kept_secret(tmp_path / "link-secret"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_an_empty_or_impossible_file_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "link-secret"
    empty.touch()
    with pytest.raises(NoSecret, match="is empty"):
        kept_secret(empty)
    with pytest.raises(NoSecret, match="SFUMATO_LINK_SECRETS"):
        kept_secret(empty / "below")
