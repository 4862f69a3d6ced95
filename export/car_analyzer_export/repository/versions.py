"""The versions in a model repository, and which of them Triton serves when it starts.

Each model has a folder for each version. The ensemble's holds the files of the version as a whole: the record of the
export, the configurations of all models, and the reference photos. The `config.pbtxt` of each model names the version
that is served.

The ensemble with class activation maps is in the repository only while a version that has maps is served: Triton loads
every model when it starts, and this one needs the steps of its version.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from car_analyzer_server import signals

from ..errors import PublishError
from ..spec import ENSEMBLE, EXPLAIN
from .config import as_text
from .side_by_side import IncompatibleError, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Configs = dict[str, Any]

CONFIGS = "configs"
# The folder, and the JSON file, of the reference photos.
REFERENCES = "known"
RECORD = "export.json"
# Marks a withdrawn version: its number is never used again, since clients cache the labels of versions.
WITHDRAWN = "withdrawn.json"
# Marks a version that is being published. If it is there without a running publication, the process was killed.
UNFINISHED = "unfinished"
HISTORY = "served.json"
# Where the ensemble with maps is assembled, and put aside; Triton ignores it, and so do signatures.
_ASIDE = f"{ENSEMBLE}/.{EXPLAIN}.export-"


def exported(model: Path) -> set[int]:
    """The numbers of a model's versions, without folders that hold only labels, as in a clean checkout."""
    return {
        int(folder.name)
        for folder in model.glob("*")
        if folder.name.isdecimal() and any(not file.name.endswith("labels.txt") for file in folder.glob("*"))
    }


def complete(repository: Path) -> list[int]:
    """The versions that can be served, the lowest first."""
    return sorted(
        number for number in exported(repository / ENSEMBLE) if (_folder(repository, number) / CONFIGS).is_dir()
    )


def configs_of(repository: Path, version: int) -> Configs:
    """A version's configurations: model → `ModelConfig`. If it is served, includes changes made by hand.

    Raises:
        PublishError: There is no such version, or its configurations were not stored.
    """
    return {name: _parse(text, name) for name, text in _texts_of(repository, version).items()}


def _texts_of(repository: Path, version: int) -> dict[str, str]:
    folder = _folder(repository, version)
    stored = {file.stem: _read(file) for file in sorted((folder / CONFIGS).glob("*.pbtxt"))}
    if stored and on_disk(repository) == version:
        return {name: _read(repository / name / "config.pbtxt") for name in stored}
    if stored:
        return stored
    available = ", ".join(map(str, complete(repository))) or "none"
    if (folder / RECORD).is_file():
        raise PublishError(
            f"Version {version} in {repository} is of an older car-analyzer, which did not store its configurations; "
            f"export it again. Versions to switch to: {available}."
        )
    raise PublishError(f"{repository} has no version {version}. Versions to switch to: {available}.")


def on_disk(repository: Path) -> int | None:
    """The version that all configurations name; None if they name none, or different ones."""
    try:
        ensemble = config_on_disk(repository, ENSEMBLE)
        version = pinned(ensemble)
        stored = _folder(repository, version) / CONFIGS / f"{ENSEMBLE}.pbtxt" if version is not None else None
        if stored is None or not stored.is_file():
            return None
        # The configurations of a clean checkout name version 1, too, but no export.
        if export_id(ensemble) != export_id(_parse(_read(stored), ENSEMBLE)):
            return None
        explaining = [EXPLAIN] if stored.with_name(f"{EXPLAIN}.pbtxt").is_file() else []
        models = [config_on_disk(repository, name) for name in (*steps({ENSEMBLE: ensemble}), *explaining)]
        return version if all(list(model.version_policy.specific.versions) == [version] for model in models) else None
    except PublishError:
        return None


def export_id(ensemble: Any) -> str:
    """The id of the export that an ensemble's configuration belongs to; empty for an older export."""
    return str(ensemble.parameters["export_id"].string_value) if "export_id" in ensemble.parameters else ""


