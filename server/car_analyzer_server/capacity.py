"""How many processes and threads a Triton gets from its cores. A number in the repository takes precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# The step that decodes photos. Triton starts one process for it if its `instance_group` has no count.
PREPROCESS = "preprocess"
_THREAD_PARAMETERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")


def decoding_processes(cores: int) -> int:
    """The number of processes that decode photos."""
    # One more than there are cores: it decodes while another one exchanges data with Triton.
    return cores + 1


def network_threads(cores: int, networks: int) -> int:
    """The number of threads of each network on a CPU."""
    return max(1, cores // max(1, networks))


def set_decoding_processes(config: Any, cores: int) -> bool:
    """Sets the number of processes in the preprocess step's configuration, if it has none.

    Args:
        config: A `ModelConfig` of any model.
        cores: The cores of the Triton.

    Returns:
        Whether it changed.
    """
    groups = [group for group in config.instance_group if config.name == PREPROCESS and not group.count]
    for group in groups:
        group.count = decoding_processes(cores)
    return bool(groups)


def thread_pool_arguments(networks: Sequence[Any], cores: int, given: Sequence[str]) -> list[str]:
    """Triton's arguments for the threads of the official ONNX Runtime backend; our own backend ignores them.

    By default, each network starts a thread for each core, and these threads spin while they wait: with several
    networks they take the cores from each other and from decoding. So all networks share one pool. With a shared pool
    the backend ignores the networks' own settings, so there is none if a network has any.

    Args:
        networks: The `ModelConfig` of each network.
        cores: The cores of the Triton.
        given: The user's arguments, which take precedence.
    """
    if any("onnxruntime," in argument for argument in given):
        return []
    if any(name in network.parameters for network in networks for name in _THREAD_PARAMETERS):
        return []
    threads = network_threads(cores, len(networks))
    return [
        "--backend-config=onnxruntime,enable-global-threadpool=1",
        f"--backend-config=onnxruntime,intra_op_thread_count={threads}",
    ]
