"""Exports, publications and rollbacks keep the signature of a repository valid, and sign no file that was changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from car_analyzer import CarAnalyzer
from car_analyzer_export.cli import export as export_command
from car_analyzer_export.cli import publish, rollback
from car_analyzer_export.errors import PublishError
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.repository.publishing import switch
from car_analyzer_export.repository.signature import Signature
from car_analyzer_server import RepositoryError, Server, ServingError, Settings, SettingsError, signing
from tests.conftest import SMALL_TRITON
from tests.signatures import CHANGES, Keys, sign

from .publish_site import KEY, Site, tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from car_analyzer_export.spec import Spec

# Nothing listens there: what is refused must be refused before anybody is asked.
NOBODY = ["--url", "grpc://127.0.0.1:9"]
COMMANDS = {
    "export": (export_command.main, ["--cleanliness", "missing.pth"]),
    "publish": (publish.main, ["--version", "2", *NOBODY]),
    "rollback": (rollback.main, NOBODY),
}


def refused(command: str, repository: Path, *arguments: object) -> int:
    main, flags = COMMANDS[command]
    before = tree(repository)
    code = main(["--repository", str(repository), *flags, *map(str, arguments)])
    assert tree(repository) == before
    return code


@pytest.mark.parametrize(
    ("command", "change", "sentence"),
    [
        *(pytest.param("publish", *one.values, id=f"publish, {one.id}") for one in CHANGES),
        *(pytest.param(command, *CHANGES[0].values, id=command) for command in ("export", "rollback")),
    ],
)
def test_nothing_signs_a_changed_repository(
    command: str,
    signed: Path,
    keys: Keys,
    change: Callable[[Path], object],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(signed)
    assert refused(command, signed, "--sign", keys.private) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_signed_repository_needs_the_key(command: str, signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(command, signed) == 1
    assert "is signed, and a change would invalidate its signature. Give the private key with --sign KEY" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_that_cannot_be_used_is_refused_first(
    command: str, signed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(command, signed, "--sign", keys.public) == 1
    assert f"{keys.public} is not a private EC key" in capsys.readouterr().err


def test_an_export_signs_what_it_adds(one_head: Spec, tmp_path: Path, keys: Keys) -> None:
    folder = tmp_path / "models"
    plan = plan_export(one_head)
    with pytest.raises(SettingsError, match=r"is not a private EC key"):
        export(plan, folder, signature=Signature(folder, keys.public))
    assert tree(folder) == {}
    for _ in range(2):
        export(plan, folder, signature=Signature(folder, keys.private))
        signing.verify(folder, keys.public)
    before = tree(folder)
    with pytest.raises(PublishError, match=r"is signed, and a change would invalidate"):
        export(plan, folder)
    assert tree(folder) == before


@pytest.mark.triton
def test_a_server_that_verifies(
    signed: Path,
    keys: Keys,
    tmp_path: Path,
    sample_photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It serves, also while versions come and go, as long as every file is signed; Python leaves no bytecode there."""
    monkeypatch.setattr(switch, "_longest", lambda _configs: 0.2)
    ran = tmp_path / "ran"
    with Server(Settings(signed, verify=keys.public, admin_key=KEY, **SMALL_TRITON)) as server:
        site = Site(tmp_path, signed, server, capsys)
        with CarAnalyzer(server.grpc_url) as analyzer:
            assert analyzer.analyze(sample_photos[0]).cleanliness.label in sample_photos[0].name
        signing.verify(signed, keys.public)
        assert site.again() == 2
        code, printed = site.run("publish", "--version", 2, "--sign", keys.private)
        assert (code, "car_analyzer/2/cleanliness_labels.txt was added" in printed) == (1, True), printed
        sign(signed, keys)
        renewed = []
        monkeypatch.setattr(Signature, "renew", checked_after(Signature.renew, keys, renewed))
        for command, served in ((("publish", "--version", 2), 2), (("rollback",), 1)):
            code, printed = site.run(*command, "--sign", keys.private)
            assert code == 0, printed
            assert site.served() == site.on_disk() == served
            signing.verify(signed, keys.public)
        assert len(renewed) == 2 * 4  # thrice during each switch, for servers that start meanwhile
        assert server.renew("preprocess")
        model = signed / "preprocess" / "1" / "model.py"
        model.write_text(f"{model.read_text()}\nopen({str(ran)!r}, 'w').close()\n")
        for attempt in (lambda: server.renew("preprocess"), lambda: server.load("preprocess")):
            with pytest.raises(RepositoryError, match=r"preprocess/1/model\.py was changed"):
                attempt()
        code, printed = site.run("publish", "--version", 2, "--sign", keys.private)
        assert (code, "preprocess/1/model.py was changed" in printed) == (1, True), printed
        assert site.served() == 1
        assert not ran.exists()
        server.stop()
        with pytest.raises(ServingError, match=r"preprocess/1/model\.py was changed"):
            server.start()


def checked_after(renew: Callable[[Signature], None], keys: Keys, renewed: list[Path]) -> Callable[[Signature], None]:
    def check(signature: Signature) -> None:
        renew(signature)
        signing.verify(signature.repository, keys.public)
        renewed.append(signature.repository)

    return check
