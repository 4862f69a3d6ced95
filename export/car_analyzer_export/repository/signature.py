"""The signature of a model repository, which every change of the repository renews."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from car_analyzer_server import signals
from car_analyzer_server.repository import SIGNATURE

from ..errors import PublishError
from .versions import write, writing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Signature:
    """The signature of a repository, and the key to renew it.

    Attributes:
        repository: The model repository.
        key: The private key; without one, a signed repository cannot be changed.
        new: Whether the key may sign a repository that is not signed yet.
    """

    repository: Path
    key: Path | None = None
    new: bool = True

    @property
    def exists(self) -> bool:
        """Whether the repository is signed, validly or not."""
        return (self.repository / SIGNATURE).exists()

    def check(self) -> None:
        """Makes sure that the repository may be changed: a changed file must not get a valid signature.

        Raises:
            PublishError: It is signed and there is no key, or the reverse.
            ServingError: The signature is invalid, or the key cannot be used.
        """
        if self.key is None:
            if self.exists:
                raise PublishError(
                    f"The model repository {self.repository} is signed, and a change would invalidate its signature. "
                    f"Give the private key with --sign KEY, or remove {SIGNATURE} to do without a signature."
                )
            return
        from car_analyzer_server import signing

        if self.exists:
            signing.verify_own(self.repository, self.key)
        elif self.new:
            signing.signer(self.key)
        else:
            raise PublishError(
                f"The model repository {self.repository} is not signed: {self.repository / SIGNATURE} is missing. "
                "Restore it; a repository is signed for the first time by `car-analyzer export --sign KEY`."
            )

    def renew(self) -> None:
        """Signs the repository as it is now, if there is a key.

        Raises:
            PublishError: The signature cannot be written.
            ServingError: The repository cannot be signed.
        """
        if self.key is not None:
            from car_analyzer_server import signing

            with signals.deferred(), writing(self.repository):
                signing.bar_bytecode(self.repository)
                write(self.repository / SIGNATURE, signing.sign(self.repository, self.key))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Checks the signature, and renews it after the body, which changes the repository; it must be locked.

        Raises:
            PublishError: See `check` and `renew`.
            ServingError: Likewise.
        """
        self.check()
        try:
            yield
        except BaseException:
            if self.exists:  # the body may have withdrawn a version
                self.renew()
            raise
        self.renew()
