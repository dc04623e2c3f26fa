"""Whether Kafka keeps what we need for as long as we need it: compared at start, and told with what to change."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource

from sfumato.broker.kafka_client import ANSWER_S, trouble
from sfumato.broker.kafka_topics import Topic, Topics

__all__ = ["Span", "complaints"]

log = logging.getLogger(__name__)

HOUR_S: Final = 3_600.0
FORBIDDEN: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


@dataclass(frozen=True, slots=True)
class Span:
    """A topic must keep its messages longer than `more_than_s` and shorter than `less_than_s`; `why` names both."""

    topic: Topic
    more_than_s: float
    less_than_s: float
    why: str


def complaints(topics: Topics, spans: Sequence[Span], takeover_s: float, classic: bool) -> list[str]:
    """What to change, one sentence each; the topics are there. Blocks.

    Raises:
        TransientError: Kafka did not tell its settings.
    """
    broker = str(next(iter(_metadata(topics).brokers)))
    wanted = [ConfigResource(ConfigResource.Type.BROKER, broker)]
    wanted += [ConfigResource(ConfigResource.Type.TOPIC, span.topic.name) for span in spans]
    told = _told(topics, wanted)
    found: list[str] = []
    for span in spans:
        settings = told.get(span.topic.name)
        found += _of_shape(topics, span.topic)
        found += _of_topic(span, settings) if settings else ()
    if settings := told.get(broker):
        longest_s = max(span.topic.keep_s for span in spans)
        found += _of_broker(settings, longest_s, takeover_s, classic)
    return found


def _metadata(topics: Topics) -> Any:
    try:
        return topics.admin.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        raise trouble("tell its topics", error) from error


def _told(topics: Topics, wanted: Sequence[Any]) -> Mapping[str, Mapping[str, str]]:
    """Name of topic or broker → its settings; without those we may not see."""
    told: dict[str, Mapping[str, str]] = {}
    for resource, answer in topics.admin.describe_configs(wanted, request_timeout=2 * ANSWER_S).items():
        try:
            told[resource.name] = {name: entry.value for name, entry in answer.result(3 * ANSWER_S).items()}
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, TimeoutError) or error.args[0].code() not in FORBIDDEN:
                raise trouble(f"tell the settings of {resource.name}", error) from error
            log.warning("the settings of %s are hidden from us and were not compared.", resource.name)
    return told


def _of_topic(span: Span, settings: Mapping[str, str]) -> Iterator[str]:
    topic = span.topic
    kept_ms = int(settings["retention.ms"])
    kept_s = kept_ms / 1_000 if kept_ms >= 0 else float("inf")
    if not span.more_than_s < kept_s < span.less_than_s:
        kept = f"{kept_s / HOUR_S:g} h" if kept_ms >= 0 else "for ever"
        yield f"topic {topic.name} keeps messages {kept}: {span.why}; set its retention.ms={int(topic.keep_s * 1_000)}"
    if settings["retention.bytes"] != "-1":
        yield f"topic {topic.name} drops messages by size, decided or not; set its retention.bytes=-1"
    if settings["cleanup.policy"] != "delete":
        yield f"topic {topic.name} would lose messages of one key; set its cleanup.policy=delete"


def _of_shape(topics: Topics, topic: Topic) -> Iterator[str]:
    partitions = _metadata(topics).topics[topic.name].partitions.values()
    if topic.partitions == 1 and len(partitions) > 1:
        yield f"topic {topic.name} has {len(partitions)} partitions, and its one reader reads one; make it anew with 1"
    copies = min(len(partition.replicas) for partition in partitions)
    if copies < topics.replication:
        yield (
            f"topic {topic.name} has {copies} of the {topics.replication} copies that SFUMATO_KAFKA_REPLICATION wants; "
            "reassign its partitions with more replicas"
        )


def _of_broker(settings: Mapping[str, str], longest_s: float, takeover_s: float, classic: bool) -> Iterator[str]:
    kept_s = int(settings.get("offsets.retention.minutes", "0")) * 60
    if kept_s <= longest_s:
        yield (
            f"the brokers forget how far a group has read after {kept_s / HOUR_S:g} h, while messages are kept for "
            f"{longest_s / HOUR_S:g} h; set their offsets.retention.minutes={int(longest_s / 60) * 2}"
        )
    least_ms = int(settings.get("group.min.session.timeout.ms", "0"))
    if classic and least_ms > takeover_s * 1_000:
        least = f"{least_ms / 1_000:g}"
        yield (
            f"the brokers take nobody for dead before {least} s; set SFUMATO_TAKEOVER_S={least} or their "
            f"group.min.session.timeout.ms={int(takeover_s * 1_000)}"
        )
