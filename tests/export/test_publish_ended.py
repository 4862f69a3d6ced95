"""Whatever becomes of a publication, a Triton serves one version, whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from car_analyzer_export.repository import versions
from car_analyzer_server import Server, Settings
from car_analyzer_server.settings import triton_arguments
from tests.conftest import SMALL_TRITON

from .publish_site import KEY, Site

QUICK = "from car_analyzer_export.repository.publishing import switch; switch._longest = lambda _configs: 0.2"

KILL = """
import os, signal
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.publishing import control, switch
from tests.conftest import SMALL_TRITON
switch._longest = lambda _configs: 0.2
left = {count}
def counted(call):
    def one(*arguments, **options):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.{signal})
        return call(*arguments, **options)
    return one
versions.write = counted(versions.write)
control.Triton._load = counted(control.Triton._load)
"""


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_whenever_it_is_killed_one_version_is_served_whole(site: Site, signal_name: str) -> None:
    versions_ = sorted((site.served(), site.again()))
    # Every step in between, too, would take minutes.
    for count in range(*{"SIGKILL": (1, 40, 6), "SIGTERM": (3, 40, 9)}[signal_name]):
        before = site.served()
        (other,) = {*versions_} - {before} if before in versions_ else versions_[-1:]
        process = site.start(KILL.format(count=count, signal=signal_name), "publish", "--version", other)
        printed, _ = process.communicate(timeout=120)
        assert site.served() in (before, other)
        assert site.on_disk() in (before, other)
        if process.returncode == 0:
            break
        if signal_name == "SIGTERM":
            assert process.returncode == 130
            assert "interrupted" in printed
            assert site.served() == site.on_disk() == before
            assert "Traceback" not in printed
    assert count > 10
    # And the next one finds its way from wherever that was.
    left = site.served()
    version = site.again()
    code, printed = site.run("publish", "--version", version)
    assert code == 0, printed
    assert site.run("rollback")[0] == 0
    assert site.served() == left


def test_what_a_killed_publication_exported_is_withdrawn(site: Site) -> None:
    before = site.served()
    # When it is about to load what it exported.
    kill = KILL.replace("versions.write = counted(versions.write)\n", "").format(count=1, signal="SIGKILL")
    process = site.start(kill, "publish", site.spec(119))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == -9, printed
    (left,) = [path.parent for path in site.repository.glob("car_analyzer/*/unfinished")]
    version = site.again()
    assert version > int(left.name)
    assert site.run("publish", "--version", version)[0] == 0
    assert [path.name for path in left.iterdir()] == ["withdrawn.json"]
    assert not (site.repository / "condition" / left.name).exists()
    assert site.run("rollback")[0] == 0
    assert site.served() == before


def test_the_second_of_two_waits(site: Site) -> None:
    version = site.again()
    with versions.locked(site.repository):
        process = site.start(QUICK, "publish", "--version", version)
        assert process.stdout is not None
        assert "waiting for another export or publication" in process.stdout.readline()
        assert site.served() != version
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert site.served() == version


def test_at_every_moment_a_triton_that_starts_serves_one_version(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(site.repository, repository)
    copied = Site(site.folder, repository, site.server)
    before = copied.on_disk()
    new = next(version for version in [*versions.complete(repository), copied.again()] if version != before)
    write, seen = versions.write, []

    def look(path: Path, text: str) -> None:
        write(path, text)
        seen.append(copied.on_disk())

    monkeypatch.setattr(versions, "write", look)
    versions.serve_from_next_start(repository, new)
    assert seen[-1] == new
    assert seen == sorted(seen, key=lambda version: version == new)


def test_a_server_of_an_older_export_is_refused(site: Site, tmp_path: Path) -> None:
    """Its ensemble takes the newest version of each step: they would change one after the other."""
    repository = tmp_path / "repository"
    shutil.copytree(site.repository, repository)
    file = repository / "car_analyzer" / "config.pbtxt"
    file.write_text(re.sub(r"model_version: \d+", "model_version: -1", file.read_text()))
    with Server(Settings(repository, admin_key=KEY, **SMALL_TRITON)) as server:
        older = Site(site.folder, repository, server, site.capture)
        code, printed = older.run("rollback", "--to", 1)
        assert code == 1
        assert "is of an older car-analyzer" in printed
        assert "restart Triton once" in printed


def test_a_triton_that_is_not_to_be_controlled_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_control(settings: Settings) -> list[str]:
        given = triton_arguments(settings)
        return [argument for argument in given if not argument.startswith(("--model-control", "--load-model"))]

    monkeypatch.setattr("car_analyzer_server.server.triton_arguments", without_control)
    # `serve` itself may not control it, either.
    monkeypatch.setattr(Server, "_start_decoding_processes", lambda _server: None)
    with Server(Settings(site.repository, admin_key=KEY, **SMALL_TRITON)) as server:
        code, printed = Site(site.folder, site.repository, server, site.capture).run("rollback", "--to", 1)
    assert code == 1
    assert "was not started with --model-control-mode=explicit" in printed