def pinned(ensemble: Any) -> int | None:
    """The one version that an ensemble's configuration names for itself and all steps; None if there are several."""
    versions = {step.model_version for step in ensemble.ensemble_scheduling.step}
    versions.update(ensemble.version_policy.specific.versions)
    return versions.pop() if len(versions) == 1 and min(versions) > 0 else None


def serve_from_next_start(repository: Path, version: int) -> None:
    """Writes a version into the configurations, so that Triton serves it when it starts. Does not affect a running one.

    A Triton that starts meanwhile serves either the complete old version or the complete new one.

    Raises:
        PublishError: There is no such version.
        OSError: The repository cannot be written. It is unchanged.
    """
    new = configs_of(repository, version)
    texts = _texts_of(repository, version)
    before = on_disk(repository)
    with signals.deferred(), contextlib.ExitStack() as undo:
        if before is not None and before != version:
            keep_changes(repository, before, undo)
        for name in steps(new):
            _replace(repository / name / "config.pbtxt", _merged(repository, name, new[name]) or texts[name], undo)
        _explain(repository, version, texts.get(EXPLAIN), undo)
        for name in (ENSEMBLE, *steps(new)):
            _replace(repository / name / "config.pbtxt", texts[name], undo)
        undo.pop_all()
        shutil.rmtree(repository / f"{_ASIDE}old", ignore_errors=True)


def _explain(repository: Path, version: int, text: str | None, undo: contextlib.ExitStack) -> None:
    """Makes the ensemble with maps serve a version or, without its configuration, removes it."""
    model, aside = repository / EXPLAIN, repository / f"{_ASIDE}old"
    if text is None:
        if model.exists():
            shutil.rmtree(aside, ignore_errors=True)
            model.rename(aside)
            undo.callback(aside.rename, model)
        return
    new = repository / f"{_ASIDE}new"
    shutil.rmtree(new, ignore_errors=True)
    # A model without a configuration keeps Triton from starting, so it comes and goes in one rename.
    place = model if model.exists() else new
    for labels in _folder(repository, version).glob("*_labels.txt"):
        write(place / str(version) / labels.name, _read(labels))
    _replace(place / "config.pbtxt", text, undo)
    if place == new:
        new.rename(model)
        undo.callback(model.rename, new)


def keep_changes(repository: Path, version: int, undo: contextlib.ExitStack) -> None:
    """Stores the current configurations with their version, including changes made by hand."""
    for name, text in _texts_of(repository, version).items():
        _replace(_folder(repository, version) / CONFIGS / f"{name}.pbtxt", text, undo)


def _merged(repository: Path, model: str, new: Any) -> str | None:
    """The configuration for both the current and the new version, for the time of the switch."""
    try:
        return as_text(side_by_side(config_on_disk(repository, model), new))
    except (PublishError, IncompatibleError):
        return None  # there is no current version, or the two are incompatible


def widen(repository: Path, configs: Configs) -> None:
    """Writes configurations of steps that name both the served and another version."""
    with signals.deferred():
        for name, config in configs.items():
            write(repository / name / "config.pbtxt", as_text(config))


def steps(configs: Configs) -> list[str]:
    """The models of a version without the ensemble, in the order of its steps."""
    return list(dict.fromkeys(step.model_name for step in configs[ENSEMBLE].ensemble_scheduling.step))


def remember(repository: Path, version: int, before: int | None) -> None:
    """Records which version a version replaced."""
    if before is not None and before != version:
        write(_folder(repository, version) / HISTORY, json.dumps({"replaced": before}) + "\n")


