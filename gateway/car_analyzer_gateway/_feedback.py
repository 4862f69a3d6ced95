"""`/feedback`: what people can say about an answer, and what they say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from ._errors import INVALID_FEEDBACK, UNKNOWN_PHOTO, ClientDisconnectedError, GatewayError, bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from ._collection import Collection, Photo

MAX_BYTES = 8192
EXAMPLE = '{"request_id": "abc", "labels": {"condition": "damaged"}}'


class Feedback:
    """The endpoint.

    Args:
        collection: Where photos are looked up, and kept.
        timeout: Seconds for a client to send its feedback.
    """

    def __init__(self, collection: Collection, timeout: float) -> None:
        self._collection = collection
        self._timeout = timeout

    async def show(self, request: Request) -> Response:
        """Return each head's answer for a photo, and the labels that feedback may give."""
        request_id = request.query_params.get("request_id")
        if not request_id:
            raise bad_request("The parameter request_id is missing: the X-Request-ID of an answer.")
        record = (await self._find(request_id)).record
        heads = {
            name: {"label": record.answer[name], "labels": list(labels)}
            for name, labels in record.probabilities.items()
        }
        return JSONResponse({"heads": heads}, headers={"Cache-Control": "no-store"})

    async def take(self, request: Request) -> Response:
        """Take the labels that a person gave for a photo."""
        request_id, given = _parse(await self._read(request))
        photo = await self._find(request_id)
        self._collection.label(photo, _check(given, photo.record.answer, photo.record.probabilities))
        return Response(status_code=204)

    async def _find(self, request_id: str) -> Photo:
        photo = await self._collection.find(request_id)
        if photo is None:
            message = f"The photo of the request {request_id[:150]!r} is unknown, or was answered too long ago."
            raise GatewayError(404, "feedback", message, code=UNKNOWN_PHOTO)
        return photo

    async def _read(self, request: Request) -> bytes:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Other types, a page of any origin may send without asking.
        if media_type != "application/json":
            raise GatewayError(415, "media_type", "Send feedback with the Content-Type application/json.")
        body = b""
        try:
            with anyio.fail_after(self._timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        message = f"The feedback is too large; at most {MAX_BYTES:,} bytes are accepted."
                        raise GatewayError(413, "too_large", message)
        except TimeoutError:
            message = f"The feedback did not arrive within {self._timeout:g} seconds."
            raise GatewayError(408, "upload_timeout", message, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise ClientDisconnectedError from None
        return body


def _parse(body: bytes) -> tuple[str, dict[str, Any]]:
    try:
        feedback = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(f"The feedback is not JSON; send an object such as {EXAMPLE}.") from None
    if not isinstance(feedback, dict):
        raise _invalid(f"The feedback is not a JSON object; send one such as {EXAMPLE}.")
    request_id, labels = feedback.get("request_id"), feedback.get("labels")
    if not isinstance(request_id, str) or not request_id:
        raise _invalid(f"request_id is missing, or not a text; send an object such as {EXAMPLE}.")
    if not isinstance(labels, dict) or not labels:
        raise _invalid(f"labels is missing, or not an object with a label for each head; send one such as {EXAMPLE}.")
    return request_id, labels


def _check(
    given: dict[str, Any], answer: Mapping[str, Any], probabilities: Mapping[str, Mapping[str, float]]
) -> dict[str, str | list[str]]:
    """The labels, in the order of the heads; those of a multilabel head in the model's order."""
    for head in given:
        if head not in probabilities:
            raise _invalid(f"There is no head {head[:100]!r}; this model has {', '.join(probabilities)}.")
    labels: dict[str, str | list[str]] = {}
    for head, valid in probabilities.items():
        if head not in given:
            continue
        label, several = given[head], isinstance(answer[head], list)
        if several and not isinstance(label, list):
            raise _invalid(f"{head} can have several labels; give a list, from: {', '.join(valid)}.")
        for one in label if several else [label]:
            if not isinstance(one, str) or one not in valid:
                raise _invalid(f"{json.dumps(one)[:100]} is not a label of {head}; its labels are {', '.join(valid)}.")
        labels[head] = [one for one in valid if one in label] if several else label
    return labels


def _invalid(message: str) -> GatewayError:
    return GatewayError(400, "feedback", message, code=INVALID_FEEDBACK)
