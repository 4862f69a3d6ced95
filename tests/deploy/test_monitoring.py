"""Rules and dashboard use metrics that a running Triton and gateway really have."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.tools import MissingError, Tools
from tests.conftest import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
FILES = ROOT / "deploy" / "helm" / "car-analyzer" / "files"
# Triton has them only with a GPU, the gateway only with --drift.
OPTIONAL = re.compile(r"nv_gpu_\w+|car_analyzer_drift_\w+")
METRIC = re.compile(r"\b(?:nv|car_analyzer|process)_[a-z0-9_]+\b")


def panels() -> list[tuple[str, str]]:
    """Each query of the dashboard with the title of its panel."""
    board = json.loads((FILES / "dashboard.json").read_text())
    return [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def gateway(server: SimpleNamespace) -> Iterator[str]:
    """A real gateway in front of the real Triton."""
    command = [sys.executable, "-m", "car_analyzer", "gateway", "--url", server.grpc_url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["gateway"]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def load(gateway: str, sample_photos: list[Path]) -> Iterator[None]:
    """Sends photos, and sometimes invalid ones, for as long as the tests run."""
    stop = threading.Event()

    def send() -> None:
        bodies = [photo.read_bytes() for photo in sample_photos]
        for number in range(100_000):
            if stop.wait(0.03):
                return
            body = b"no photo" if number % 10 == 0 else bodies[number % len(bodies)]
            request = urllib.request.Request(f"{gateway}/analyze", body, {"Content-Type": "image/jpeg"})
            with (
                contextlib.suppress(urllib.error.HTTPError),
                urllib.request.urlopen(request, timeout=PATIENCE_S) as answer,
            ):
                answer.read()

    thread = threading.Thread(target=send)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("load")
def test_every_metric_is_exposed(server: SimpleNamespace, gateway: str) -> None:
    wanted = {name for _, query in panels() for name in METRIC.findall(query)}
    wanted |= {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    # Names with colons are recorded by rules: `car_analyzer:photos:rate1m`.
    wanted = {name for name in wanted if not OPTIONAL.fullmatch(name)}
    assert len(wanted) > 15

    def exposed() -> set[str]:
        found: set[str] = set()
        for url in (server.metrics_url, f"{gateway}/metrics"):
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                found |= set(re.findall(r"(?m)^([a-z_0-9]+)[{ ]", answer.read().decode()))
        return found

    until(lambda: wanted <= exposed(), lambda: wanted - exposed())


def test_every_recorded_metric_that_is_queried_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for _, query in panels() for name in re.findall(r"car_analyzer:[\w:]+", query)}
    asked |= {name for rule in rules() for name in re.findall(r"car_analyzer:[\w:]+", rule["expr"])}
    assert asked <= recorded
    assert all({"summary", "description"} <= set(rule["annotations"]) for rule in rules() if "alert" in rule)


def test_the_dashboard_is_what_its_code_writes() -> None:
    written = subprocess.run(
        [sys.executable, "-c", "import dashboard; print(dashboard.render(), end='')"],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (FILES / "dashboard.json").read_text() == written, "run: python deploy/monitoring/dashboard.py"


@pytest.fixture
def prometheus(server: SimpleNamespace, gateway: str, tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that scrapes both, with the rules."""
    try:
        binary = Tools(ROOT / "build" / "tools").command("prometheus")
    except MissingError as error:
        pytest.skip(f"no Prometheus: {error}")
    # deploy/monitoring/prometheus.yml with shorter intervals, and with addresses in place of names.
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FILES / "rules.yml")]
    addresses = {"triton": server.metrics_url, "gateway": gateway}
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [urllib.parse.urlsplit(addresses[job["job_name"]]).netloc]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        *binary,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def ask(prometheus: str, query: str) -> list[Any]:
    query = query.replace("$__rate_interval", "15s").replace("$namespace", ".*").replace("$release", ".*")
    with urllib.request.urlopen(
        f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10
    ) as a:
        found = json.load(a)["data"]["result"]
    # A division by zero is a sample, but no panel shows it.
    return [sample for sample in found if sample["value"][1] != "NaN"]


@pytest.mark.usefixtures("load")
def test_under_load_every_panel_has_data_and_no_alert_fires(prometheus: str) -> None:
    queries = [(title, query) for title, query in panels() if not OPTIONAL.search(query)]
    queries += [(rule["record"], rule["record"]) for rule in rules() if "record" in rule]
    empty = queries

    def all_have_data() -> bool:
        nonlocal empty
        with contextlib.suppress(OSError):
            empty = [(title, query) for title, query in empty if not ask(prometheus, query)]
        return not empty

    until(all_have_data, lambda: empty)
    assert ask(prometheus, 'ALERTS{alertstate="firing"}') == []


def test_two_releases_in_one_prometheus_have_their_own_alerts(tmp_path: Path) -> None:
    """Of two releases in one namespace, one has no replica: one alert, of that release."""
    tools = Tools(ROOT / "build" / "tools")
    try:
        helm, promtool = tools.command("helm"), tools.command("promtool")
    except MissingError as error:
        pytest.skip(str(error))
    chart = ROOT / "deploy" / "helm" / "car-analyzer"
    flags = [
        "--namespace=cars",
        "--set=monitoring.prometheusRule.enabled=true",
        "--show-only=templates/monitoring.yaml",
    ]
    for release in ("blue", "green"):
        rendered = subprocess.run([*helm, "template", release, chart, *flags], capture_output=True, check=True).stdout
        (tmp_path / f"{release}.yml").write_text(yaml.safe_dump(yaml.safe_load(rendered)["spec"]))
    states = {"blue": "1x10", "green": "0x10"}
    where = 'namespace="cars",release="{}"'.format
    down = {"job": "triton", "namespace": "cars", "release": "green", "severity": "critical"}
    rate = "car_analyzer:photos:rate1m"
    wanted = {
        "rule_files": ["blue.yml", "green.yml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    *({"series": f'up{{job="triton",{where(name)}}}', "values": up} for name, up in states.items()),
                    {
                        "series": f'nv_inference_request_success{{job="triton",model="car_analyzer",{where("blue")}}}',
                        "values": "0+60x10",
                    },
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "5m",
                        "alertname": "CarAnalyzerNoReplica",
                        "exp_alerts": [{"exp_labels": down, "exp_annotations": annotations("CarAnalyzerNoReplica")}],
                    }
                ],
                "promql_expr_test": [
                    {
                        "expr": rate,
                        "eval_time": "5m",
                        "exp_samples": [{"labels": f'{rate}{{job="triton",{where("blue")}}}', "value": 1}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(wanted))
    done = subprocess.run(
        [*promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def annotations(alert: str) -> dict[str, str]:
    found: dict[str, str] = next(rule["annotations"] for rule in rules() if rule.get("alert") == alert)
    return found


def test_each_selector_of_the_rules_has_its_job() -> None:
    selected = [re.findall(r"([\w:]+)\{([^}]*)\}", rule["expr"]) for rule in rules()]
    assert all(selected)
    for name, selector in (one for found in selected for one in found):
        assert selector.startswith(('job="triton"', 'job="gateway"')), name
