from __future__ import annotations

import math
import ssl
from pathlib import Path

import pytest

from car_analyzer import TLS, CarAnalyzer, ConfigurationError, Retry
from car_analyzer.config import Endpoint


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost", "grpc://localhost:8001"),
        ("localhost:9", "grpc://localhost:9"),
        ("10.0.0.7:9", "grpc://10.0.0.7:9"),
        ("[::1]", "grpc://[::1]:8001"),
        ("grpc://triton", "grpc://triton:8001"),
        ("grpcs://triton_1:443", "grpcs://triton_1:443"),
        ("GRPC://Triton", "grpc://triton:8001"),
        ("http://triton", "http://triton:8000"),
        ("http://triton/", "http://triton:8000"),
        ("https://[2001:db8::1]:443/a/b/", "https://[2001:db8::1]:443/a/b"),
    ],
)
def test_url_is_completed(text: str, url: str) -> None:
    assert str(Endpoint.parse(text)) == url
    assert Endpoint.parse(url) == Endpoint.parse(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no host"),
        ("grpc://", "no host"),
        ("http://:8000", "no host"),
        ("ftp://triton", "grpc, grpcs, http, https"),
        ("triton:port", "is not a valid URL"),
        ("grpc://a,b", "several hosts"),
        ("http://a:8000,b:8000", "several hosts"),
        ("triton:70000", "is not a valid URL"),
        ("triton:0", "port 0"),
        ("http://[::1", "is not a valid URL"),
        ("grpc://triton/models", "path"),
        ("http://triton/?a=b", "query"),
        ("http://triton/#a", "query"),
        ("tri ton", "no host"),
        ("http://triton\n", "no host"),
    ],
)
def test_bad_url_is_refused_in_words(text: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        CarAnalyzer(text)


def test_credentials_in_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="headers=") as caught:
        Endpoint.parse("https://user:hunter2@triton")
    assert "hunter2" not in str(caught.value)


def test_url_comes_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAR_ANALYZER_URL", "http://elsewhere")
    assert CarAnalyzer().url == "http://elsewhere:8000"
    monkeypatch.setenv("CAR_ANALYZER_URL", "")
    assert CarAnalyzer().url == "grpc://localhost:8001"
    monkeypatch.delenv("CAR_ANALYZER_URL")
    assert CarAnalyzer().url == "grpc://localhost:8001"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="seconds"):
        CarAnalyzer(timeout=timeout)


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\nc"}, {"a": "ü"}, {"": "b"}])
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="header"):
        CarAnalyzer(headers=headers)


def test_model_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="name"):
        CarAnalyzer(model="")


def test_pauses_grow_to_their_bound_and_vary() -> None:
    retry = Retry(base_delay=0.1, max_delay=1.0)
    for failures, bound in [(1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (2000, 1.0)]:
        pauses = [retry.delay(failures) for _ in range(500)]
        assert 0 <= min(pauses) < bound / 4
        assert bound * 3 / 4 < max(pauses) <= bound


def test_patience_depends_on_an_earlier_answer() -> None:
    assert Retry().patience(answered=False) == 2
    assert Retry().patience(answered=True) == math.inf
    assert Retry(reconnect_patience=0).patience(answered=True) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"base_delay": -1},
        {"max_delay": -1},
        {"attempts": 0},
        {"connect_patience": math.nan},
        {"reconnect_patience": -1},
    ],
)
def test_bad_retry_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Retry(**fields)  # type: ignore[arg-type]


def test_tls_needs_a_secure_scheme_and_whole_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="grpcs://"):
        CarAnalyzer("grpc://triton", tls=TLS(ca="ca.pem"))
    with pytest.raises(ConfigurationError, match="needs its key"):
        TLS(certificate="client.pem")
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        TLS(ca=tmp_path / "absent.pem").read()
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        TLS(ca=tmp_path / "absent.pem").context()
    assert TLS().context().verify_mode is ssl.CERT_REQUIRED
