"""Validates a model repository before Triton starts, with one sentence where Triton would log fifty lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from .errors import RepositoryError

if TYPE_CHECKING:
    from pathlib import Path

# The file with the signature of a repository.
SIGNATURE = "model.sig"
_RECORD = "export.json"


def check_repository(repository: Path) -> list[str]:
    """Makes sure that a repository can be served.

    Returns:
        The names of its models, each with the version that will be served.

    Raises:
        RepositoryError: It is missing or empty, a configuration is invalid, a head was never exported, or a step of an
            ensemble is missing.
    """
    if not repository.is_dir():
        raise RepositoryError(f"The model repository {repository} does not exist; make one with `car-analyzer export`.")
    if any(letter.isspace() for letter in str(repository.resolve())):
        # The stubs parse their command line incorrectly (`stol`) and abort, and Triton waits for them.
        raise RepositoryError(
            f"The path of the model repository, {repository.resolve()}, has a space in it; the processes of Triton's "
            "Python backend cannot start with such a path. Move it, or rename the folder."
        )
    names = [file.parent.name for file in sorted(repository.glob("*/config.pbtxt"))]
    configs = {name: read_config(repository, name) for name in names}
    if not configs:
        raise RepositoryError(f"The model repository {repository} holds no model; fill it with `car-analyzer export`.")
    for name, config in configs.items():
        for step in config.ensemble_scheduling.step:
            if step.model_name not in configs:
                raise RepositoryError(
                    f"The ensemble '{name}' needs the model '{step.model_name}', which {repository} does not have."
                )
    # Heads first: if the ensemble has no version, its heads were never exported, which is the clearer message.
    ordered = sorted(configs, key=lambda name: bool(configs[name].ensemble_scheduling.step))
    versions = {name: _served_version(repository / name, configs[name]) for name in ordered}
    return [f"{name} {versions[name]}" for name in configs]


def read_config(repository: Path, model: str) -> Any:
    """Reads a model's configuration, a `ModelConfig`.

    Raises:
        RepositoryError: It is missing or invalid.
    """
    file = repository / model / "config.pbtxt"
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{file} cannot be read: {error}.") from error


def demo_warning(repository: Path) -> str | None:
    """A warning if a repository holds demo models, whose answers are not to be relied on; otherwise None.

    Raises:
        RepositoryError: A configuration is invalid.
    """
    for file in sorted(repository.glob("*/config.pbtxt")):
        parameters = read_config(repository, file.parent.name).parameters
        if "demo" in parameters and parameters["demo"].string_value == "true":
            description = parameters["description"].string_value if "description" in parameters else ""
            return f"These are demo models: do not rely on their answers. {description}".rstrip()
    return None


def read_networks(repository: Path) -> list[Any]:
    """Reads the configurations of the models of the ONNX Runtime backend.

    Raises:
        RepositoryError: A configuration is invalid.
    """
    configs = [read_config(repository, file.parent.name) for file in sorted(repository.glob("*/config.pbtxt"))]
    return [config for config in configs if config.backend == "onnxruntime"]


def _served_version(model: Path, config: Any) -> int:
    needed = (config.default_model_filename or "model.onnx") if config.backend == "onnxruntime" else ""
    versions = {int(path.name) for path in model.iterdir() if path.name.isdecimal() and path.is_dir()}
    if wanted := set(config.version_policy.specific.versions):
        versions &= wanted
    # A clean checkout has only the labels of version 1, which was never exported.
    exported = [version for version in versions if any((model / str(version) / f).is_file() for f in (needed, _RECORD))]
    if not (exported if needed else versions):
        missing = f"version {max(wanted)}" if wanted else "version"
        raise RepositoryError(
            f"The model '{model.name}' was never exported: {model} has no {missing}. Run `car-analyzer export` first."
        )
    latest = max(versions)
    if needed and not (model / str(latest) / needed).is_file():
        raise RepositoryError(f"The model '{model.name}' is broken: {model / str(latest) / needed} is missing.")
    return latest
