"""What a model is called, and by which version, where jobs are predictions."""

import pytest

from sfumato.core.params import Sampler
from sfumato.core.prediction import SCHEDULERS, model_id, scheduler_name, version_id


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("restyle", "sfumato/restyle"),
        ("acme/style", "acme/style"),
        ("sd/1.5 fast", "sd/1.5%20fast"),
        ("a b:c", "sfumato/a%20b%3Ac"),
        ("a/b/c", "sfumato/a%2Fb%2Fc"),
        ("/style", "sfumato/%2Fstyle"),
    ],
)
def test_a_name_is_shown_with_an_owner_as_addresses_take_it(name: str, shown: str) -> None:
    assert model_id(name) == shown


def test_a_version_is_another_one_when_name_hub_or_revision_is() -> None:
    versions = [version_id("one"), version_id("two"), version_id("one", "a/b"), version_id("one", "a/b", "v1")]

    assert len(set(versions)) == 4
    assert all(len(version) == 64 for version in versions)
    # The same on every gateway and in every release, since callers write it down.
    assert version_id("one") == "bbe9cd1998a56fda7bd07077fcec8763d47b95a55494926e5fc4f40300f97c78"


@pytest.mark.parametrize("sampler", Sampler)
def test_what_a_sampler_is_called_is_understood(sampler: Sampler) -> None:
    name = scheduler_name(sampler)

    assert SCHEDULERS.get(name, name) == sampler
