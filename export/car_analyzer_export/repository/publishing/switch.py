"""Switches from the served version to another one.

This relies on the following behaviour of Triton (observed on 2.51, and confirmed in its source):

- Loading a model again with more versions does not affect the served ones. If the new version cannot be loaded,
  nothing changes. Ensembles of which the model is a step are reloaded without a gap.
- Loading an ensemble also checks the files of its steps, and reloads steps that changed (a preprocess step changes when
  Python writes its bytecode), with the configuration on disk. So the steps' configurations on disk must name both
  versions by then. They must not name them before both were loaded: a Triton that starts meanwhile could fail on the
  new one.
- An ensemble is unloaded when one of its steps is. So the old versions of the steps are unloaded last.
- A model that is replaced completes its requests, but looks up a version of a step only when it needs that step.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from car_analyzer_server import signals

from ...errors import PublishError, TritonRequestError
from ...spec import ENSEMBLE, EXPLAIN, PREPROCESS
from ..side_by_side import IncompatibleError, side_by_side
from ..versions import (
    config_on_disk,
    configs_of,
    export_id,
    keep_changes,
    on_disk,
    pinned,
    remember,
    serve_from_next_start,
    steps,
    widen,
    writing,
)
from .control import TRIAL
from .reference_check import check_files, read_references

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..versions import Configs
    from .control import Triton

# For the time outside of queues: decoding, the networks, the network connection.
_RUN_SECONDS = 5.0


def check_served(triton: Triton, repository: Path) -> int:
    """Makes sure that a Triton serves a version of this repository that can be replaced.

    Returns:
        The version that it serves.

    Raises:
        PublishError: It serves no version, one of another repository, or one that cannot be replaced without a gap.
    """
    version = triton.served()
    if version is None:
        raise TritonRequestError(
            f"Triton at {triton.url} serves no '{ENSEMBLE}', so there is nothing to replace; start it on a repository "
            "with an exported version, with `car-analyzer serve`."
        )
    if pinned(triton.config(ENSEMBLE, version)) != version:
        raise PublishError(
            f"Version {version}, which Triton at {triton.url} serves, is of an older car-analyzer, whose versions "
            "cannot be switched live. Run `car-analyzer export`, and restart Triton once."
        )
    try:
        read_references(repository, version).check(triton, ENSEMBLE)
    except TritonRequestError:
        raise
    except PublishError as error:
        raise PublishError(
            f"Triton at {triton.url} does not serve the files in {repository}: --repository must be the very folder "
            f"that it serves. {error}"
        ) from error
    return version


@dataclass
class Switch:
    """One change of the served version.

    Attributes:
        triton: The running Triton.
        repository: The model repository that it serves.
        before: The version that was served.
        version: The version to serve.
        back: This is a rollback, so the next rollback restores the version that `version` once replaced.
        photos: How many reference photos it answered.
        difference: The largest difference of a logit from the recorded one.
        notes: Sentences for the user.
        sign: Renews the repository's signature, so that a Triton that starts meanwhile accepts the repository.
        shadow: Compares both versions on real photos, with their export ids, while the new one is loaded as `TRIAL`.
            Raises PublishError to reject it.
    """

    triton: Triton
    repository: Path
    before: int
    version: int
    back: bool = False
    photos: int = 0
    difference: float = 0.0
    notes: list[str] = field(default_factory=list)
    sign: Callable[[], None] = lambda: None
    shadow: Callable[[str, str], None] | None = None

    def run(self, progress: Callable[[str], None] = lambda _step: None) -> None:
        """Switches to the version.

        Raises:
            PublishError: The switch failed. The old version is still served, in Triton and on disk.
            KeyboardInterrupt: Likewise.
        """
        old, new, both = self._prepare()
        # None after a process was killed; another version if one was exported since Triton started.
        on_disk_before = on_disk(self.repository) or self.before
        unused = {name: config_on_disk(self.repository, name) for name in steps(new) if name not in old}
        try:
            progress(f"loading version {self.version} beside version {self.before}")
            for name in steps(new):
                self.triton.load(both[name])
            progress(f"checking version {self.version} on reference photos")
            with writing(self.repository):
                serve_from_next_start(self.repository, self.before)
                keep_changes(self.repository, self.before, contextlib.ExitStack())
                widen(self.repository, both)
            self.sign()
            self._try(old, new, progress)
            progress(f"switching to version {self.version}")
            with writing(self.repository):
                serve_from_next_start(self.repository, self.version)
                widen(self.repository, both)
            self.sign()
            self._serve(new)
            with writing(self.repository):
                if not self.back:
                    remember(self.repository, self.version, self.before)
        except BaseException as error:
            with signals.deferred():
                failure = self._restore(old, new, on_disk_before, unused)
            if failure and isinstance(error, PublishError):
                raise type(error)(f"{error} {failure}") from error
            raise
        self._unload_old(old, new, progress)

    def _prepare(self) -> tuple[Configs, Configs, Configs]:
        """Checks both versions; returns the configurations before, after, and in between."""
        if self.version == self.before:
            raise PublishError(f"Version {self.version} is already served.")
        check_served(self.triton, self.repository)
        old, new = configs_of(self.repository, self.before), configs_of(self.repository, self.version)
        check_files(self.repository, self.version)
        # If their number is left open, `serve` has chosen it for its machine: the processes remain as many.
        (served,) = self.triton.config(PREPROCESS, self.before).instance_group
        for configs in (old, new):
            for group in configs[PREPROCESS].instance_group:
                group.count = group.count or served.count
        return old, new, self._both(old, new)

    def _both(self, old: Configs, new: Configs) -> Configs:
        try:
            return _merged(old, new)
        except IncompatibleError as error:
            raise PublishError(
                f"Versions {self.before} and {self.version} cannot be loaded side by side: {error}. To serve version "
                f"{self.version}, run `car-analyzer export` and restart Triton, one replica after the other."
            ) from error

    def _try(self, old: Configs, new: Configs, progress: Callable[[str], None]) -> None:
        references = read_references(self.repository, self.version)
        self.triton.load_trial(new[ENSEMBLE])
        self.difference = references.check(self.triton, TRIAL)
        self.photos = len(references.photos)
        if self.shadow is not None:
            progress(f"comparing version {self.version} with version {self.before} on real photos")
            self.shadow(export_id(old[ENSEMBLE]), export_id(new[ENSEMBLE]))
        self.triton.unload(TRIAL)

    def _serve(self, new: Configs) -> None:
        self._load_ensembles(new)
        references = read_references(self.repository, self.version)
        self.difference = max(self.difference, references.check(self.triton, ENSEMBLE))

    def _load_ensembles(self, configs: Configs) -> None:
        for name in (ENSEMBLE, EXPLAIN):
            if name in configs:
                self.triton.load(configs[name])

    def _restore(self, old: Configs, new: Configs, on_disk_before: int, unused: Configs) -> str | None:
        """Restores the previous version in Triton and on disk; returns a sentence if that fails."""
        failure = None
        try:
            if self.triton.served() != self.before:
                self._load_ensembles(old)
                self.triton.wait_until_gone(ENSEMBLE, self.version)
            # Only now: an ensemble is unloaded with its steps.
            self.triton.unload(TRIAL)
            for name in steps(new):
                if name in old:
                    self.triton.load(old[name])
                else:
                    self.triton.unload(name)
        except PublishError as error:
            failure = f"Restoring version {self.before} in the running Triton failed, too: {error}"
        try:
            serve_from_next_start(self.repository, on_disk_before)
            widen(self.repository, unused)
        except (OSError, PublishError) as error:
            return f"{failure or ''} Version {on_disk_before} could not be restored in {self.repository}: {error}"
        return failure

    def _unload_old(self, old: Configs, new: Configs, progress: Callable[[str], None]) -> None:
        """Unloads the old version once its last request is answered. The new version is served by now."""
        try:
            with signals.deferred():
                serve_from_next_start(self.repository, self.version)
            self.sign()
            progress(f"version {self.version} is served; waiting for the last requests of version {self.before}")
            # Triton reports when the ensemble is unloaded, but not its instances that loading the steps has replaced.
            time.sleep(_longest(old))
            for name in (ENSEMBLE, EXPLAIN):
                if not self.triton.wait_until_gone(name, self.before):
                    raise TritonRequestError("It still has requests.")
            for name in steps(new):
                self.triton.load(new[name])
            for name in set(steps(old)) - set(steps(new)):
                self.triton.unload(name)
        except (OSError, PublishError) as error:
            self.notes.append(f"Version {self.before} is still in memory. {error}")
        except KeyboardInterrupt:
            self.notes.append(f"Interrupted before version {self.before} was unloaded; it is still in memory.")


def _merged(old: Configs, new: Configs) -> Configs:
    if (EXPLAIN in old) != (EXPLAIN in new):
        raise IncompatibleError("only one of them was exported with --explain, and has class activation maps")
    return {name: side_by_side(old[name], new[name]) if name in old else new[name] for name in steps(new)}


def _longest(configs: Configs) -> float:
    """The longest time that a request can take, in seconds, including the timeout of each queue."""
    queues = {name: _queue_seconds(configs[name]) for name in steps(configs)}
    first, *others = queues.values()
    return first + max(others, default=0.0) + _RUN_SECONDS


def _queue_seconds(config: Any) -> float:
    microseconds = config.dynamic_batching.default_queue_policy.default_timeout_microseconds
    return microseconds / 1e6 if microseconds else 30.0
