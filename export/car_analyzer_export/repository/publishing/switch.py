"""From the served version to another one.

Facts about Triton that this rests on (seen on 2.51, and so in its source):

- Loading a model again with more versions leaves the served ones as they are. If the new one cannot be loaded, nothing
  changes. Ensembles of which it is a step are loaded again, without a gap.
- Loading an ensemble looks at the files of its steps, too, and loads those that changed (a preprocess step does, when
  Python keeps its bytecode), by the configuration on disk. So the steps' configurations on disk must name both versions
  by then; and not before both were loaded, or a Triton that starts meanwhile could stumble over the new one.
- An ensemble whose steps are not all loaded is taken out of service. So a version of a step goes last.
- A model that is replaced finishes what it was asked, but asks its steps for their versions only when it needs them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ControlError, PublishError
from ...interrupts import held_back
from ...spec import ENSEMBLE
from ..side_by_side import IncompatibleError, side_by_side
from ..versions import (
    config_on_disk,
    configs_of,
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
from .known import check_files, read_known

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..versions import Configs
    from .control import Triton

# For what runs in no queue: decoding, the networks, the answer's way.
_RUN_SECONDS = 5.0


def check_served(triton: Triton, repository: Path) -> int:
    """Makes sure that what a Triton serves can be replaced by what lies in a repository.

    Returns:
        The version that it serves.

    Raises:
        PublishError: It serves nothing, something else, or something that cannot be replaced without a gap.
    """
    version = triton.served()
    if version is None:
        raise ControlError(
            f"Triton at {triton.url} serves no '{ENSEMBLE}', so there is nothing to replace; start it on a repository "
            "with an exported version, with `car-analyzer serve`."
        )
    if pinned(triton.config(ENSEMBLE, version)) != version:
        raise PublishError(
            f"Version {version}, which Triton at {triton.url} serves, is of an older car-analyzer, whose versions "
            "cannot be held apart while they change. Run `car-analyzer export`, and restart Triton once."
        )
    try:
        read_known(repository, version).ask(triton, ENSEMBLE)
    except ControlError:
        raise
    except PublishError as error:
        raise PublishError(
            f"Triton at {triton.url} does not serve what lies in {repository}: --repository must be the very folder "
            f"that it serves. {error}"
        ) from error
    return version


@dataclass
class Switch:
    """One change of the served version.

    Attributes:
        before: The version that was served.
        version: The version that is to be served.
        back: It is an earlier one, so that going back from it leads to what was before it, and not forth again.
        photos: How many known photos it answered.
        difference: The largest difference of a logit from what was recorded.
        notes: What else a user should know, in sentences.
    """

    triton: Triton
    repository: Path
    before: int
    version: int
    back: bool = False
    photos: int = 0
    difference: float = 0.0
    notes: list[str] = field(default_factory=list)

    def run(self, progress: Callable[[str], None] = lambda _step: None) -> None:
        """Makes the version the served one.

        Raises:
            PublishError: It is not, and why. The old one is served as before, in Triton and on disk.
            KeyboardInterrupt: Likewise.
        """
        old, new, both = self._prepare()
        # None: what a killed process left. Another one: exported since Triton started.
        on_disk_before = on_disk(self.repository) or self.before
        unused = {name: config_on_disk(self.repository, name) for name in steps(new) if name not in old}
        try:
            progress(f"loading version {self.version} beside version {self.before}")
            for name in steps(new):
                self.triton.load(both[name])
            progress(f"trying version {self.version} on known photos")
            with writing(self.repository):
                serve_from_next_start(self.repository, self.before)
                keep_changes(self.repository, self.before, contextlib.ExitStack())
                widen(self.repository, both)
            self._try(new)
            progress(f"switching to version {self.version}")
            with writing(self.repository):
                serve_from_next_start(self.repository, self.version)
                widen(self.repository, both)
            self._serve(new)
            with writing(self.repository):
                if not self.back:
                    remember(self.repository, self.version, self.before)
        except BaseException as error:
            with held_back():
                trouble = self._go_back(old, new, on_disk_before, unused)
            if trouble and isinstance(error, PublishError):
                raise type(error)(f"{error} {trouble}") from error
            raise
        self._let_go(old, new, progress)

    def _prepare(self) -> tuple[Configs, Configs, Configs]:
        """The configurations before, after, and in between, once everything is known to be in order."""
        if self.version == self.before:
            raise PublishError(f"Version {self.version} is served already.")
        check_served(self.triton, self.repository)
        old, new = configs_of(self.repository, self.before), configs_of(self.repository, self.version)
        check_files(self.repository, self.version)
        return old, new, self._both(old, new)

    def _both(self, old: Configs, new: Configs) -> Configs:
        try:
            return {name: side_by_side(old[name], new[name]) if name in old else new[name] for name in steps(new)}
        except IncompatibleError as error:
            raise PublishError(
                f"Versions {self.before} and {self.version} cannot be loaded side by side: {error}. To serve version "
                f"{self.version}, have the repository name it (`car-analyzer export` does) and restart Triton, one "
                "replica after the other."
            ) from error

    def _try(self, new: Configs) -> None:
        known = read_known(self.repository, self.version)
        self.triton.load_trial(new[ENSEMBLE])
        self.difference = known.ask(self.triton, TRIAL)
        self.photos = len(known.photos)
        self.triton.unload(TRIAL)

    def _serve(self, new: Configs) -> None:
        self.triton.load(new[ENSEMBLE])
        known = read_known(self.repository, self.version)
        self.difference = max(self.difference, known.ask(self.triton, ENSEMBLE))

    def _go_back(self, old: Configs, new: Configs, on_disk_before: int, unused: Configs) -> str | None:
        """Restores what was served; what is in the way of it, in a sentence."""
        try:
            if self.triton.served() != self.before:
                self.triton.load(old[ENSEMBLE])
                self.triton.wait_until_gone(ENSEMBLE, self.version)
            # Never before: the ensemble would lose its steps.
            self.triton.unload(TRIAL)
            for name in steps(new):
                if name in old:
                    self.triton.load(old[name])
                else:
                    self.triton.unload(name)
            trouble = None
        except PublishError as error:
            trouble = f"Going back to version {self.before} in the running Triton failed, too: {error}"
        try:
            serve_from_next_start(self.repository, on_disk_before)
            widen(self.repository, unused)
        except (OSError, PublishError) as error:
            return f"{trouble or ''} Version {on_disk_before} could not be restored in {self.repository}: {error}"
        return trouble

    def _let_go(self, old: Configs, new: Configs, progress: Callable[[str], None]) -> None:
        """Takes the old version out of memory once its last request is answered. The new one is served by now."""
        try:
            with held_back():
                serve_from_next_start(self.repository, self.version)
            progress(f"version {self.version} is served; waiting for the last requests of version {self.before}")
            # Triton tells when the ensemble is gone, but not of its instances that the steps' loading replaced before.
            time.sleep(_longest(old))
            if not self.triton.wait_until_gone(ENSEMBLE, self.before):
                raise ControlError("It still has requests.")
            for name in steps(new):
                self.triton.load(new[name])
            for name in set(steps(old)) - set(steps(new)):
                self.triton.unload(name)
        except (OSError, PublishError) as error:
            self.notes.append(f"Version {self.before} is still in memory. {error}")
        except KeyboardInterrupt:
            self.notes.append(f"Interrupted while version {self.before} left; it is still in memory.")


def _longest(configs: Configs) -> float:
    """How long a request can take at most, in seconds, with the time that it may wait in each queue."""
    queues = {name: _queue_seconds(configs[name]) for name in steps(configs)}
    first, *others = queues.values()
    return first + max(others, default=0.0) + _RUN_SECONDS


def _queue_seconds(config: Any) -> float:
    microseconds = config.dynamic_batching.default_queue_policy.default_timeout_microseconds
    return microseconds / 1e6 if microseconds else 30.0
