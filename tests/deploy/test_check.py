"""`make deploy-check` passes on the committed files, and finds what is broken in a copy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from car_analyzer_gateway._settings import Settings
from deploy.tools import MissingError, Tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "car-analyzer"


def check(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    # All tests and `make deploy-check` share one cache of downloaded tools.
    command = [sys.executable, "deploy/check.py", "--tools", str(ROOT / "build" / "tools"), *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def clean() -> str:
    """The output of the check; it names tools that are not available."""
    done = check(ROOT, "--allow-missing")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copytree(
        ROOT / "examples" / "web-app", tmp_path / "examples" / "web-app", ignore=shutil.ignore_patterns("node_modules")
    )
    for file in ("docker-compose.yml", "docker-bake.hcl"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


BREAKS = {
    "docker compose": ("docker-compose.yml", "condition: service_healthy", "condition: service_hale"),
    "docker buildx": ("docker-bake.hcl", 'default = "0.2.0"', "default = TAGS"),
    "hadolint": (
        "deploy/docker/triton.Dockerfile",
        "python3 -m pip install --constraint /tmp",
        "cd / && pip install numpy /tmp",
    ),
    "helm": ("deploy/helm/car-analyzer/values-cpu.yaml", "count: 0", "count: none"),
    "kubectl": ("deploy/kustomize/cpu/kustomization.yaml", "claim.yaml]", "claims.yaml]"),
    "kubernetes-validate": ("deploy/kustomize/cpu/claim.yaml", "accessModes:", "accessMode:"),
    "tsc": ("deploy/helm/car-analyzer/templates/autoscaling.yaml", "pollingInterval:", "pollingIntervals:"),
    "readme-generator": ("deploy/helm/car-analyzer/values.yaml", "## @param commonLabels", "## commonLabels"),
    "promtool": ("deploy/helm/car-analyzer/files/rules.yml", "for: 1m", "for: soon"),
}


@pytest.mark.triton
def test_every_tool_finds_what_is_broken(clean: str, copy: Path) -> None:
    for file, right, wrong in BREAKS.values():
        text = (copy / file).read_text()
        assert right in text
        (copy / file).write_text(text.replace(right, wrong, 1))
    # One version of Kubernetes finds it as six do.
    script = copy / "deploy" / "check.py"
    script.write_text(re.sub(r"(?m)^KUBERNETES = .*", 'KUBERNETES = ("1.37",)', script.read_text()))
    done = check(copy, "--allow-missing")
    assert done.returncode == 1
    found = {line[8:29].strip() for line in done.stdout.splitlines() if line.startswith("FOUND")}
    missing = {line[8:29].strip() for line in clean.splitlines() if line.startswith("missing")}
    assert found == set(BREAKS) - missing


def test_a_missing_tool_is_named_and_fails_the_check(tmp_path: Path) -> None:
    script = (
        "import pathlib, tools, check, sys\n"
        "def nothing(self, name): raise tools.MissingError(f'{name} is not installed')\n"
        "tools.Tools._find = nothing\n"
        f"sys.argv = ['check', '--tools', {str(tmp_path)!r}, *sys.argv[1:]]\n"
        "sys.exit(check.main())\n"
    )
    for flags, code in (((), 1), (("--allow-missing",), 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, *flags], cwd=ROOT / "deploy", capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "helm is not installed" in done.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("triton.replica=3", "replica"),
        ("models.source=s3", "source"),
        ("triton.gpu.count=-1", "count"),
        ("gateway.settings.PORT=1", "settings"),
        ("gateway.settings.CAR_ANALYZER_MAX_PHOTO=1", "CAR_ANALYZER_MAX_PHOTO"),
        ("triton.image.digest=abc", "digest"),
        ("autoscaling.mode=hpa,autoscaling.minReplicas=9", "autoscaling.minReplicas (9) is above"),
        ("tls.mutual=true,tls.secret=triton", "tls.clientSecret"),
        ("tls.clientSecret=gateway", "tls.secret"),
        ("gateway.autoscaling.enabled=true,gateway.autoscaling.maxReplicas=1", "gateway.autoscaling.minReplicas (2)"),
        ("autoscaling.mode=vpa", "mode"),
        ("triton.terminationGracePeriodSeconds=20", "at least preStopSeconds + 30"),
        ("models.verify.secret=a,models.verify.configMap=b", "not both"),
        ("models.verify.configmap=b", "configmap"),
        ("models.source=persistentVolumeClaim", "models.persistentVolumeClaim is needed"),
    ],
)
def test_the_chart_rejects_unknown_settings(setting: str, words: str) -> None:
    done = template(setting)
    assert done.returncode != 0
    assert words in done.stderr


def template(settings: str) -> subprocess.CompletedProcess[str]:
    try:
        helm = Tools(ROOT / "build" / "tools").command("helm")
    except MissingError as error:
        pytest.skip(f"no helm: {error}")
    command = [*helm, "template", "x", CHART, "--set", settings]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_mutual_tls_reaches_triton_and_the_gateway() -> None:
    plain, one, both = (
        template(settings).stdout
        for settings in ("nameOverride=", "tls.secret=server", "tls.secret=server,tls.clientSecret=client")
    )
    assert "tls" not in plain.lower()
    pods = {}
    for name, text in (("one", one), ("both", both)):
        for document in yaml.safe_load_all(text):
            if document["kind"] == "Deployment":
                component = document["metadata"]["labels"]["app.kubernetes.io/component"]
                pods[component, name] = document["spec"]["template"]["spec"]
    arguments = pods["triton", "both"]["containers"][0]["args"]
    assert {"--tls-cert=/run/tls/tls.crt", "--tls-key=/run/tls/tls.key", "--tls-client-ca=/run/tls/ca.crt"} <= {
        *arguments
    }
    assert "--tls-client-ca=/run/tls/ca.crt" not in pods["triton", "one"]["containers"][0]["args"]
    # Triton's HTTP is on 127.0.0.1 then: probes have to run inside.
    assert all("exec" in pods["triton", "one"]["containers"][0][f"{probe}Probe"] for probe in ("startup", "readiness"))
    variables = {one["name"]: one.get("value") for one in pods["gateway", "both"]["containers"][0]["env"]}
    assert variables["CAR_ANALYZER_URL"] == "grpcs://x-car-analyzer-triton-grpc:8001"
    assert set(variables) >= {"CAR_ANALYZER_TLS_CA", "CAR_ANALYZER_TLS_CERT", "CAR_ANALYZER_TLS_KEY"}
    volumes = {
        kind: next(v for v in pods["gateway", kind]["volumes"] if v["name"] == "tls") for kind in ("one", "both")
    }
    assert volumes["both"]["secret"]["secretName"] == "client"
    # Without a certificate of its own, the gateway gets the authority only, not Triton's key.
    assert volumes["one"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_only_pods_that_copy_models_may_open_connections() -> None:
    def egress(settings: str) -> list[dict[str, Any]]:
        policies = [d for d in yaml.safe_load_all(template(settings).stdout) if d["kind"] == "NetworkPolicy"]
        rules: list[dict[str, Any]] = next(p for p in policies if p["metadata"]["name"].endswith("triton"))["spec"][
            "egress"
        ]
        return rules

    dns = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    bucket = "models.source=objectStorage,models.objectStorage.folder=models:cars"
    assert egress("models.source=image") == []
    assert egress(bucket) == [dns, {"ports": [{"port": 443}]}]
    narrow = "networkPolicy.modelsEgress[0].to[0].ipBlock.cidr=10.0.0.0/24"
    assert egress(f"{bucket},{narrow}") == [dns, {"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]


@pytest.mark.parametrize("kind", ["secret", "configMap"])
def test_the_public_key_reaches_triton(kind: str) -> None:
    documents = yaml.safe_load_all(template(f"models.verify.{kind}=signing,models.verify.key=a.pub").stdout)
    names = {"x-car-analyzer-triton": True, "x-car-analyzer-gateway": False}
    found = {}
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            found[document["metadata"]["name"]] = "--verify=/run/verify/a.pub" in pod["containers"][0]["args"]
            volumes = [volume for volume in pod["volumes"] if volume["name"] == "verify"]
            mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "verify"]
            expected = names[document["metadata"]["name"]]
            assert bool(volumes) == expected
            assert mounts == ["/run/verify"] * expected
            assert all(kind in volume for volume in volumes)
    assert found == names


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("variable", ["MODELS", "SPEC_FOLDER", "VERIFY_KEY"])
def test_compose_creates_no_missing_file_or_folder(profile: str, variable: str) -> None:
    try:
        compose = Tools(ROOT / "build" / "tools").command("docker compose")
    except MissingError as error:
        pytest.skip(f"no compose: {error}")
    done = subprocess.run(
        [*compose, "--file", ROOT / "docker-compose.yml", "--profile", profile, "config", "--format", "json"],
        env={**os.environ, variable: "./nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    services = json.loads(done.stdout)["services"]
    # Containers are created in the order of `depends_on`, and only then started: the first that fails ends `up`.
    service = (
        services["models"] if variable != "VERIFY_KEY" else services["triton" if profile == "gpu" else "triton-cpu"]
    )
    mounts = [mount for mount in service["volumes"] if mount["source"] == str(ROOT / "nowhere")]
    assert any(not mount["bind"].get("create_host_path") for mount in mounts)


def test_the_chart_lists_the_settings_of_the_gateway() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    # The token is a secret; addresses are the chart's.
    others = {"token", "host", "port"}
    wanted = {f"CAR_ANALYZER_{name.upper()}" for name in Settings.model_fields if name not in others}
    assert set(schema["properties"]["gateway"]["properties"]["settings"]["properties"]) == wanted


def test_one_release_of_triton_is_named_everywhere() -> None:
    files = (ROOT / "docker-bake.hcl", ROOT / "deploy" / "docker" / "triton.Dockerfile", ROOT / "docs" / "deploy.md")
    found = [release for file in files for release in re.findall(r"tritonserver:(\S+?)-py3", file.read_text())]
    assert len(found) == len(files)
    assert len(set(found)) == 1
