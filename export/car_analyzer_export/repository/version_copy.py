"""Adds a version with the networks of another one, whose heads have other temperatures."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from car_analyzer.heads import HeadSpec, parse_heads

from ..errors import PublishError
from ..spec import ENSEMBLE, EXPLAIN, PREPROCESS
from .config import DRIFT, as_text, with_drift
from .signature import Signature
from .staging import Staging, add, choose_number, staging
from .versions import CONFIGS, HISTORY, RECORD, UNFINISHED, configs_of, locked, on_disk, steps, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from car_analyzer.drift import Reference

    from .versions import Configs

_LEFT_OUT = shutil.ignore_patterns("__pycache__", HISTORY, UNFINISHED)
_CALIBRATION = ("temperature", "bias")


@dataclass(frozen=True)
class Copy:
    """A version that was added: its number and its export's id."""

    version: int
    export_id: str


def heads_of(repository: Path, version: int) -> tuple[HeadSpec, ...]:
    """The heads of a version.

    Raises:
        PublishError: There is no such version.
        ConfigurationError: Its heads cannot be read.
    """
    parameters = configs_of(repository, version)[ENSEMBLE].parameters
    return parse_heads(parameters["heads"].string_value or None, ENSEMBLE)


def add_copy(
    repository: Path,
    version: int,
    calibration: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
    *,
    drift: Reference | None = None,
    deliver: Callable[[Path, int], None] | None = None,
    signature: Signature | None = None,
) -> Copy:
    """Adds a copy of a version to the repository.

    Args:
        repository: The model repository.
        version: The version to copy.
        calibration: Head → its `temperature` and `bias`; the other heads keep theirs.
        facts: What was learned, for the record of the new version (`calibrated` in `export.json`).
        drift: What a gateway compares photos with; by default, what the copied version has.
        deliver: See `export.add_version`.
        signature: Likewise.

    Raises:
        PublishError: The copy cannot be added, or another version replaced `version` meanwhile. The repository is
            unchanged.
        ServingError: The signature is invalid, or its key cannot be used; the repository is unchanged.
    """
    signature = signature or Signature(repository)
    networks = [name for name in steps(configs_of(repository, version)) if name != PREPROCESS]
    with staging(repository, networks) as staged, locked(repository), signature.renewed():
        if deliver is None and on_disk(repository) != version:
            raise PublishError(f"Version {version} was replaced by another export meanwhile; calibrate that one.")
        number = choose_number(repository, networks, None)
        export_id = _write(staged, repository, version, number, calibration, facts, drift)
        add(staged, repository, number, signature, deliver)
    return Copy(number, export_id)


def _write(
    staged: Staging,
    repository: Path,
    version: int,
    number: int,
    calibration: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
    drift: Reference | None,
) -> str:
    configs = configs_of(repository, version)
    parameters = configs[ENSEMBLE].parameters
    heads = json.loads(parameters["heads"].string_value)
    for name, values in calibration.items():
        plain = {key: value for key, value in heads[name].items() if key not in _CALIBRATION}
        heads[name] = plain | dict(values)
    # Another id than the copied version's: clients that have read its heads must read the new ones.
    identity = json.dumps([parameters["export_id"].string_value, heads], sort_keys=True)
    export_id = hashlib.sha256(identity.encode()).hexdigest()[:16]
    for name in {ENSEMBLE, EXPLAIN} & configs.keys():
        configs[name].parameters["heads"].string_value = json.dumps(heads)
        configs[name].parameters["export_id"].string_value = export_id
    with_drift(configs[ENSEMBLE], drift)
    _renumber(configs, version, number)
    for model in staged.models:
        folder = staged.version_folder(model)
        shutil.copytree(repository / model / str(version), folder, ignore=_LEFT_OUT, dirs_exist_ok=True)
        record = json.loads((folder / RECORD).read_text(encoding="utf-8")) | {"version": number}
        if "export_id" in record:
            record["export_id"] = export_id
        if model == ENSEMBLE:
            record["calibrated"] = {"copy_of": version, **facts}
            if drift is not None:
                record[DRIFT] = drift.describe()
        write(folder / RECORD, json.dumps(record, indent=2) + "\n")
    staged.configs = {model: as_text(config) for model, config in configs.items()}
    for model, text in staged.configs.items():
        write(staged.version_folder(ENSEMBLE) / CONFIGS / f"{model}.pbtxt", text)
    return export_id


def _renumber(configs: Configs, version: int, number: int) -> None:
    for config in configs.values():
        config.version_policy.specific.versions[:] = [number]
        for output in config.output:
            if output.label_filename.startswith(f"{version}/"):
                output.label_filename = f"{number}/{output.label_filename.partition('/')[2]}"
        for step in config.ensemble_scheduling.step:
            step.model_version = number
