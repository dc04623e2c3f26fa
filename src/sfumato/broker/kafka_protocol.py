"""How the consumers of a group share partitions out: Kafka's newer protocol where it can be had, else the classic."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from sfumato.broker.kafka_client import ANSWER_S, Access, Config, trouble
from sfumato.broker.kafka_topics import Topics
from sfumato.core.errors import UnusableStore

__all__ = ["GroupProtocol", "Groups"]

log = logging.getLogger(__name__)

GroupProtocol = Literal["auto", "consumer", "classic"]

HEARTBEATS: Final = 6
"""Signs of life within the time after which a member is taken for dead."""
UNREACHED: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._AUTHENTICATION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
    }
)


class Groups:
    """The client settings of a group's consumers, so that a silent one is taken for dead after `takeover_s`.

    In the newer protocol (KIP-848) the broker decides that time, for each group. It is told ours; where it refuses,
    because it doesn't know the protocol or the time is below its least, the classic one is used: there the client
    decides.
    """

    def __init__(self, access: Access, topics: Topics, takeover_s: float, protocol: GroupProtocol) -> None:
        self._access, self._topics, self.takeover_s, self._protocol = access, topics, takeover_s, protocol
        self._chosen: dict[str, Config] = {}

    async def settings(self, group: str) -> Config:
        """For a consumer of `group`.

        Raises:
            TransientError: Kafka did not answer.
            UnusableStore: it refuses the protocol that was asked for by name.
        """
        if group not in self._chosen:
            newer = self._protocol != "classic" and await asyncio.to_thread(self._agreed, group)
            self._chosen[group] = self._access.consumer(group) | (self._newer() if newer else self._classic())
        return self._chosen[group]

    async def classic(self, group: str) -> bool:
        """Whether `group` uses the classic protocol. Raises as `settings`."""
        return bool((await self.settings(group))["group.protocol"] == "classic")

    @property
    def _takeover_ms(self) -> int:
        return int(self.takeover_s * 1_000)

    def _newer(self) -> Config:
        # Sticky: whoever holds a partition keeps it when others join, as far as the shares stay even.
        return {
            "group.protocol": "consumer",
            "group.remote.assignor": "uniform",
            "max.poll.interval.ms": self._takeover_ms,
        }

    def _classic(self) -> Config:
        # Not an eager assignor: that takes everything from everyone whenever a candidate joins.
        return {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": self._takeover_ms,
            "heartbeat.interval.ms": self._takeover_ms // HEARTBEATS,
            "max.poll.interval.ms": self._takeover_ms,
        }

    def _agreed(self, group: str) -> bool:
        """Whether the broker will take this group's members for dead after our time, in the newer protocol."""
        wanted: Mapping[str, int] = {
            "consumer.session.timeout.ms": self._takeover_ms,
            "consumer.heartbeat.interval.ms": self._takeover_ms // HEARTBEATS,
        }
        entries = [
            ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in wanted.items()
        ]
        resource: Any = ConfigResource(ConfigResource.Type.GROUP, group, incremental_configs=entries)
        try:
            (answer,) = self._topics.admin.incremental_alter_configs([resource], request_timeout=ANSWER_S).values()
            answer.result(2 * ANSWER_S)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, TimeoutError) or error.args[0].code() in UNREACHED:
                raise trouble(f"set up group {group}", error) from error
            if self._protocol == "consumer":
                raise UnusableStore(f"{error.args[0].str()}; {self._advice()}") from error
            log.info("group %s uses the classic protocol: %s", group, error.args[0].str())
            return False
        return True

    def _advice(self) -> str:
        return (
            f"give the brokers group.consumer.min.session.timeout.ms={self._takeover_ms} and group.consumer.min."
            f"heartbeat.interval.ms={self._takeover_ms // HEARTBEATS}, or set SFUMATO_KAFKA_GROUP_PROTOCOL=classic."
        )
