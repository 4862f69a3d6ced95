"""Controls a running Triton over gRPC: loads and unloads models, and sends inference requests."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.grpc import service_pb2, service_pb2_grpc

from car_analyzer.triton_messages import Cause, has_cause
from car_analyzer_server import signals
from car_analyzer_server.access import GRPC_KEY_HEADER, KEY_VARIABLE

from ...errors import TritonBusyError, TritonRequestError, TritonUnreachableError
from ...spec import ENSEMBLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from car_analyzer import TLS
    from car_analyzer.config import Endpoint

_STATUS_SECONDS = 30.0
# Large networks load slowly, and warm up.
_LOAD_SECONDS = 600.0
_INFER_SECONDS = 120.0
# The name of the new ensemble during its check, before it is served.
TRIAL = f"{ENSEMBLE}_trial"


class Triton:
    """A running Triton. A context manager.

    Args:
        endpoint: Its gRPC address.
        key: The administrator's key.
        tls: Certificates for `grpcs://`.
    """

    def __init__(self, endpoint: Endpoint, key: str | None, tls: TLS) -> None:
        self.url = str(endpoint)
        self._metadata = [(GRPC_KEY_HEADER, key)] if key else []
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if endpoint.is_loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if endpoint.is_secure:
            credentials = grpc.ssl_channel_credentials(*tls.read())
            self._channel = grpc.secure_channel(endpoint.authority, credentials, options)
        else:
            self._channel = grpc.insecure_channel(endpoint.authority, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> Triton:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def check_control(self) -> None:
        """Makes sure that models can be loaded and unloaded; does not affect what is served.

        Raises:
            TritonRequestError: They cannot, or Triton does not answer.
        """
        self._states()
        try:
            self.unload(TRIAL)  # a killed process may not have unloaded it
        except TritonUnreachableError:
            raise
        except TritonRequestError as error:
            if "not allowed" in str(error):
                raise TritonRequestError(
                    f"Triton at {self.url} rejects loading models: it was not started with "
                    "--model-control-mode=explicit, as `car-analyzer serve` does."
                ) from error

    def served(self) -> int | None:
        """The version of the ensemble that is served now; None if there is none."""
        return max((version for version, state in self.versions(ENSEMBLE).items() if state == "READY"), default=None)

    def versions(self, model: str) -> dict[int, str]:
        """The versions of a model that Triton has ever loaded, with their states."""
        return {int(one.version): one.state for one in self._states() if one.name == model and one.version}

    def config(self, model: str, version: int) -> Any:
        """A loaded model's `ModelConfig`.

        Raises:
            TritonRequestError: It is not loaded.
        """
        request = service_pb2.ModelConfigRequest(name=model, version=str(version))
        return self._call(self._stub.ModelConfig, request, _STATUS_SECONDS).config

    def load(self, config: Any) -> None:
        """Loads the versions of a model that a configuration names, in place of those that are loaded now.

        For an ensemble, Triton also checks the steps' files, and reloads those that changed.

        Args:
            config: A `ModelConfig`, used in place of the one on disk.

        Raises:
            TritonRequestError: One cannot be loaded. What was loaded before still is, unless an ensemble's step is
                missing.
        """
        self._load(config)
        states = self.versions(config.name)
        for version in config.version_policy.specific.versions:
            if states.get(version) != "READY":
                raise TritonRequestError(
                    f"Triton at {self.url} does not find version {version} of '{config.name}'. Does it serve another "
                    "folder? --repository must be the very folder that it serves."
                )

    def load_trial(self, ensemble: Any) -> None:
        """Loads an ensemble under the name `TRIAL`, which no client uses.

        Raises:
            TritonRequestError: It cannot be loaded.
        """
        trial = pb.ModelConfig()
        trial.CopyFrom(ensemble)
        trial.name = TRIAL
        for output in trial.output:
            output.ClearField("label_filename")  # the files are not in this folder
        (version,) = trial.version_policy.specific.versions
        # A file in the request replaces the model's folder, which does not exist for this name.
        self._load(trial, {f"file:{version}/trial": b"no content"})

    def _load(self, config: Any, files: Mapping[str, bytes] | None = None) -> None:
        request = service_pb2.RepositoryModelLoadRequest(model_name=config.name)
        text = json_format.MessageToJson(config, preserving_proto_field_name=True)
        request.parameters["config"].string_param = text
        for name, content in (files or {}).items():
            request.parameters[name].bytes_param = content
        self._call(self._stub.RepositoryModelLoad, request, _LOAD_SECONDS)

    def unload(self, model: str) -> None:
        """Unloads a model.

        Raises:
            TritonRequestError: Triton rejected the request.
        """
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        self._call(self._stub.RepositoryModelUnload, request, _LOAD_SECONDS)

    def wait_until_gone(self, model: str, version: int, seconds: float = 60.0) -> bool:
        """Waits until a replaced version has completed its requests; returns whether it did so in time."""
        deadline = time.monotonic() + seconds
        while self.versions(model).get(version) in ("READY", "UNLOADING", "LOADING"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def infer(self, model: str, photo: bytes, outputs: list[str]) -> tuple[int, dict[str, npt.NDArray[np.float32]]]:
        """Sends one photo to an ensemble; retries while Triton is overloaded.

        Returns:
            The version that answered, and output → float32 [1, logits].

        Raises:
            TritonRequestError: There was no answer.
        """
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(photo)) + photo)
        for name in outputs:
            request.outputs.add(name=name)
        deadline = time.monotonic() + _INFER_SECONDS
        while True:
            try:
                # Tritons before 24.12 crash when a call to an ensemble is cancelled.
                with signals.deferred():
                    answer = self._call(self._stub.ModelInfer, request, _INFER_SECONDS)
                break
            except TritonBusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        return int(answer.model_version), {
            output.name: np.frombuffer(raw, np.float32).reshape(tuple(output.shape))
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    def _states(self) -> Any:
        return self._call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), _STATUS_SECONDS).models

    def _call(self, method: Any, request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explain(error) from error.with_traceback(None)

    def _explain(self, error: Any) -> TritonRequestError:
        code, details = error.code(), str(error.details() or "").rstrip(".")
        if has_cause(details, Cause.RESTRICTED):
            problem = "the administrator's key that was sent is wrong" if self._metadata else "no key was sent"
            return TritonRequestError(
                f"Triton at {self.url} allows loading models only with its administrator's key, and {problem}. Give "
                f"the key that it was started with, in --admin-key-file or ${KEY_VARIABLE}."
            )
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return TritonRequestError(f"The server at {self.url} is not a Triton: {details}.")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TritonRequestError(f"Triton at {self.url} did not answer in time.")
        if code is grpc.StatusCode.UNAVAILABLE and has_cause(details, Cause.NO_CONNECTION):
            return TritonUnreachableError(f"No server answers at {self.url}: {details}.")
        if code is grpc.StatusCode.UNAVAILABLE and "not allowed" not in details:
            return TritonBusyError(f"Triton at {self.url} is overloaded: {details}.")
        return TritonRequestError(f"Triton at {self.url} rejected the request: {details}.")
