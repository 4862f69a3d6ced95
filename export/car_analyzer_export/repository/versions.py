"""What lies in a model repository: its versions, and which of them a Triton that starts now would serve.

A version's files lie in the folders of its number, one in each of its models. The ensemble's holds what is the
version's as a whole: the record of the export, the configurations of all models, and photos with known answers.
Configurations beside the version folders say which version is served.
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

from ..errors import PublishError
from ..interrupts import held_back
from ..spec import ENSEMBLE
from .config import as_text
from .side_by_side import IncompatibleError, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Configs = dict[str, Any]

CONFIGS = "configs"
KNOWN = "known"
RECORD = "export.json"
# Of a version that was taken back: its number is never given again, since clients remember what versions mean.
WITHDRAWN = "withdrawn.json"
# Of a version that is being published. If it is still there when nobody publishes, the process was killed.
UNFINISHED = "unfinished"
_HISTORY = "served.json"


def exported(model: Path) -> set[int]:
    """The numbers of a model's versions; a folder with labels only is what a clean checkout has."""
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
    """A version's configurations: model → `ModelConfig`. While it is served, with what was changed by hand.

    Raises:
        PublishError: There is no such version, or it cannot be served by number.
    """
    return {name: _parse(text, name) for name, text in _texts_of(repository, version).items()}


def _texts_of(repository: Path, version: int) -> dict[str, str]:
    folder = _folder(repository, version)
    stored = {file.stem: _read(file) for file in sorted((folder / CONFIGS).glob("*.pbtxt"))}
    if stored and on_disk(repository) == version:
        return {name: _read(repository / name / "config.pbtxt") for name in stored}
    if stored:
        return stored
    there = ", ".join(map(str, complete(repository))) or "none"
    if (folder / RECORD).is_file():
        raise PublishError(
            f"Version {version} in {repository} is of an older car-analyzer, which did not keep what is needed to "
            f"switch to it; export it again. Versions to switch to: {there}."
        )
    raise PublishError(f"{repository} has no version {version}. Versions to switch to: {there}.")


def on_disk(repository: Path) -> int | None:
    """The version that the configurations name; None if none, or not all the same one."""
    try:
        ensemble = config_on_disk(repository, ENSEMBLE)
        version = pinned(ensemble)
        if version is None or not (_folder(repository, version) / CONFIGS).is_dir():
            return None
        models = [config_on_disk(repository, name) for name in steps({ENSEMBLE: ensemble})]
        return version if all(list(model.version_policy.specific.versions) == [version] for model in models) else None
    except PublishError:
        return None


def pinned(ensemble: Any) -> int | None:
    """The one version that an ensemble and all of its steps are of; None if they can be of several."""
    versions = {step.model_version for step in ensemble.ensemble_scheduling.step}
    versions.update(ensemble.version_policy.specific.versions)
    return versions.pop() if len(versions) == 1 and min(versions) > 0 else None


def serve_from_next_start(repository: Path, version: int) -> None:
    """Makes the configurations name a version, so that a Triton that starts serves it. A running one does not notice.

    At every moment in between, a Triton that starts serves the old version whole, or the new one.

    Raises:
        PublishError: There is no such version.
        OSError: The repository cannot be written. It is as it was.
    """
    new = configs_of(repository, version)
    texts = _texts_of(repository, version)
    before = on_disk(repository)
    with held_back(), contextlib.ExitStack() as undo:
        if before is not None and before != version:
            keep_changes(repository, before, undo)
        for name in steps(new):
            _replace(repository / name / "config.pbtxt", _joined(repository, name, new[name]) or texts[name], undo)
        for name in (ENSEMBLE, *steps(new)):
            _replace(repository / name / "config.pbtxt", texts[name], undo)
        undo.pop_all()


def keep_changes(repository: Path, version: int, undo: contextlib.ExitStack) -> None:
    """Keeps with a version what was changed by hand in its configurations while they are those on disk."""
    for name, text in _texts_of(repository, version).items():
        _replace(_folder(repository, version) / CONFIGS / f"{name}.pbtxt", text, undo)