def version_before(repository: Path, version: int) -> int:
    """The version that a version replaced; if that was not recorded, the next lower one.

    Raises:
        PublishError: There is none, or it was removed.
    """
    versions = complete(repository)
    try:
        before = int(json.loads((_folder(repository, version) / HISTORY).read_text(encoding="utf-8"))["replaced"])
    except (OSError, ValueError, KeyError, TypeError):
        lower = [number for number in versions if number < version]
        if not lower:
            others = ", ".join(str(number) for number in versions if number != version)
            choice = f" Choose one with --to: {others}." if others else ""
            raise PublishError(f"No version was served before version {version} in {repository}.{choice}") from None
        return lower[-1]
    if before not in versions:
        others = ", ".join(str(number) for number in versions if number != version) or "none"
        raise PublishError(
            f"Version {before}, which was served before version {version}, was removed from {repository}. "
            f"Choose another with --to; available: {others}."
        )
    return before


def withdraw(repository: Path, version: int, reason: str) -> None:
    """Marks a version as withdrawn, so that its number is never used again."""
    write(_folder(repository, version) / WITHDRAWN, json.dumps({"version": version, "reason": reason}, indent=2) + "\n")


def clean_up(repository: Path, served: int, but: int | None) -> None:
    """Withdraws the versions of killed publications; the repository must be locked.

    Args:
        repository: The model repository.
        served: The version that Triton serves.
        but: The version that is being published now.
    """
    for marker in repository.glob(f"{ENSEMBLE}/*/{UNFINISHED}"):
        version = int(marker.parent.name)
        if version == but:
            continue
        if version == served:  # it was killed after the switch
            marker.unlink()
            continue
        with writing(repository):
            if on_disk(repository) != served:
                serve_from_next_start(repository, served)
            remove(repository, version)
            withdraw(repository, version, "The publication was killed.")


def prune(repository: Path, keep: int, needed: set[int]) -> list[int]:
    """Removes all but the newest versions; the repository must be locked.

    Args:
        repository: The model repository.
        keep: How many to keep.
        needed: Versions to keep in any case.

    Returns:
        The removed versions.
    """
    removed = [version for version in complete(repository)[:-keep] if version not in needed]
    for version in removed:
        remove(repository, version)
    return removed


def remove(repository: Path, version: int) -> None:
    """Removes a version from all models; it must not be served."""
    # The ensemble's folder first: without it, the version does not exist.
    shutil.rmtree(_folder(repository, version), ignore_errors=True)
    for folder in sorted(repository.glob(f"*/{version}")):
        _rename_version(repository, folder.parent, version)
        shutil.rmtree(folder, ignore_errors=True)


def _rename_version(repository: Path, model: Path, version: int) -> None:
    """Makes the configuration of a model that is not served name a version that remains: Triton loads every model."""
    if list(config_on_disk(repository, model.name).version_policy.specific.versions) != [version]:
        return
    for other in reversed(complete(repository)):
        file = _folder(repository, other) / CONFIGS / f"{model.name}.pbtxt"
        if file.is_file() and (model / str(other)).is_dir():
            write(model / "config.pbtxt", _read(file))
            return
    shutil.rmtree(model, ignore_errors=True)


@contextlib.contextmanager
def writing(repository: Path) -> Iterator[None]:
    """Raises PublishError if the body cannot write to the repository."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PublishError(f"The model repository {repository} cannot be written: {reason}.") from error


def write(path: Path, text: str) -> None:
    """Writes a file atomically: a reader gets either the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _replace(path: Path, text: str, undo: contextlib.ExitStack) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before == text:
        return
    write(path, text)
    if before is None:
        undo.callback(path.unlink)
    else:
        undo.callback(write, path, before)


def _folder(repository: Path, version: int) -> Path:
    return repository / ENSEMBLE / str(version)


def config_on_disk(repository: Path, model: str) -> Any:
    """A model's current `ModelConfig`.

    Raises:
        PublishError: It is missing or cannot be read.
    """
    file = repository / model / "config.pbtxt"
    return _parse(_read(file), str(file))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{file} cannot be read: {error}.") from error


def _parse(text: str, where: str) -> Any:
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise PublishError(f"The configuration of {where} cannot be read: {error}.") from error


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock on a folder until the body is done or the process ends.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is False.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
