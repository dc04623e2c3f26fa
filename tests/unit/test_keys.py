"""Keys: their form, what is kept of them, and what they are good for."""

import os

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.core.keys import ApiKey, Quota, Scope, checked_owner, key_text, looks_like_key, prefix_of
from tests.support import NOW

TEXT = key_text(bytes(range(37)))


def a_key(**more: object) -> ApiKey:
    return ApiKey.of(TEXT, "alice", [Scope.READ], NOW, **more)


def test_a_key_has_a_prefix_to_be_found_by_and_256_bits_beside_it() -> None:
    assert TEXT.startswith("sfu_aaaqeaye_")
    assert len(TEXT) == len("sfu_") + 8 + 1 + 43
    assert prefix_of(TEXT) == "aaaqeaye"
    assert len({key_text(os.urandom(37)) for _ in range(100)}) == 100


def test_a_stored_key_holds_no_secret() -> None:
    assert TEXT.rpartition("_")[2] not in repr(a_key())


@pytest.mark.parametrize("text", ["", "sfu_", TEXT[:-1], TEXT + "a", TEXT.upper(), f" {TEXT}", TEXT + "\n", "é" * 56])
def test_what_has_another_form_is_no_key(text: str) -> None:
    assert prefix_of(text) is None
    with pytest.raises(InvalidRequest):
        ApiKey.of(text, "alice", [Scope.READ], NOW)


def test_only_the_whole_key_matches() -> None:
    assert a_key().matches(TEXT)
    assert not a_key().matches(TEXT[:-1] + ("a" if TEXT[-1] != "a" else "b"))


def test_a_key_is_good_until_it_expires_or_is_revoked() -> None:
    assert a_key().good(NOW + 10**9)
    assert a_key(expires_at=NOW + 1).good(NOW)
    assert not a_key(expires_at=NOW + 1).good(NOW + 1)
    assert not a_key(revoked_at=NOW).good(NOW - 1)


def test_admin_is_for_everything_and_the_others_for_themselves() -> None:
    admin = ApiKey.of(TEXT, "alice", [Scope.ADMIN], NOW)
    assert [admin.may(each) for each in Scope] == [True, True, True]
    assert [a_key().may(each) for each in Scope] == [False, True, False]


@pytest.mark.parametrize("weight", [0.0, -1.0, 101.0, float("nan"), float("inf")])
def test_a_key_of_no_sensible_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidRequest, match=r"0\.01 to 100"):
        a_key(weight=weight)


def test_a_key_without_scopes_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one scope"):
        ApiKey.of(TEXT, "alice", [], NOW)


@pytest.mark.parametrize("name", ["a", "alice", "alice@example.org", "team-7.b_c", "x" * 64])
def test_owners_have_plain_names(name: str) -> None:
    assert checked_owner(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\n", "x" * 65, "é"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_owner(name)


def test_a_key_is_found_within_a_text() -> None:
    assert looks_like_key(f"key={TEXT}&x=1")
    assert not looks_like_key("key=sfu_short")


@pytest.mark.parametrize(
    "quota",
    [
        Quota(rate=float("inf")),
        Quota(rate=float("nan")),
        Quota(rate=0.0),
        Quota(in_flight=0),
        Quota(in_flight=2**31),
        Quota(per_day=-1),
        Quota(per_day=10**15),
    ],
)
def test_a_limit_that_can_not_be_counted_or_kept_is_refused(quota: Quota) -> None:
    with pytest.raises(InvalidRequest):
        a_key(quota=quota)