def _joined(repository: Path, model: str, new: Any) -> str | None:
    """For the moment between: the configuration of what is served now and what will be."""
    try:
        return as_text(side_by_side(config_on_disk(repository, model), new))
    except (PublishError, IncompatibleError):
        return None  # nothing is served, or there is no such configuration


def widen(repository: Path, configs: Configs) -> None:
    """Writes configurations of steps that name several versions, among them the one that the ensemble's names."""
    with held_back():
        for name, config in configs.items():
            write(repository / name / "config.pbtxt", as_text(config))


def steps(configs: Configs) -> list[str]:
    """The models of a version without the ensemble, in the order of its steps."""
    return list(dict.fromkeys(step.model_name for step in configs[ENSEMBLE].ensemble_scheduling.step))


def remember(repository: Path, version: int, before: int | None) -> None:
    """Notes which version a version took the place of."""
    if before is not None and before != version:
        write(_folder(repository, version) / _HISTORY, json.dumps({"replaced": before}) + "\n")


def version_before(repository: Path, version: int) -> int:
    """The version that was served before a version.

    Raises:
        PublishError: There is none, or it is gone.
    """
    versions = complete(repository)
    try:
        before = int(json.loads((_folder(repository, version) / _HISTORY).read_text(encoding="utf-8"))["replaced"])
    except (OSError, ValueError, KeyError, TypeError):
        lower = [number for number in versions if number < version]
        if not lower:
            others = ", ".join(str(number) for number in versions if number != version)
            choice = f" Choose one with --to: {others}." if others else ""
            raise PublishError(f"No version was served before version {version} in {repository}.{choice}") from None
        return lower[-1]
    if before not in versions:
        there = ", ".join(str(number) for number in versions if number != version) or "none"
        raise PublishError(
            f"Version {before}, which was served before version {version}, is not in {repository} any more. "
            f"Choose another with --to; there are: {there}."
        )
    return before


def withdraw(repository: Path, version: int, reason: str) -> None:
    """Leaves a note in the place of a version that was taken back, so that nothing else ever gets its number."""
    write(_folder(repository, version) / WITHDRAWN, json.dumps({"version": version, "reason": reason}, indent=2) + "\n")


def clean_up(repository: Path, served: int, but: int | None) -> None:
    """Withdraws what killed publications left; the repository must be locked.

    Args:
        repository: The model repository.
        served: The version that Triton serves.
        but: The version that is being published now.
    """
    for marker in repository.glob(f"{ENSEMBLE}/*/{UNFINISHED}"):
        version = int(marker.parent.name)
        if version == but:
            continue
        if version == served:  # it got as far as that
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
        The versions that were removed.
    """
    removed = [version for version in complete(repository)[:-keep] if version not in needed]
    for version in removed:
        remove(repository, version)
    return removed


def remove(repository: Path, version: int) -> None:
    """Removes a version from all models; nothing may serve it."""
    # The ensemble's folder first: without it, there is no such version.
    shutil.rmtree(_folder(repository, version), ignore_errors=True)
    for folder in sorted(repository.glob(f"*/{version}")):
        _name_another(repository, folder.parent, version)
        shutil.rmtree(folder, ignore_errors=True)


def _name_another(repository: Path, model: Path, version: int) -> None:
    """Has a model that the served version does not need name a version that stays: Triton loads every model."""
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
    """Says in a sentence when the repository cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PublishError(f"The model repository {repository} cannot be written: {reason}.") from error


def write(path: Path, text: str) -> None:
    """Writes a file so that whoever reads it at any time reads all of the old one or all of the new one."""
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
    """A model's `ModelConfig` as it is now.

    Raises:
        PublishError: There is none that can be read.
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
    """Keeps others out that lock the same folder, until the body is done or the process is gone.

    Raises:
        BlockingIOError: Somebody holds it, and `wait` is False.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
