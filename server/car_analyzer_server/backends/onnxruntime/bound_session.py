"""Runs a session with inputs and outputs in a device's memory."""

from __future__ import annotations

import functools
from typing import Any

import onnxruntime

# Each holds device memory for its inputs. Triton's batches rarely have more sizes than these.
_MAX_BINDINGS = 16


class BoundSession:
    """A session with its inputs bound to buffers on its device.

    There is one buffer of exactly the right size for each shape of an input: a run overwrites all of it, so that no row
    of an earlier batch can remain. The least recently used buffers are freed.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str, number: int) -> None:
        """Binds nothing yet.

        Args:
            session: A session on this device.
            device: `cuda` or `cpu`.
            number: The device's number.
        """
        self._session = session
        self._device = device, number
        self._bound = functools.lru_cache(_MAX_BINDINGS)(self._bind)

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        """Does what `InferenceSession.run` does, with one copy of each input and output.

        Args:
            outputs: Their names.
            inputs: By name, numpy arrays.

        Returns:
            New numpy arrays, in the order of `outputs`.
        """
        binding, buffers = self._bound(tuple((name, array.shape, array.dtype) for name, array in inputs.items()))
        for buffer, array in zip(buffers, inputs.values(), strict=True):
            buffer.update_inplace(array)
        # ONNX Runtime would reuse the memory of bound outputs, and fail if a run needs another shape.
        binding.clear_binding_outputs()
        for name in outputs:
            binding.bind_output(name, *self._device)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def _bind(self, inputs: tuple[tuple[str, tuple[int, ...], Any], ...]) -> tuple[Any, list[Any]]:
        """A binding, and its buffers for inputs of these names, shapes and types."""
        binding = self._session.io_binding()
        buffers = []
        for name, shape, dtype in inputs:
            buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._device)
            binding.bind_ortvalue_input(name, buffer)
            buffers.append(buffer)
        return binding, buffers
