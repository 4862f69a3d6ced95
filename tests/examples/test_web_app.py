"""The example web app: its Node API in each variant on a real Triton, and its page in a real browser."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from car_analyzer import CarAnalyzer, PhotoError
from car_analyzer_gateway._openapi import describe
from car_analyzer_gateway._settings import Settings as GatewaySettings
from tests.conftest import PATIENCE_S, until
from tests.gateway.conftest import running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
WEB_APP = ROOT / "examples" / "web-app"
BUILD = ROOT / "build" / "web-app"
PARTS = ("api", "frontend")
VARIANTS = ("gateway", "spawn", "triton")
NODE, NPM = shutil.which("node"), shutil.which("npm")


def has_node() -> bool:
    if NODE is None or NPM is None:
        return False
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, version.strip("v\n").split(".")[:2])) >= (20, 19)


pytestmark = pytest.mark.skipif(not has_node(), reason="Node 20.19 or later and npm are not installed")


class Api:
    """A running Node API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def analyze(self, photo: bytes) -> httpx.Response:
        return httpx.post(
            f"{self.url}/api/analyze", files={"image": ("car.jpg", photo)}, timeout=PATIENCE_S, trust_env=False
        )

    def health(self) -> httpx.Response:
        return httpx.get(f"{self.url}/api/health", timeout=PATIENCE_S, trust_env=False)


@pytest.fixture(scope="session")
def install() -> Callable[[str], Path]:
    """Copy a part of the web app into build/ and install its packages, which are kept there for the next time."""

    def install(part: str) -> Path:
        folder = BUILD / part
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name != "node_modules":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        ignored = shutil.ignore_patterns("node_modules", "dist")
        shutil.copytree(WEB_APP / part, folder, ignore=ignored, dirs_exist_ok=True)
        key = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
        note = folder / "node_modules" / ".installed"
        if not note.exists() or note.read_text() != key:
            npm(folder, "ci", "--no-audit", "--no-fund")
            note.write_text(key)
        return folder

    return install


@pytest.fixture(scope="session")
def start_api(install: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Api]]:
    """Start Node APIs, each with its variables."""
    folder, logs = install("api"), tmp_path_factory.mktemp("api")
    with contextlib.ExitStack() as stack:

        def start(**variables: str) -> Api:
            log = logs / f"{len(list(logs.iterdir()))}.log"
            return Api(stack.enter_context(listening(folder, log, NODE, "server.js", PORT="0", **variables)))

        yield start


