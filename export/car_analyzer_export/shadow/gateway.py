"""Controls the comparison in one gateway: `/shadow`, see docs/gateway.md."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from car_analyzer.config import Endpoint

from ..errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH = "/shadow"
_TIMEOUT_S = 30.0


class GatewayUnreachableError(PublishError):
    """The gateway does not answer, for now."""


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes:
        url: Its address.
        key: The key of Triton's administrators, which it was started with.
    """

    url: str
    key: str

    def __post_init__(self) -> None:
        if self._endpoint.is_grpc:
            raise PublishError(f"--gateway is the http:// or https:// address of a gateway, not {self.url}.")

    def check(self, served: str | None) -> None:
        """Makes sure that a comparison can start.

        Args:
            served: The id of the export that Triton serves.

        Raises:
            PublishError: It cannot; the message says why.
        """
        status, found = self._json("GET", "")
        if status == 401:
            raise PublishError(
                f"The gateway at {self.url} was started with another key than Triton: give both the same file in "
                "--admin-key-file."
            )
        if status == 404:
            raise PublishError(
                f"The gateway at {self.url} was started without --admin-key-file, or is older than this car-analyzer, "
                "and cannot compare versions."
            )
        self._expect(status, 200, found)
        if found.get("running"):
            raise PublishError(
                f"The gateway at {self.url} compares another version already. If that publication was killed, the "
                "gateway ends it after a minute."
            )
        if found.get("servedExportId") is None:
            raise PublishError(f"The Triton of the gateway at {self.url} does not answer, or serves an older export.")
        if found["servedExportId"] != served:
            raise PublishError(
                f"The gateway at {self.url} does not use this Triton: its Triton serves export "
                f"{found['servedExportId']}, this one {served}."
            )

    def start(self, order: Mapping[str, Any]) -> None:
        """Starts the comparison.

        Raises:
            PublishError: The gateway rejected it.
        """
        status, found = self._json("PUT", "", order)
        self._expect(status, 201, found)

    def state(self, *, is_full: bool = False) -> dict[str, Any]:
        """What is known now; this also keeps the comparison running.

        Raises:
            GatewayUnreachableError: The gateway does not answer.
            PublishError: It has ended the comparison.
        """
        status, found = self._json("GET", "?detail=full" if is_full else "")
        self._expect(status, 200, found)
        if not found.get("running"):
            raise PublishError(f"The gateway at {self.url} was restarted, or has ended the comparison.")
        return found

    def photo(self, number: int) -> bytes | None:
        """One of the photos that got other labels; None if the gateway does not return it."""
        try:
            status, content = self._request("GET", f"/photo?number={number}")
        except GatewayUnreachableError:
            return None
        return content if status == 200 else None

    def stop(self) -> None:
        """Ends the comparison, if it runs.

        Raises:
            GatewayUnreachableError: The gateway does not answer; it will end it by itself.
        """
        self._request("DELETE", "")

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint.parse(self.url)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        status, content = self._request(method, path, body)
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise PublishError(
                f"The server at {self.url} is not a gateway of car-analyzer: it does not answer in JSON."
            )
        return status, found

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        endpoint = self._endpoint
        connection = (
            http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_S)
            if endpoint.is_secure
            else http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_S)
        )
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"{endpoint.path}{_PATH}{path}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error or type(error).__name__
            raise GatewayUnreachableError(f"No gateway answers at {self.url}: {reason}.") from error
        finally:
            connection.close()

    def _expect(self, status: int, wanted: int, found: Mapping[str, Any]) -> None:
        if status != wanted:
            raise PublishError(f"The gateway at {self.url} answered {status}: {found.get('error', found)}")
