"""One real cluster for all of these tests: each leaves it as it found it, with every process running."""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.support import passable_folder

MODELS = """
[models.quick]
backend = "simulated"
batch = 4

[models.slow]
backend = "simulated"
path = "slow"
batch = 1

[models.poisoned]
backend = "simulated"
path = "poisoned"
batch = 4
"""
SETTINGS: dict[str, dict[str, float | str]] = {
    "slow": {"fixed_s": 0.1},
    "poisoned": {"fixed_s": 0.02, "dies_for_prompt": "poison"},
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with passable_folder() as folder:
        # Receivers of webhooks listen on this machine.
        cluster = Cluster(folder, models=MODELS, environment={"SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8"})
        for name, settings in SETTINGS.items():
            cluster.simulate(name, settings)
        with cluster:
            yield cluster
