"""The settings that can be tuned, and how they are stored in the models' configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..repository.config import INTRA_OP_THREADS
from ..spec import PREPROCESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Choice:
    """One choice of the settings, with the names of `[limits]` in a spec.

    Attributes:
        preprocess_instances: Processes that decode photos; 0: `serve` decides, by its cores.
        network_instances: Instances of each network.
        network_threads: Threads of each instance of a network; 0: the server's default.
        queue_delay_us: How long a network waits for more photos to form a batch, in microseconds.
    """

    preprocess_instances: int
    network_instances: int
    network_threads: int
    queue_delay_us: int

    @classmethod
    def of(cls, configs: Mapping[str, Any]) -> Choice:
        """Reads the settings from configurations, those of the first network."""
        return next(iter(cls.of_each(configs).values()))

    @classmethod
    def of_each(cls, configs: Mapping[str, Any]) -> dict[str, Choice]:
        """Reads the settings from configurations for each network, by name."""
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
        """Writes the settings into configurations."""
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
            f"{self.preprocess_instances or 'default'} decoding, {self.network_instances} x {threads} per network, "
            f"delay {self.queue_delay_us} us"
        )


def variations(cores: int, networks: int) -> list[tuple[str, tuple[int, ...]]]:
    """The values to try: fields of `Choice`, the most important first, with their values."""
    share = max(1, cores // networks)
    return [
        ("network_threads", _sorted(0, 1, share, cores)),
        ("preprocess_instances", _sorted(0, 2, max(1, cores // 2), cores, 2 * cores)),
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
