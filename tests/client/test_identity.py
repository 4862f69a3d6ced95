"""An answer is read with the labels of the export that computed it, even if servers change meanwhile."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer import AsyncCarAnalyzer, CarAnalyzer, ConfigurationError, _client, _triton
from car_analyzer._transports import open_transport
from car_analyzer.config import Endpoint
from tests.identities import EXPORTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reliability.proxy import Proxy
    from tests.identities import Served


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)


@pytest.fixture
def photo(sample_photos: list[Path]) -> bytes:
    return sample_photos[0].read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("first", "swapped"),
        ("first", "other-heads"),
        ("legacy", "first"),
        ("first", "legacy"),
        ("legacy", "legacy-swapped"),
        ("legacy", "other-heads"),
    ],
)
def test_another_triton_takes_the_place_while_no_photo_is_sent(
    before: str, after: str, protocol: str, tritons: dict[str, Served], make_proxy: Callable[..., Proxy], photo: bytes
) -> None:
    old, new = tritons[before], tritons[after]
    proxy = make_proxy(old.url(protocol)).listen()
    with CarAnalyzer(f"{protocol}://127.0.0.1:{proxy.port}") as analyzer:
        analysis = analyzer.analyze(photo)
        assert old.gave(analysis)
        proxy.refuse()
        proxy.retarget(new.port(protocol))
        proxy.listen()
        if after == "legacy" and before == "first":
            time.sleep(_triton.REFRESH_AFTER_S)  # the docs promise no more
        analysis = analyzer.analyze(photo)
        assert new.gave(analysis)


def test_the_answer_names_the_export(protocol: str, tritons: dict[str, Served], photo: bytes) -> None:
    found = {}
    for name in EXPORTS:
        with CarAnalyzer(tritons[name].url(protocol)) as analyzer:
            analysis = analyzer.analyze(photo)
            assert analysis.version == "1"
            found[name] = analysis.export_id
    assert found["legacy"] is found["legacy-swapped"] is None
    assert len(set(found.values())) == 4
    assert all(found[name] for name in ("first", "swapped", "other-heads"))


class Turns:
    """A round-robin load balancer in front of real transports."""

    def __init__(self, *transports: Any) -> None:
        self._transports = transports
        self._turn = itertools.count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transports[next(self._turn) % len(self._transports)], name)

    async def close(self) -> None:
        for transport in self._transports:
            await transport.close()


@pytest.mark.parametrize("names", [("first", "swapped"), ("first", "other-heads"), ("first", "swapped", "other-heads")])
async def test_several_exports_behind_one_address(
    names: tuple[str, ...],
    protocol: str,
    tritons: dict[str, Served],
    photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = [tritons[name] for name in names]
    monkeypatch.setattr(_triton, "MISMATCH_PAUSE_S", 0)

    def open_all(_endpoint: Any, *rest: Any) -> Turns:
        return Turns(*(open_transport(Endpoint.parse(server.url(protocol)), *rest) for server in servers))

    monkeypatch.setattr(_client, "open_transport", open_all)
    async with AsyncCarAnalyzer(f"{protocol}://127.0.0.1") as analyzer:
        answers = [await analyzer.analyze(photo) for _ in range(20)]
        answers += [answer async for answer in analyzer.analyze_many([photo] * 40) if answer.ok]
    assert len(answers) == 60
    for answer in answers:
        assert [server.gave(answer) for server in servers].count(True) == 1


def test_a_model_that_takes_no_photos(url: str, photo: bytes) -> None:
    with (
        CarAnalyzer(url, model="condition") as analyzer,
        pytest.raises(ConfigurationError, match="does not describe its outputs"),
    ):
        analyzer.analyze(photo)
