"""Validates each deployment file with the tool that consumes it: python deploy/check.py (make deploy-check).

Prints a table. Exits with 1 if a check fails or, without --allow-missing, if a tool is not available.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from tools import CRDS, MissingError, Tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "car-analyzer"
KUSTOMIZE = DEPLOY / "kustomize"
KUBERNETES = ("1.27", "1.29", "1.31", "1.33", "1.35", "1.37")
BEFORE_IMAGE_VOLUMES = ("1.27", "1.29")
PROFILES = ("cpu", "gpu", "cpu app", "cpu monitoring", "gpu app monitoring")
# API groups of operators: Kubernetes has no schemas for them. Any other resource without a schema is a finding.
UNCHECKED = ("serving.kserve.io",)
OPERATORS = (*CRDS, *UNCHECKED)
# `kubectl apply -k` applies what is rendered from the chart: folder, values, the only template.
RENDERED = (
    ("cpu", "values-cpu.yaml", None),
    ("gpu", "values.yaml", None),
    ("monitoring", "values-gpu.yaml", "monitoring"),
)

Finding = str | None


class Checks:
    """All checks, each a row of the table.

    Args:
        tools: Where the checkers are.
        scratch: For rendered manifests.
    """

    def __init__(self, tools: Tools, scratch: Path) -> None:
        self._tools = tools
        self._scratch = scratch

    def rows(self) -> Iterator[tuple[str, str, Callable[[], Finding]]]:
        """For each check: the tool, what it checks, and a function that returns its finding."""
        for profiles in PROFILES:
            flags = [word for profile in profiles.split() for word in ("--profile", profile)]
            config = ("--file", ROOT / "docker-compose.yml", *flags, "config", "--quiet")
            yield "docker compose", f"config, {profiles}", partial(self._run, "docker compose", *config, silent=True)
        targets = ("default", "models", *(f"{image}-with-models" for image in ("triton", "triton-gpu", "triton-cpu")))
        bake = ("bake", "--file", ROOT / "docker-bake.hcl", "--print", *targets)
        yield "docker buildx", "bake --print", partial(self._run, "docker buildx", *bake)
        for file in dockerfiles():
            yield "hadolint", relative(file), partial(self._run, "hadolint", file)
        for values in sorted([*CHART.glob("values*.yaml"), *CHART.glob("ci/*.yaml")]):
            lint = ("lint", "--strict", CHART, "--values", values)
            yield "helm", f"lint, {values.name}", partial(self._run, "helm", *lint)
            yield "helm", f"template, {values.name}", partial(self._template, values)
        for folder, *_ in RENDERED:
            yield "helm", f"deploy/kustomize/{folder} is rendered", partial(self._is_rendered, folder)
            yield "kubectl", f"kustomize, {folder}", partial(self._kustomize, folder)
        yield "readme-generator", "the chart's README is written from values.yaml", self._is_documented
        yield "kubectl", "kustomize, export", partial(self._kustomize, "export")
        for version in KUBERNETES:
            yield "kubernetes-validate", f"{version}, all manifests", partial(self._validate, version)
        yield "tsc", f"resources of {', '.join(CRDS)}", self._check_types
        monitoring = DEPLOY / "monitoring"
        yield "promtool", "check rules", partial(self._run, "promtool", "check", "rules", CHART / "files" / "rules.yml")
        tests = sorted(monitoring.glob("*_test.yml"))
        yield "promtool", "test rules", partial(self._run, "promtool", "test", "rules", *tests)
        yield "promtool", "check config", self._prometheus

    def render(self, folder: str) -> str:
        """Renders a folder of `deploy/kustomize` from the chart."""
        values, template = next((values, only) for name, values, only in RENDERED if name == folder)
        only = ["--show-only", f"templates/{template}.yaml"] if template else []
        helm = self._tools.command("helm")
        command = [*helm, "template", "car-analyzer", str(CHART), "--values", str(CHART / values), "--no-hooks", *only]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # Applied without Helm, it is not Helm's, and may be in any namespace.
        rendered = re.sub(r"(?m)^ *(app.kubernetes.io/managed-by|helm.sh/chart): .*\n", "", rendered)
        rendered = rendered.replace(',namespace="default"', "")
        return f"# Rendered from the chart: python deploy/check.py --render\n{rendered}"

    def _template(self, values: Path) -> Finding:
        file = self._scratch / f"chart, {values.name}"
        command = [*self._tools.command("helm"), "template", "car-analyzer", str(CHART), "--values", str(values)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        file.write_text(done.stdout, encoding="utf-8")
        return done.stderr.strip() or None

    def _is_rendered(self, folder: str) -> Finding:
        try:
            rendered = self.render(folder)
        except subprocess.CalledProcessError as error:
            return str(error.stderr)
        same = rendered == (KUSTOMIZE / folder / "car-analyzer.yaml").read_text(encoding="utf-8")
        return None if same else "differs from the chart; run: python deploy/check.py --render"

    def describe(self) -> str:
        """The chart's README with the table of its settings, as the comments in `values.yaml` describe them."""
        readme = self._scratch / "README.md"
        readme.write_bytes((CHART / "README.md").read_bytes())
        command = [*self._tools.command("readme-generator"), "-v", str(CHART / "values.yaml"), "-r", str(readme)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        return readme.read_text(encoding="utf-8")

    def _is_documented(self) -> Finding:
        try:
            described = self.describe()
        except subprocess.CalledProcessError as error:  # a setting without a comment, or the other way round
            return str(error.stdout)
        same = described == (CHART / "README.md").read_text(encoding="utf-8")
        return None if same else "differs from values.yaml; run: python deploy/check.py --render"

    def _kustomize(self, folder: str) -> Finding:
        command = [*self._tools.command("kubectl"), "kustomize", str(KUSTOMIZE / folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        (self._scratch / f"kustomize, {folder}.yaml").write_text(done.stdout, encoding="utf-8")
        return done.stderr.strip() or None

    def _validate(self, version: str) -> Finding:
        files = [
            *self._scratch.glob("*.yaml"),
            *(DEPLOY / "kserve").glob("*.yaml"),
            *(KUSTOMIZE / "cpu").glob("claim.yaml"),
        ]
        native = self._scratch / "native"
        native.mkdir(exist_ok=True)
        checked, seen = [], set()
        for file in files:
            if file.name.endswith("image-volume.yaml") and version in BEFORE_IMAGE_VOLUMES:
                continue
            documents = re.split(r"(?m)^---\s*$", file.read_text(encoding="utf-8"))
            # Several values render the same resource, and a schema takes long to read.
            kept = [d for d in documents if re.search(r"(?m)^kind:", d) and not _of_operator(d) and d not in seen]
            seen.update(kept)
            if kept:
                checked.append(native / file.name)
                checked[-1].write_text("---\n".join(kept), encoding="utf-8")
        if not checked:
            return "there is nothing to validate"
        # A missing schema is only a WARN, with exit code 0.
        found = (
            self._run("kubernetes-validate", "--kubernetes-version", version, "--strict", *checked, output=True) or ""
        )
        lines = [line for line in found.splitlines() if not line.startswith("INFO")]
        return "\n".join(lines).replace(f"{native}/", "") or None

    def _check_types(self) -> Finding:
        """Checks operators' resources as TypeScript literals, for which an unknown field is an error, too."""
        tsc = Path(self._tools.command("tsc")[0])
        documents = [
            d for file in self._scratch.glob("*.yaml") for d in yaml.safe_load_all(file.read_text("utf-8")) if d
        ]
        lines, seen = [], set()
        for document in documents:
            version, kind = document["apiVersion"], document["kind"]
            package = CRDS.get(version.partition("/")[0], "").rpartition("@")[0]
            if package and (text := json.dumps(document, default=str)) not in seen:
                lines += [
                    f'import type {{ I{kind} as T{len(seen)} }} from "{package}/{version}/{kind}";',
                    f"export const resource{len(seen)}: T{len(seen)} = {text};",
                ]
                seen.add(text)
        if not seen:
            return "there is nothing to check"
        # Beside `node_modules`, where the types are looked up; a folder of its own, as two checks may run at once.
        with tempfile.TemporaryDirectory(dir=tsc.parents[2]) as folder:
            file = Path(folder) / "resources.mts"
            file.write_text("\n".join(lines), encoding="utf-8")
            return self._run("tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", file)

    def _prometheus(self) -> Finding:
        # As in the containers: the rules are beside the configuration.
        folder = self._scratch / "prometheus"
        folder.mkdir(exist_ok=True)
        for file in (DEPLOY / "monitoring" / "prometheus.yml", CHART / "files" / "rules.yml"):
            (folder / file.name).write_bytes(file.read_bytes())
        return self._run("promtool", "check", "config", folder / "prometheus.yml")

    def _run(self, tool: str, *arguments: object, silent: bool = False, output: bool = False) -> Finding:
        """Returns a tool's output if it fails; with `silent`, any output; with `output`, the output in any case."""
        command = [*self._tools.command(tool), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        text = done.stdout.strip()
        if done.returncode:
            return text or f"exit code {done.returncode}"
        return text if output or (silent and text) else None


def dockerfiles() -> list[Path]:
    """Every Dockerfile of the project."""
    web = ROOT / "examples" / "web-app"
    return [*sorted((DEPLOY / "docker").glob("*.Dockerfile")), *sorted(web.glob("*/Dockerfile"))]


def relative(path: Path) -> str:
    """A path relative to the project's root."""
    return str(path.relative_to(ROOT))


def main() -> int:
    """Runs the checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--allow-missing", action="store_true", help="skip checks whose tool is not available")
    parser.add_argument(
        "--render", action="store_true", help="write deploy/kustomize and the chart's README, without checks"
    )
    parser.add_argument("--tools", type=Path, default=ROOT / "build" / "tools", help="cache of downloaded tools")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deploy-check-") as scratch:
        checks = Checks(Tools(arguments.tools.absolute()), Path(scratch))
        if arguments.render:
            (CHART / "README.md").write_text(checks.describe(), encoding="utf-8")
            for folder, *_ in RENDERED:
                (KUSTOMIZE / folder / "car-analyzer.yaml").write_text(checks.render(folder), encoding="utf-8")
            return 0
        failed = missing = 0
        for tool, what, check in checks.rows():
            try:
                finding, state = check(), "ok"
            except MissingError as error:
                finding, state = str(error), "missing"
                missing += 1
            else:
                if finding:
                    failed, state = failed + 1, "FOUND"
            print(f"{state:8} {tool:20} {what}", flush=True)
            for line in (finding or "").splitlines():
                print(f"{'':8} {line}", flush=True)
    print(f"{failed} failed, {missing} without their tool; no schemas for: {', '.join(UNCHECKED)}")
    return int(bool(failed or (missing and not arguments.allow_missing)))


def _of_operator(document: str) -> bool:
    version = re.search(r"(?m)^apiVersion:\s*(\S+)", document)
    return version is not None and version[1].partition("/")[0] in OPERATORS


if __name__ == "__main__":
    sys.exit(main())
