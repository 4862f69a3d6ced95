"""The pixels that Triton's preprocess step makes of a photo, and the statistics that were recorded with the model."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ._explain import PREPROCESS
from ._transports import ExportMismatchError, Transport, open_transport
from .config import TLS, Endpoint
from .drift import Reference
from .errors import OverloadedError, ServerError

if TYPE_CHECKING:
    import numpy.typing as npt

# The output of the preprocess step for the first network.
PIXELS = "pixels"


class PixelSource:
    """Asks a Triton for pixels and recorded statistics, with a connection of its own, in one attempt each.

    It connects when it is first used.

    Args:
        url: Triton's URL.
        model: The ensemble's name.
        tls: Certificates for `grpcs://` and `https://`.

    Raises:
        ConfigurationError: The URL is invalid.
    """

    def __init__(self, url: str, model: str, tls: TLS | None = None) -> None:
        self._endpoint = Endpoint.parse(url)
        self._model = model
        self._tls = tls

    @cached_property
    def _transport(self) -> Transport:
        return open_transport(self._endpoint, self._tls, {})

    async def reference(self, version: str, timeout: float) -> Reference | None:
        """The statistics that were recorded with a version of the model; None if there are none.

        Raises:
            CarAnalyzerError: There is no answer within `timeout` seconds, or it cannot be read.
        """
        config = await self._transport.model_config(self._model, version, timeout=timeout)
        text = config.parameters.get("drift")
        return None if text is None else Reference.from_json(text)

    async def pixels(
        self, photo: bytes, version: str, export_id: str | None, request_id: str, timeout: float
    ) -> npt.NDArray[np.uint8]:
        """The pixels that the first network sees: uint8 RGB, [height, width, 3].

        Args:
            photo: The bytes of an image file.
            version: The version that has to prepare it: the newest that is loaded may only be being published.
            export_id: The export that has to prepare it.
            request_id: Appears in Triton's logs and traces.
            timeout: In seconds.

        Raises:
            CarAnalyzerError: There are none.
        """
        try:
            answer = await self._transport.infer(
                PREPROCESS, photo, timeout=timeout, request_id=request_id, export_id=export_id, version=version
            )
        except ExportMismatchError as error:
            raise OverloadedError("the model was replaced meanwhile") from error
        tensor = answer.outputs.get(PIXELS)
        if tensor is None or not isinstance(tensor.values, bytes) or len(tensor.shape) != 4:
            raise ServerError(f"{PREPROCESS} has no output {PIXELS!r} of UINT8")
        found: npt.NDArray[np.uint8] = np.frombuffer(tensor.values, np.uint8).reshape(tensor.shape)[0]
        return found

    async def close(self) -> None:
        """Close the connection."""
        if "_transport" in self.__dict__:
            await self._transport.close()
