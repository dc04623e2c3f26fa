"""Where a Kafka to start is looked for, and what is said when there is none."""

from pathlib import Path

import pytest

from sfumato.cluster.kafka import kafka
from sfumato.cluster.server import ServerMissing
from sfumato.config import load_settings


def test_a_missing_kafka_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match=r"Download a binary release.*set KAFKA_HOME"):
        kafka(tmp_path / "data", 1, 2, home=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["KAFKA_HOME", "SFUMATO_KAFKA_HOME"])
def test_kafka_is_looked_for_where_the_environment_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "unpacked"))

    with pytest.raises(ServerMissing, match=r"looked in .*unpacked"):
        kafka(tmp_path / "data", 1, 2)


def test_kafka_home_may_be_given_as_any_setting() -> None:
    assert load_settings(kafka_home=Path("unpacked")).kafka_home == Path("unpacked")
