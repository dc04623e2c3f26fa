"""What several kinds of tests start only once."""

from collections.abc import Iterator

import pytest

from sfumato.cluster.server import free_ports, running


@pytest.fixture(scope="session")
def kafka_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real broker for all tests of a session, started by the first that needs it."""
    # Imported only now: most tests do without Kafka's client.
    from sfumato.cluster.kafka import kafka

    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    with running(kafka(folder / "1", port, controller_port), folder / "1.log"):
        yield f"127.0.0.1:{port}"
