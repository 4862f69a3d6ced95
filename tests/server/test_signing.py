"""A server with a public key serves a repository only as the holder of the private key signed it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import hashing
from model_signing import signing as library

from car_analyzer_server import RepositoryError, Server, Settings, SettingsError, signing
from car_analyzer_server._cli import _parser, _settings
from tests.signatures import CHANGES, Keys, make_keys

if TYPE_CHECKING:
    from collections.abc import Callable


def state(folder: Path) -> dict[Path, tuple[int, bytes | None]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


@pytest.mark.parametrize(("change", "sentence"), CHANGES)
def test_nothing_starts_on_a_changed_repository(
    signed: Path, keys: Keys, change: Callable[[Path], object], sentence: str
) -> None:
    change(signed)
    server = Server(Settings(signed, verify=keys.public))
    with pytest.raises(RepositoryError) as caught:
        server.start()
    assert sentence in str(caught.value)
    with pytest.raises(RepositoryError, match=r"."):  # nor does the server load a model later
        server.load("preprocess")


def test_many_changes_are_counted(signed: Path, keys: Keys) -> None:
    for file in signed.glob("*/config.pbtxt"):
        file.unlink()
    shutil.rmtree(signed / "condition")
    with pytest.raises(RepositoryError, match=r"and \d+ more changes\. Restore it from a trusted copy"):
        signing.verify(signed, keys.public)


def test_verifying_writes_nothing(signed: Path, keys: Keys) -> None:
    before = state(signed)
    signing.verify(signed, keys.public)
    assert state(signed) == before


def test_a_repository_can_be_moved_copied_and_linked_to(signed: Path, keys: Keys, tmp_path: Path) -> None:
    moved = signed.rename(tmp_path / "elsewhere")
    (tmp_path / "current").symlink_to(moved)
    signing.verify(tmp_path / "current", keys.public)


def test_an_export_beside_a_server_that_starts(signed: Path, keys: Keys) -> None:
    """Where the repository is a mount, an export assembles its version in there."""
    staged = signed / "car_analyzer" / ".models.export-x" / "cleanliness" / "model.onnx"
    staged.parent.mkdir(parents=True)
    staged.touch()
    signing.verify(signed, keys.public)


def test_links_are_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "other" / "1").mkdir(parents=True)
    (signed / "other").symlink_to(tmp_path / "other")
    for attempt in (lambda: signing.verify(signed, keys.public), lambda: signing.sign(signed, keys.private)):
        with pytest.raises(RepositoryError, match=r"other is a symbolic link, which a signed repository cannot have"):
            attempt()


def test_a_signature_cannot_except_files(signed: Path, keys: Keys) -> None:
    config = library.Config().use_elliptic_key_signer(private_key=keys.private)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["model.sig", "preprocess"]))
    config.sign(signed, signed / "model.sig")
    with pytest.raises(RepositoryError, match=r"preprocess/1/guard\.py was added"):
        signing.verify(signed, keys.public)


def test_the_signature_of_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other")
    with pytest.raises(RepositoryError, match=r"model\.sig is not a valid signature for the key .*other\.pub"):
        signing.verify(signed, other.public)
    with pytest.raises(RepositoryError, match=r"is not a valid signature"):
        signing.verify_own(signed, other.private)


def test_keys_of_other_kinds_are_refused(signed: Path, keys: Keys) -> None:
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = keys.private.with_name("encrypted.key")
    encrypted.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            *formats, serialization.BestAvailableEncryption(b"password")
        )
    )
    for name, key in (
        ("curve", ec.generate_private_key(ec.SECP256K1())),
        ("rsa", rsa.generate_private_key(65537, 2048)),
    ):
        keys.private.with_name(f"{name}.key").write_bytes(key.private_bytes(*formats, serialization.NoEncryption()))
    for name in ("encrypted.key", "curve.key", "rsa.key", "sign.pub", "missing.key"):
        with pytest.raises(SettingsError, match=rf"{name} is not a private EC key.*openssl ecparam"):
            signing.sign(signed, keys.private.with_name(name))
    with pytest.raises(SettingsError, match=r"sign\.key is not a public EC key"):
        signing.verify(signed, keys.private)


def test_the_key_comes_from_the_flag_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(*argv: str) -> Path | None:
        return _settings(_parser().parse_args(argv), []).verify

    assert verify() is None
    assert verify("--verify", "sign.pub") == Path("sign.pub")
    monkeypatch.setenv("CAR_ANALYZER_VERIFY_KEY", "other.pub")
    assert verify() == Path("other.pub")
    monkeypatch.setenv("CAR_ANALYZER_VERIFY_KEY", "")
    assert verify() is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--verify", "sign.pub"], "pip install 'car-analyzer[sign]'"), ([], "holds no model")],
)
def test_the_package_is_needed_only_for_signatures(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    code = "import sys; sys.modules['model_signing'] = None; from car_analyzer._cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--repository", str(tmp_path), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
