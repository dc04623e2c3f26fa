"""The servers of a cluster on one host: their recipes, and the settings with which the roles find them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from sfumato.cluster.kafka import kafka
from sfumato.cluster.minio import minio
from sfumato.cluster.postgres import postgres, postgres_url
from sfumato.cluster.s3 import new_place
from sfumato.cluster.seaweedfs import seaweedfs
from sfumato.cluster.server import Recipe, free_ports
from sfumato.storage.s3_place import S3Place
from sfumato.supervisor.place import CannotStart

__all__ = ["Servers", "Store", "planned"]

Store = Literal["seaweedfs", "minio"]
STORES: Final[dict[Store, Callable[[Path, S3Place], Recipe]]] = {"seaweedfs": seaweedfs, "minio": minio}
PORTS_A_BROKER: Final = 2


@dataclass(frozen=True, slots=True)
class Servers:
    """What is to be started, and `settings`, the changes to ours that name it. `addresses` is what to tell people."""

    recipes: Sequence[Recipe]
    settings: dict[str, Any]
    addresses: dict[str, str]


def planned(folder: Path, store: Store, brokers: Literal[1, 3]) -> Servers:
    """Kafka, an object store and PostgreSQL over `folder`, on free ports; new folders are made ready (seconds).

    Raises:
        CannotStart: the folder belongs to a cluster of another size.
        ServerMissing: a server is not on this machine; the message says how to get it.
        ServerSilent: a folder could not be made ready.
    """
    there = len(list(folder.glob("kafka-*")))
    if there not in (0, brokers):
        raise CannotStart(
            f"{folder} belongs to a cluster of {there} Kafka broker{'s' * (there > 1)}, which can't become {brokers}. "
            f"Run it with --brokers {there}, or choose another --data-dir."
        )
    s3_port, postgres_port, *kafka_ports = free_ports(2 + brokers * PORTS_A_BROKER)
    place = new_place(s3_port)
    nodes = {node: tuple(kafka_ports[(node - 1) * PORTS_A_BROKER :][:PORTS_A_BROKER]) for node in range(1, brokers + 1)}
    voters = {node: controller for node, (_, controller) in nodes.items()}
    makers: list[Callable[[], Recipe]] = [
        partial(kafka, folder / f"kafka-{node}", port, controller, node=node, voters=voters)
        for node, (port, controller) in nodes.items()
    ]
    makers += [partial(STORES[store], folder / store, place), partial(postgres, folder / "postgres", postgres_port)]
    with ThreadPoolExecutor(len(makers)) as threads:
        recipes = [made.result() for made in [threads.submit(make) for make in makers]]
    at_kafka = ",".join(f"127.0.0.1:{port}" for port, _ in nodes.values())
    settings = {
        "kafka_servers": at_kafka,
        "kafka_replication": min(3, brokers),
        "s3_bucket": place.bucket,
        "s3_endpoint": place.endpoint,
        "s3_access_key_id": place.access_key_id,
        "s3_secret_access_key": place.secret_access_key,
        "database_url": postgres_url(folder / "postgres", postgres_port),
    }
    addresses = {"kafka": at_kafka, store: place.endpoint, "postgres": f"127.0.0.1:{postgres_port}"}
    return Servers(recipes, settings, addresses)