@pytest.fixture(scope="session")
def addresses(server: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """The variables that lead each variant to the shared Triton."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), "--url", server.grpc_url) as gateway:
        yield variables(gateway.url, server.grpc_url, server.http_url)


@pytest.fixture(scope="session", params=VARIANTS)
def api(request: pytest.FixtureRequest, addresses: dict[str, dict[str, str]], start_api: Callable[..., Api]) -> Api:
    """The Node API, once for each variant."""
    return start_api(ANALYZER=request.param, **addresses[request.param])


@pytest.mark.parametrize("name", ["clean_intact_1.jpg", "dirty_damaged_2.jpg"])
def test_answers_are_those_of_the_sdk(api: Api, server: SimpleNamespace, sample_photos: list[Path], name: str) -> None:
    (photo,) = (path for path in sample_photos if path.name == name)
    with CarAnalyzer(server.grpc_url) as analyzer:
        expected = analyzer.analyze(photo).to_dict()
    response = api.analyze(photo.read_bytes())
    answer = response.json()
    assert response.status_code == 200, answer
    assert list(answer) == list(expected)
    assert 0 < answer.pop("processingTime") < 60_000
    del expected["processingTime"]
    assert answer == expected
    assert name.startswith(f"{answer['cleanliness']}_{answer['condition']}")


@pytest.mark.parametrize("kind", ["text", "cut short"])
def test_a_bad_photo_is_refused_in_the_sdks_words(
    api: Api, server: SimpleNamespace, sample_photos: list[Path], kind: str
) -> None:
    photo = b"this is no photo" if kind == "text" else sample_photos[0].read_bytes()[:2000]
    with CarAnalyzer(server.grpc_url) as analyzer, pytest.raises(PhotoError) as refusal:
        analyzer.analyze(photo)
    response = api.analyze(photo)
    assert response.status_code == 400
    assert response.json() == {"error": str(refusal.value)}


def test_health(api: Api) -> None:
    assert until(lambda: (answer := api.health()).status_code == 200 and answer.json()) == {"status": "OK"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_listening_is_a_503(start_api: Callable[..., Api], sample_photos: list[Path], variant: str) -> None:
    with socket.socket() as reserved:  # it is bound, and does not listen
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{reserved.getsockname()[1]}"
        urls = variables(f"http://{nowhere}", f"grpc://{nowhere}", f"http://{nowhere}")
        api = start_api(ANALYZER=variant, **urls[variant])
        for response in (api.analyze(sample_photos[0].read_bytes()), api.health()):
            assert response.status_code == 503
            assert response.json()["error"].endswith("try again in a moment.")
            assert "retry-after" in response.headers


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_answer_in_time_is_a_504(
    start_api: Callable[..., Api], sample_photos: list[Path], tmp_path: Path, variant: str
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        named = {"GATEWAY_URL": url, "TRITON_URL": url, "CAR_ANALYZER": str(silent)}
        response = start_api(ANALYZER=variant, TIMEOUT_MS="300", **named).analyze(sample_photos[0].read_bytes())
    assert response.status_code == 504
    assert response.json() == {"error": "There was no answer in time; try again."}


def test_an_unknown_variant_does_not_start(install: Callable[[str], Path]) -> None:
    finished = subprocess.run(
        [str(NODE), "server.js"],
        cwd=install("api"),
        env={**os.environ, "ANALYZER": "magic"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert finished.returncode == 1
    assert 'ANALYZER is "magic"; it can be gateway, spawn or triton' in finished.stderr


def test_the_apis_own_tests(install: Callable[[str], Path]) -> None:
    npm(install("api"), "test")


@pytest.mark.parametrize("part", PARTS)
def test_lint(install: Callable[[str], Path], part: str) -> None:
    folders = {name: install(name) for name in PARTS}  # the page uses the types of the API
    npm(folders[part], "run", "lint", "--", "--max-warnings=0")


def test_the_generated_types_are_current(install: Callable[[str], Path], tmp_path: Path) -> None:
    """After a change of the OpenAPI document, `npm run types` in `examples/web-app/api` generates them again."""
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(describe(GatewaySettings(), needs_token=False)))
    npm(install("api"), "exec", "--", "openapi-typescript", str(document), "--output", "gateway.d.ts", "--check")


@pytest.mark.parametrize("part", PARTS)
def test_lock_files_name_no_registry(part: str) -> None:
    text = (WEB_APP / part / "package-lock.json").read_text()
    assert '"integrity"' in text
    assert '"resolved"' not in text


@pytest.fixture
def page(
    install: Callable[[str], Path], start_api: Callable[..., Api], addresses: dict[str, dict[str, str]], tmp_path: Path
) -> Iterator[str]:
    """The address of the built page, with an API behind it."""
    folder = install("frontend")
    npm(folder, "run", "build")
    api = start_api(ANALYZER="gateway", **addresses["gateway"])
    port = free_port()
    vite = folder / "node_modules" / "vite" / "bin" / "vite.js"
    command = (NODE, str(vite), "preview", "--host", "127.0.0.1", "--port", str(port), "--strictPort")
    with running(folder, tmp_path / "vite.log", *command, API_URL=api.url):
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_there(url), (tmp_path / "vite.log").read_text)
        yield url


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=900,1000",
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        chrome.implicitly_wait(PATIENCE_S)
        yield chrome


def test_the_page_shows_verdicts(browser: Any, page: str, sample_photos: list[Path], tmp_path: Path) -> None:
    (photo,) = (path for path in sample_photos if path.name == "dirty_damaged_2.jpg")
    browser.get(page)
    picker = browser.find_element("css selector", "input[type=file]")
    assert picker.accessible_name == "Choose a photo, or drop one here"
    picker.send_keys(str(photo))
    labels = [element.text for element in browser.find_elements("css selector", ".verdict .label")]
    assert labels == ["dirty", "damaged"]
    assert browser.find_element("css selector", "[role=status] meter").accessible_name == "confidence of cleanliness"
    assert browser.find_element("css selector", ".picker img").get_property("naturalWidth") > 0
    assert browser.save_screenshot(str(BUILD / "screenshot.png"))
    assert browser.get_log("browser") == []

    text = tmp_path / "car.jpg"
    text.write_text("this is no photo")
    picker.send_keys(str(text))
    refusal = browser.find_element("css selector", "[role=alert] .failed").text
    assert refusal.endswith(".")
    assert browser.find_element("css selector", "[role=status]").text == ""


def variables(gateway_url: str, grpc_url: str, http_url: str) -> dict[str, dict[str, str]]:
    command = Path(sys.executable).with_name("car-analyzer")
    return {
        "gateway": {"GATEWAY_URL": gateway_url},
        "spawn": {"CAR_ANALYZER": str(command), "CAR_ANALYZER_URL": grpc_url},
        "triton": {"TRITON_URL": http_url},
    }


def npm(folder: Path, *arguments: str) -> None:
    finished = subprocess.run(
        [str(NPM), *arguments], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@contextlib.contextmanager
def running(folder: Path, log: Path, *command: str | None, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdout=output, stderr=output, env={**os.environ, **variables}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def listening(folder: Path, log: Path, *command: str | None, **variables: str) -> Iterator[str]:
    """Run a command that says where it listens."""
    with running(folder, log, *command, **variables) as process:
        until(lambda: "listening on " in log.read_text() or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        yield log.read_text().partition("listening on ")[2].split()[0]


def is_there(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).is_success
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
