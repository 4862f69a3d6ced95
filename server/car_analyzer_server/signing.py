"""Signs model repositories, and verifies their signatures, with OpenSSF's model-signing.

The signature covers every file that Triton or Python could load, by its path and content. Python would also load
bytecode from `__pycache__`, with no look at the source, and Triton's Python ignores the variables that could prevent
that. So `bar_bytecode` puts an empty file, which is signed too, where the folder would be. Importing this module raises
SettingsError if the package is not installed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RepositoryError, SettingsError
from .repository import SIGNATURE

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from model_signing import hashing, signing, verifying
except ImportError as error:
    raise SettingsError(
        f"Signatures need the package {error.name}, which is not installed: pip install 'car-analyzer[sign]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_signing.manifest import Manifest

# The staging folders of exports into a mounted repository. Triton loads nothing from the ensemble's hidden folders.
_UNSIGNED = "car_analyzer/.*.export-*"
_CHANGES_SHOWN = 4
_KEY_ERRORS = (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm)
_PAIR = (
    "Make a pair with: openssl ecparam -name prime256v1 -genkey -noout -out sign.key && "
    "openssl ec -in sign.key -pubout -out sign.pub"
)


def signer(private_key: Path) -> signing.Config:
    """Reads a private key.

    Args:
        private_key: A file with an EC key, PEM without a password.

    Raises:
        SettingsError: The key cannot be used.
    """
    config = signing.Config()  # type: ignore[no-untyped-call]
    _with_key(lambda: config.use_elliptic_key_signer(private_key=private_key), private_key, "private")
    return config


def bar_bytecode(repository: Path) -> None:
    """Makes Python neither read nor write bytecode in a repository: removes it, and puts files in place of the folders.

    Raises:
        OSError: The repository cannot be written.
        RepositoryError: It has a symbolic link, so it cannot be signed; it is unchanged.
    """
    _reject_links(repository)
    for folder in {file.parent for file in repository.rglob("*.py")}:
        cache = folder / "__pycache__"
        if cache.is_dir() and not cache.is_symlink():
            shutil.rmtree(cache)
        if not cache.exists():
            cache.touch()


def sign(repository: Path, private_key: Path) -> str:
    """Makes the signature of a repository as it is now.

    Args:
        repository: The model repository.
        private_key: See `signer`.

    Returns:
        The content for its file `SIGNATURE`.

    Raises:
        SettingsError: The key cannot be used.
        RepositoryError: The repository cannot be signed, such as for a symbolic link.
    """
    config = signer(private_key)
    folder = repository.resolve()
    _reject_links(folder)
    config.set_hashing_config(_hashing(folder))
    with tempfile.TemporaryDirectory(prefix="car-analyzer-") as temporary:
        file = Path(temporary, SIGNATURE)
        try:
            config.sign(folder, file)
        except (OSError, ValueError) as error:
            raise RepositoryError(f"The model repository {repository} cannot be signed: {error}.") from error
        return file.read_text(encoding="utf-8")


def verify(repository: Path, public_key: Path) -> None:
    """Makes sure that a repository is, file by file, as the holder of the private key signed it. Writes nothing.

    Args:
        repository: The model repository.
        public_key: A file with the public key, PEM.

    Raises:
        SettingsError: The key cannot be used.
        RepositoryError: The repository is not signed with this key, or was changed.
    """
    config = _Verification()  # type: ignore[no-untyped-call]
    _with_key(lambda: config.use_elliptic_key_verifier(public_key=public_key), public_key, "public")
    folder = repository.resolve()
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise RepositoryError(
            f"The model repository {repository} is not signed: {repository / SIGNATURE} is missing. Sign it with "
            "`car-analyzer export --sign KEY`."
        )
    _reject_links(folder)
    config.set_hashing_config(_hashing(folder))
    try:
        config.verify(folder, signature)
    except RepositoryError as error:
        raise RepositoryError(
            f"The model repository {repository} is not as it was signed: {error}. Restore it from a trusted copy; or, "
            f"if you trust it as it is, remove {SIGNATURE} and run `car-analyzer export --sign KEY`."
        ) from error
    except OSError as error:
        raise RepositoryError(f"The model repository {repository} cannot be verified: {error}.") from error
    except Exception as error:  # malformed signatures raise whatever the parsers raise
        raise RepositoryError(
            f"{repository / SIGNATURE} is not a valid signature for the key {public_key}: it was made with another "
            "key, or is damaged. Use the public key of the pair that signed the repository, or restore the file."
        ) from error


def verify_own(repository: Path, private_key: Path) -> None:
    """Like `verify`, with the public key that belongs to a private key."""
    key: Any = _with_key(
        lambda: serialization.load_pem_private_key(private_key.read_bytes(), None), private_key, "private"
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with tempfile.TemporaryDirectory(prefix="car-analyzer-") as temporary:
        file = Path(temporary, f"{private_key.name}.pub")
        file.write_bytes(public)
        verify(repository, file)


class _Hashing(hashing.Config):
    def add_ignored_paths(self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]) -> None:
        """Ignores no more files, even if a signature lists some."""


class _Verification(verifying.Config):
    def _get_manifest_diff(self, actual: Manifest, expected: Manifest) -> list[str]:
        found, signed = ({one.identifier: one.digest for one in m.resource_descriptors()} for m in (actual, expected))
        changes = [
            *(f"{file} was changed" for file in sorted(signed) if file in found and found[file] != signed[file]),
            *(f"{file} is missing" for file in sorted(signed) if file not in found),
            *(f"{file} was added" for file in sorted(found) if file not in signed),
        ]
        more = len(changes) - _CHANGES_SHOWN
        raise RepositoryError("; ".join(changes[:_CHANGES_SHOWN]) + (f"; and {more} more changes" if more > 0 else ""))


def _hashing(folder: Path) -> hashing.Config:
    unsigned = [path.relative_to(folder) for path in folder.glob(_UNSIGNED)]
    config = _Hashing()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=[SIGNATURE, *unsigned], ignore_git_paths=False)


def _reject_links(folder: Path) -> None:
    # The files behind a link to a folder would not be hashed.
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise RepositoryError(
                f"{path} is a symbolic link, which a signed repository cannot have. Replace it by a copy."
            )


def _with_key(use: Callable[[], Any], file: Path, kind: str) -> Any:
    try:
        return use()
    except _KEY_ERRORS as error:
        raise SettingsError(f"{file} is not a {kind} EC key, PEM without a password ({error}). {_PAIR}") from error
