"""The export: adds a new version to the model repository.

`export` runs the networks in the caller's process, which they can crash. The commands run them in a separate process
(see `network_process`) and use `add_version`, which needs no PyTorch.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .repository.config import DRIFT
from .repository.signature import Signature
from .repository.staging import Staging, add, choose_number, staging
from .repository.versions import RECORD, locked, writing
from .spec import ENSEMBLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .checking.outcome import Checked
    from .repository.staging import Written
    from .spec import NetworkPlan, Plan


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        repository: The model repository.
        version: The version's number, the same for every network and the ensemble.
        export_id: The id of this export; clients send it with their requests.
        networks: Network name → the record in its `export.json`.
        skipped: Unreadable files in the folder of photos → the reason; see `PhotoFolder`.
    """

    repository: Path
    version: int
    export_id: str
    networks: dict[str, dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)


def export(
    plan: Plan,
    repository: Path,
    *,
    version: int | None = None,
    progress: Callable[[str], None] = lambda _step: None,
    deliver: Callable[[Path, int], None] | None = None,
    signature: Signature | None = None,
) -> Export:
    """Exports every network, compares it with PyTorch, and adds all of them to the repository as one version.

    Args:
        plan: What to export.
        repository: The model repository; created if it is missing.
        version: The version's number; the next free one by default.
        progress: Called with a few words at the start of each step.
        deliver: See `add_version`.
        signature: See `add_version`.

    Raises:
        ExportError: The export failed; the repository is unchanged.
        ServingError: The signature is invalid, or its key cannot be used; the repository is unchanged.
    """
    from .networks import write_networks

    def write(staged: Staging) -> Written:
        return write_networks(plan, staged, progress)

    return add_version(plan, repository, write, version=version, deliver=deliver, signature=signature)


def add_version(
    plan: Plan,
    repository: Path,
    write: Callable[[Staging], Written],
    *,
    version: int | None = None,
    deliver: Callable[[Path, int], None] | None = None,
    checked: Checked | None = None,
    signature: Signature | None = None,
) -> Export:
    """Adds a version to the repository.

    Args:
        plan: What is exported.
        repository: The model repository; created if it is missing.
        write: Writes the networks into a staging folder, like `networks.write_networks`.
        version: The version's number; the next free one by default.
        deliver: Called with the repository and the number once the version is in the repository, to serve it now. If it
            raises, the version is withdrawn. By default, Triton serves the version when it starts.
        checked: The results on labelled photos, for the record.
        signature: The repository's; by default, it must have none.

    Raises:
        ExportError: The export failed; the repository is unchanged.
        ServingError: The signature is invalid, or its key cannot be used; the repository is unchanged.
    """
    signature = signature or Signature(repository)
    with staging(repository, [network.name for network in plan.networks]) as staged:
        written = write(staged)
        repository.mkdir(parents=True, exist_ok=True)
        with locked(repository), signature.renewed():
            export = _complete(plan, repository, staged, written, version, checked)
            add(staged, repository, export.version, signature, deliver)
    return export


def dry_run(
    plan: Plan,
    repository: Path,
    write: Callable[[Staging], Written],
    *,
    version: int | None = None,
    checked: Checked | None = None,
) -> Export:
    """Does everything that `add_version` does, with the same arguments, in a temporary folder.

    The repository is unchanged.

    Raises:
        ExportError: The export would fail.
    """
    with tempfile.TemporaryDirectory(prefix="car-analyzer-export-") as folder, writing(Path(folder)):
        staged = Staging(Path(folder), [network.name for network in plan.networks])
        return _complete(plan, repository, staged, write(staged), version, checked)


def _complete(
    plan: Plan, repository: Path, staged: Staging, written: Written, version: int | None, checked: Checked | None
) -> Export:
    """Writes everything but the networks into the staging folder."""
    records = {
        network.name: written.records[network.name] | _describe_check(network, checked) for network in plan.networks
    }
    number = choose_number(repository, staged.models, version)
    models = {name: facts["onnx"]["sha256"] for name, facts in records.items()}
    maps = {head: shape for facts in records.values() for head, shape in facts.get("maps", {}).items()}
    drift = checked.drift if checked is not None else None
    export_id = staged.write(plan, number, models, maps, drift)
    for name, facts in records.items():
        _write_record(staged.version_folder(name), {"model": name, "version": number, **facts})
    summary = {"model": ENSEMBLE, "version": number, "export_id": export_id, "models": models}
    if plan.explain:
        summary["explain"] = {head.name: "map" if head.name in maps else "occlusion" for head, _ in plan.heads()}
    if drift is not None:
        summary[DRIFT] = drift.describe()
    _write_record(staged.version_folder(ENSEMBLE), summary | plan.about)
    return Export(repository, number, export_id, records, {**plan.skipped, **written.skipped})


def _describe_check(network: NetworkPlan, checked: Checked | None) -> dict[str, Any]:
    heads = checked.heads if checked is not None else {}
    found = {head.name: heads[head.name] for head in network.heads if head.name in heads}
    return {"checked": found} if found else {}


def _write_record(folder: Path, facts: dict[str, Any]) -> None:
    (folder / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
