"""What is closed on every start, what a key opens, and gRPC with TLS: real certificates, a real Triton."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import trustme
from tritonclient.grpc import service_pb2, service_pb2_grpc

from car_analyzer import TLS, CarAnalyzer, CarAnalyzerError, UnreachableError
from car_analyzer_server import Server, ServerTLS, Settings, SettingsError
from car_analyzer_server.access import GRPC_KEY_HEADER, KEY_HEADER, KEY_VARIABLE, read_key
from tests.conftest import PATIENCE_S, SMALL_TRITON, until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-that-only-this-test-knows"
CLOSED_OVER_HTTP = [
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/condition/load"),
    ("POST", "/v2/repository/models/condition/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]
CLOSED_OVER_GRPC = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="condition"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="condition"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEM files: the authority, a server's and a client's certificate, and those of a client of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    stranger = trustme.CA()
    made = {"ca": folder / "ca.pem"}
    authority.cert_pem.write_to_path(made["ca"])
    for name, issued in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("client@example.org")),
        ("stranger", stranger.issue_cert("client@example.org")),
    ):
        made[name], made[f"{name}_key"] = folder / f"{name}.pem", folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(made[name])
        issued.private_key_pem.write_to_path(made[f"{name}_key"])
    return made


@pytest.fixture(scope="module")
def closed(repository: Path, files: dict[str, Path]) -> Iterator[Server]:
    """A Triton with a key, which answers only callers with a certificate."""
    tls = ServerTLS(files["server"], files["server_key"], files["ca"])
    with Server(Settings(repository, **SMALL_TRITON, admin_key=KEY, tls=tls)) as running:
        yield running


def over_http(server: Server, method: str, path: str, key: str | None) -> tuple[int, str]:
    headers = {} if key is None else {KEY_HEADER: key}
    request = urllib.request.Request(f"{server.http_url}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def stub(server: Server, files: dict[str, Path]) -> Any:
    names = ("ca", "client_key", "client")
    credentials = grpc.ssl_channel_credentials(*(files[name].read_bytes() for name in names))
    target = f"localhost:{server.settings.grpc_port}"
    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.secure_channel(target, credentials))


@pytest.mark.parametrize(("method", "path"), CLOSED_OVER_HTTP)
@pytest.mark.parametrize("key", [None, "another-key-of-16"])
def test_administration_is_closed_over_http(closed: Server, method: str, path: str, key: str | None) -> None:
    status, answer = over_http(closed, method, path, key)
    assert status == 403
    assert "restricted" in answer
    assert KEY not in answer


@pytest.mark.parametrize("call", CLOSED_OVER_GRPC)
@pytest.mark.parametrize("key", [None, "another-key-of-16"])
def test_administration_is_closed_over_grpc(closed: Server, files: dict[str, Path], call: str, key: str | None) -> None:
    metadata = [] if key is None else [(GRPC_KEY_HEADER, key)]
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub(closed, files), call)(CLOSED_OVER_GRPC[call], metadata=metadata, timeout=PATIENCE_S)
    assert "restricted" in caught.value.details()
    assert KEY not in caught.value.details()


def test_the_key_opens_it(closed: Server, files: dict[str, Path]) -> None:
    status, answer = over_http(closed, "POST", "/v2/repository/index", KEY)
    assert status == 200
    assert "preprocess" in answer
    index = stub(closed, files).RepositoryIndex(
        service_pb2.RepositoryIndexRequest(), metadata=[(GRPC_KEY_HEADER, KEY)], timeout=PATIENCE_S
    )
    assert {model.state for model in index.models} == {"READY"}


def test_without_a_key_nobody_has_one(repository: Path) -> None:
    first, second = Settings(repository), Settings(repository)
    assert len(first.admin_key) > 40
    assert first.admin_key != second.admin_key
    assert first.admin_key not in repr(first)


def test_the_key_is_in_no_process_list(closed: Server) -> None:
    command = Path(f"/proc/{closed.pid}/cmdline").read_bytes()
    assert command.count(b":admin-key=" + b"*" * len(KEY)) == 2
    assert KEY.encode() not in command


def test_the_key_is_in_no_log(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(f"{KEY}\n")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL_TRITON.items()]
    command = [sys.executable, "-m", "car_analyzer", "serve", "--verbose", "--json", "--repository", str(repository)]
    process = subprocess.Popen(
        [*command, *flags, "--admin-key-file", str(file), "--", "--log-verbose=1"],
        stdout=subprocess.PIPE,
        stderr=(log := (tmp_path / "log").open("w+")),
        text=True,
    )
    with log:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE_S)
        log.seek(0)
        written = log.read()
    assert "Started HTTPService" in written
    assert KEY not in out + written


def test_a_caller_with_a_certificate_is_answered(
    closed: Server, files: dict[str, Path], sample_photos: list[Path]
) -> None:
    assert closed.grpc_url.startswith("grpcs://")
    tls = TLS(files["ca"], files["client"], files["client_key"])
    with CarAnalyzer(closed.grpc_url, tls=tls) as analyzer:
        assert analyzer.analyze(sample_photos[0]).cleanliness.label == sample_photos[0].name.split("_")[0]


@pytest.mark.parametrize("certificate", [None, "stranger"])
def test_a_caller_without_one_is_not(
    closed: Server, files: dict[str, Path], sample_photos: list[Path], certificate: str | None
) -> None:
    own = (files[certificate], files[f"{certificate}_key"]) if certificate else ()
    with (
        CarAnalyzer(closed.grpc_url, tls=TLS(files["ca"], *own)) as analyzer,
        pytest.raises(CarAnalyzerError),
    ):
        analyzer.analyze(sample_photos[0])


def test_a_server_of_another_authority_is_not_trusted(closed: Server, sample_photos: list[Path]) -> None:
    with CarAnalyzer(closed.grpc_url) as analyzer, pytest.raises(UnreachableError):
        analyzer.analyze(sample_photos[0])
    plain = closed.grpc_url.replace("grpcs", "grpc")
    with CarAnalyzer(plain) as analyzer, pytest.raises(UnreachableError):
        analyzer.analyze(sample_photos[0])


def test_the_command_line_and_the_gateway_take_the_same_files(
    closed: Server, files: dict[str, Path], sample_photos: list[Path]
) -> None:
    flags = [f"--tls-{flag}={files[name]}" for flag, name in (("ca", "ca"), ("cert", "client"), ("key", "client_key"))]
    command = [sys.executable, "-m", "car_analyzer"]
    asked = subprocess.run(
        [*command, "analyze", str(sample_photos[0]), "--url", closed.grpc_url, *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    gateway = subprocess.Popen(
        [*command, "gateway", "--json", "--port=0", "--url", closed.grpc_url, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.stdout is not None
        address = gateway.stdout.readline().split('"')[3]
        until(lambda: httpx.get(f"{address}/health", timeout=PATIENCE_S).status_code == 200)
    finally:
        gateway.terminate()
        gateway.communicate(timeout=PATIENCE_S)


def test_http_stays_on_this_machine_with_tls(repository: Path, files: dict[str, Path]) -> None:
    settings = Settings(repository, host="0.0.0.0", tls=ServerTLS(files["server"], files["server_key"]))
    assert settings.http_host == "127.0.0.1"
    assert Settings(repository, host="0.0.0.0").http_host == "0.0.0.0"
    assert Settings(repository).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("content", "message"),
    [("short", "16 or more"), ("", "is empty"), ("has a space in the middle", "16 or more"), (None, "cannot be read")],
)
def test_a_bad_key_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "admin.key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_key(file)
    assert content is None or content == "" or content not in str(caught.value)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert read_key(None) == KEY


def test_tls_files_are_looked_at_before_triton_starts(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="absent.pem cannot be read: No such file"):
        ServerTLS(tmp_path / "absent.pem", files["server_key"])
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match="is not a PEM file"):
        ServerTLS(files["server"], tmp_path / "text.pem")
    command = [sys.executable, "-m", "car_analyzer", "serve", "--tls-cert", str(files["server"])]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert refused.returncode == 1
    assert "--tls-cert and --tls-key need each other" in refused.stderr
