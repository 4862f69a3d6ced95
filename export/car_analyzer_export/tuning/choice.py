"""What can be chosen about serving the same models, and how it stands in their configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..repository.config import INTRA_OP_THREADS
from ..spec import PREPROCESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Choice:
    """One way to serve. The names are those of `[limits]` in a spec.

    Attributes:
        preprocess_instances: Photos decoded at once, a process each.
        network_instances: Of each network.
        network_threads: For each instance of a network; 0 leaves them to the server.
        queue_delay_us: How long a network waits for more photos to join a batch, in microseconds.
    """

    preprocess_instances: int
    network_instances: int
    network_threads: int
    queue_delay_us: int

    @classmethod
    def of(cls, configs: Mapping[str, Any]) -> Choice:
        """What configurations say; of the networks, the first."""
        return next(iter(cls.of_each(configs).values()))

    @classmethod
    def of_each(cls, configs: Mapping[str, Any]) -> dict[str, Choice]:
        """What configurations say for each network, by name."""
        return {
            network.name: cls(
                configs[PREPROCESS].instance_group[0].count,
                network.instance_group[0].count,
                int(network.parameters[INTRA_OP_THREADS].string_value) if INTRA_OP_THREADS in network.parameters else 0,
                network.dynamic_batching.max_queue_delay_microseconds,
            )
            for network in _networks(configs)
        }

    def write_to(self, configs: Mapping[str, Any]) -> None:
        """Changes configurations so that they say this."""
        configs[PREPROCESS].instance_group[0].count = self.preprocess_instances
        for network in _networks(configs):
            network.instance_group[0].count = self.network_instances
            network.dynamic_batching.max_queue_delay_microseconds = self.queue_delay_us
            if self.network_threads:
                network.parameters[INTRA_OP_THREADS].string_value = str(self.network_threads)
            elif INTRA_OP_THREADS in network.parameters:
                del network.parameters[INTRA_OP_THREADS]

    def __str__(self) -> str:
        threads = f"{self.network_threads or 'default'} threads"
        return (
            f"{self.preprocess_instances} decoding, {self.network_instances} x {threads} a network, "
            f"delay {self.queue_delay_us} us"
        )


def variations(cores: int, networks: int) -> list[tuple[str, tuple[int, ...]]]:
    """What is worth trying on a machine: fields of `Choice`, the dearest first, and values for each."""
    share = max(1, cores // networks)
    return [
        ("network_threads", _sorted(0, 1, share, cores)),
        ("preprocess_instances", _sorted(2, max(1, cores // 2), cores, 2 * cores)),
        ("network_instances", (1, 2)),
        ("queue_delay_us", (0, 1000, 5000)),
    ]


def around(choice: Choice, field: str, values: tuple[int, ...]) -> list[Choice]:
    """The same choice with other values of one field."""
    return [replace(choice, **{field: value}) for value in values if value != getattr(choice, field)]


def _networks(configs: Mapping[str, Any]) -> Iterator[Any]:
    return (config for config in configs.values() if config.backend == "onnxruntime")


def _sorted(*values: int) -> tuple[int, ...]:
    return tuple(sorted(set(values)))
