"""A gateway that sent no photo while Triton was replaced answers with the new Triton's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reliability.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.identities import Served

    from .conftest import Gateway


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_is_replaced(
    protocol: str,
    tritons: dict[str, Served],
    start_gateway: Callable[..., Gateway],
    photo: bytes,
) -> None:
    proxy = Proxy(tritons["first"].port(protocol)).listen()
    try:
        gateway = start_gateway(f"{protocol}://127.0.0.1:{proxy.port}")
        identities = set()
        for name in ("first", "swapped", "other-heads", "first"):
            proxy.refuse()
            proxy.retarget(tritons[name].port(protocol))
            proxy.listen()
            response = gateway.analyze(photo)
            assert response.status_code == 200, response.text
            assert response.json()[tritons[name].head] == tritons[name].label
            assert response.headers["Model-Version"] == "1"
            identities.add(response.headers["Export-Id"])
            (line,) = gateway.log_of(response.headers["X-Request-ID"])
            assert (line["model_version"], line["export_id"]) == ("1", response.headers["Export-Id"])
        assert len(identities) == 3
    finally:
        proxy.close()
