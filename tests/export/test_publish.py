"""A running Triton gets another version without a failed request, whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from car_analyzer import CarAnalyzer
from car_analyzer_export.errors import PublishError
from car_analyzer_export.export import export
from car_analyzer_export.network_process import NetworkProcess
from car_analyzer_export.planning import plan_export
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.publishing import switch
from car_analyzer_export.repository.staging import Staging
from car_analyzer_export.spec import Spec
from car_analyzer_server.capacity import decoding_processes
from car_analyzer_server.repository import check_repository
from reliability.publishing import VersionedLoad

from .publish_site import HEADS, KEY, OTHER_WORDS, Site, tree, versioned_photos


@pytest.mark.usefixtures("networks_here")
def test_every_answer_comes_whole_from_one_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load by both protocols: a publication, a rollback, and forth again."""
    code, printed = site.run("publish", site.spec(101, OTHER_WORDS))
    assert code == 0, printed
    first = site.served()
    # With the other version's largest batch, until that is gone, it gets larger ones than it has sizes for.
    second = site.place(102, **{"limits.batch_sizes": [1, 2]})
    photos = versioned_photos(site, {first: (101, OTHER_WORDS), second: (102, HEADS)})
    processes = []
    with contextlib.ExitStack() as stack:
        urls = (site.server.grpc_url, site.server.http_url)
        # Enough for a gap of a moment, and few enough to leave the processor to what they are sent beside.
        load = partial(VersionedLoad, photos=photos, workers=1, timeout=600, rate=20)
        streams = [stack.enter_context(load(url)) for url in urls * 2]

        def last_requests_end(_configs: Any) -> float:
            processes.append(site.server.instances("preprocess"))
            for stream in streams:
                stream.wait_for(1)
            return 0.0

        # The old version goes when its last requests are answered, and no sooner.
        monkeypatch.setattr(switch, "_longest", last_requests_end)
        for command, served in ((("publish", "--version", second), second), (("rollback",), first)):
            for stream in streams:
                stream.wait_for(15)
            code, printed = site.run(*command)
            assert code == 0, printed
            assert f"version {served} is served at {site.server.grpc_url}" in printed
            assert site.served() == site.on_disk() == served
        for stream in streams:
            stream.wait_for(15)
    for stream in streams:
        assert stream.errors() == []
        assert set(stream.versions) == {first, second}
    models = ("car_analyzer", "preprocess", "cleanliness", "condition")
    assert site.loaded() == {**{model: {first} for model in models}, "tires": set()}
    # The configurations leave their number open: it remains the one that the server chose.
    assert {*processes, site.server.instances("preprocess")} == {decoding_processes(site.server.settings.cores)}


def test_a_new_head_comes_and_goes(site: Site, sample_photos: list[Path]) -> None:
    before = site.served()
    code, printed = site.run("publish", site.spec(103, {**HEADS, "tires": ["good", "worn"]}))
    assert code == 0, printed
    with CarAnalyzer(site.server.grpc_url) as analyzer:
        assert list(analyzer.analyze(sample_photos[0]).heads) == ["cleanliness", "condition", "tires"]
        assert site.run("rollback")[0] == 0
        assert list(analyzer.analyze(sample_photos[0]).heads) == ["cleanliness", "condition"]
    assert site.served() == before
    assert site.loaded()["tires"] == set()
    # What nothing needs any more must not be in the way of a Triton that starts.
    assert check_repository(site.repository)
    for version in {folder.name for folder in (site.repository / "tires").iterdir() if folder.is_dir()}:
        versions.remove(site.repository, int(version))
    assert not (site.repository / "tires").exists()


@pytest.mark.usefixtures("networks_here")
def test_networks_that_do_not_know_labelled_photos_are_not_published(
    site: Site, sample_photos: list[Path], tmp_path: Path
) -> None:
    """The same photo with both labels: nobody is better than chance."""
    before, files = site.served(), tree(site.repository)
    for label in ("clean", "dirty"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "car.jpg").write_bytes(sample_photos[0].read_bytes())
    code, printed = site.run("publish", site.spec(107), "--check", tmp_path)
    assert code == 1
    assert "cleanliness: 50.0% right (1 of 2 photos;" in printed
    assert "no better than chance (50.0%)" in printed
    assert tree(site.repository) == files
    assert site.served() == before


@pytest.mark.usefixtures("networks_here")
def test_another_size_of_photos_is_refused(site: Site) -> None:
    before, files = site.served(), tree(site.repository)
    code, printed = site.run("publish", site.spec(104, photo_size=96))
    assert code == 1
    assert "cannot be loaded side by side: 'cleanliness' has the input pixels [64, 64, 3] TYPE_UINT8 before" in printed
    assert "restart Triton" in printed
    assert_untouched(site, before, files)


@pytest.mark.usefixtures("networks_here")
def test_a_version_that_answers_otherwise_is_taken_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the export recorded is not what the networks say."""
    before, files = site.served(), tree(site.repository)
    write = NetworkProcess.write

    def record_otherwise(networks: NetworkProcess, staged: Staging) -> Any:
        records = write(networks, staged)
        file = staged.version_folder("car_analyzer") / "known.json"
        facts = json.loads(file.read_text())
        facts["photos"][5]["logits"]["condition"].reverse()
        file.write_text(json.dumps(facts))
        return records

    monkeypatch.setattr(NetworkProcess, "write", record_otherwise)
    code, printed = site.run("publish", site.spec(105))
    assert code == 1
    assert (
        "does not answer as it did when it was exported: for the reference photo known/6.jpg, condition is" in printed
    )
    (withdrawn,) = assert_untouched(site, before, files)
    # Whoever has seen the number remembers what it meant.
    assert site.place(106) == withdrawn + 1


def test_a_network_that_crashes_changes_nothing(site: Site) -> None:
    before, files = site.served(), tree(site.repository)
    (site.folder / "crashing.py").write_text("import os\n\n\ndef build():\n    os.abort()\n")
    spec = site.spec(120)
    spec.write_text(spec.read_text().replace("network.py", "crashing.py"))
    code, printed = site.run("publish", spec)
    assert code == 1
    assert "Head 'cleanliness': the network ended the process that ran it (aborted)" in printed
    assert assert_untouched(site, before, files) == []
    assert not list(site.folder.glob(".repository.export-*"))


def assert_untouched(site: Site, before: int, files: dict[str, bytes]) -> list[int]:
    """Nothing is another than it was; the numbers of the versions that were withdrawn."""
    assert site.served() == site.on_disk() == before
    assert site.loaded() == {**{model: {before} for model in site.loaded()}, "tires": set()}
    added = tree(site.repository).items() - files.items()
    assert {Path(name).name for name, _ in added} <= {"withdrawn.json"}
    assert files.items() <= tree(site.repository).items()
    return [int(Path(name).parent.name) for name, _ in added]


def test_a_version_that_does_not_load_changes_nothing(site: Site) -> None:
    before, version = site.served(), site.again()
    model = site.repository / "condition" / str(version) / "model.onnx"
    model.write_bytes(b"not a model")
    code, printed = site.run("publish", "--version", version)
    assert code == 1
    assert f"condition/{version}/model.onnx is not the file that was exported" in printed
    # With a record that goes with it, Triton is the one to say so.
    record = site.repository / "car_analyzer" / str(version) / "export.json"
    facts = json.loads(record.read_text())
    facts["models"]["condition"] = hashlib.sha256(b"not a model").hexdigest()
    record.write_text(json.dumps(facts))
    files = tree(site.repository)
    code, printed = site.run("publish", "--version", version)
    assert code == 1
    assert "load failed for model 'condition'" in printed
    assert "INVALID_PROTOBUF" in printed
    with CarAnalyzer(site.server.grpc_url) as analyzer:
        assert analyzer.health().ready
    assert assert_untouched(site, before, files) == []


def test_a_disk_that_cannot_be_written_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = site.served(), site.again()
    files = tree(site.repository)
    write, left = versions.write, 0

    def fail(path: Path, text: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(versions, "write", fail)
    failures = 0
    for last in (1, 3, 4, 7, 9):
        left = last
        code, printed = site.run("publish", "--version", version)
        if code == 0:  # it came to that after the new version was served
            break
        failures += 1
        assert "cannot be written: No space left on device" in printed
        assert_untouched(site, before, files)
    assert failures >= 3


@pytest.mark.parametrize("command", ["publish", "rollback"])
def test_who_may_not_changes_nothing(site: Site, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAR_ANALYZER_ADMIN_KEY", raising=False)
    before, files = site.served(), tree(site.repository)
    what = [site.spec(109)] if command == "publish" else ["--to", 1]
    for url, key, code, message in (
        (None, "", 1, "allows loading models only with its administrator's key, and no key was sent"),
        (None, "another-key-than-the-right-one", 1, "the administrator's key that was sent is wrong"),
        (None, "short", 1, "must be 16 or more"),
        ("grpc://127.0.0.1:1", KEY, 3, "No server answers at grpc://127.0.0.1:1"),
        (site.server.http_url, KEY, 1, "publishing needs gRPC"),
        (site.server.http_url.replace("http://", "grpc://"), KEY, 3, "No server answers"),
        ("ftp://127.0.0.1:1", KEY, 1, "it must be one of grpc"),
    ):
        found, printed = site.run(command, *what, url=url, key=key)
        assert (found, message in printed) == (code, True), printed
    assert_untouched(site, before, files)


def test_another_repository_than_tritons_is_refused(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "repository"
    export(plan_export(Spec.from_file(site.spec(110))), other, version=site.served())
    files = tree(other)
    code, printed = site.run("rollback", "--repository", other)
    assert code == 1
    assert f"does not serve the files in {other}" in printed
    # A copy answers the same; but Triton does not see what is added to it.
    shutil.rmtree(other)
    shutil.copytree(site.repository, other)
    copied = Site(site.folder, other, site.server, site.capture)
    version = copied.again()
    assert version not in versions.complete(site.repository)
    files = tree(other)
    code, printed = copied.run("publish", "--version", version)
    assert code == 1
    assert "does not find version" in printed or "at least one version must be available" in printed
    assert "another folder" in printed
    assert tree(other) == files


def test_an_export_beside_a_running_triton_waits(site: Site) -> None:
    before = site.served()
    version = export(plan_export(Spec.from_file(site.spec(112))), site.repository).version
    assert (site.served(), site.on_disk()) == (before, version)
    code, printed = site.run("publish", "--version", version)
    assert code == 0, printed
    assert site.served() == site.on_disk() == version
    assert site.run("publish", "--version", version)[0] == 1


def test_a_rollback_leads_back_step_by_step(site: Site) -> None:
    first, second, third = site.served(), site.again(), site.again()
    earlier = before_it(site, first)
    assert site.run("publish", "--version", second)[0] == 0
    assert versions.version_before(site.repository, second) == first
    assert site.run("rollback")[0] == 0
    assert site.served() == first
    # Back further, and not forth to what was rolled back from.
    assert before_it(site, first) == earlier
    versions.remember(site.repository, third, first)
    assert versions.version_before(site.repository, third) == first
    code, printed = site.run("rollback", "--to", second, "--json")
    assert code == 0
    assert json.loads(printed.splitlines()[0])["served"] == site.served() == second
    code, printed = site.run("rollback", "--to", 9999)
    assert (code, "has no version 9999" in printed) == (1, True)


def before_it(site: Site, version: int) -> int | str:
    try:
        return versions.version_before(site.repository, version)
    except PublishError as error:
        return str(error)[:40]


def test_what_was_changed_by_hand_comes_back(site: Site) -> None:
    before, version = site.served(), site.again()
    file = site.repository / "preprocess" / "config.pbtxt"
    by_hand = file.read_text().replace("max_queue_size: 128", "max_queue_size: 77 # ours")
    file.write_text(by_hand)
    assert site.run("publish", "--version", version)[0] == 0
    assert "77" not in file.read_text()
    assert site.run("rollback")[0] == 0
    assert site.served() == before
    assert file.read_text() == by_hand
    with site.triton() as triton:
        policy = triton.config("preprocess", before).dynamic_batching.default_queue_policy
        assert policy.max_queue_size == 77


def test_keep_removes_what_is_old(site: Site) -> None:
    if site.served() != 1:  # which the other tests copy
        assert site.run("rollback", "--to", 1)[0] == 0
    site.again()
    version = site.again()
    assert site.run("publish", "--version", version, "--keep", 1)[0] == 0
    assert versions.complete(site.repository) == [1, version]
    for model in ("preprocess", "cleanliness", "condition"):
        assert {folder.name for folder in (site.repository / model).iterdir() if folder.is_dir()} == {"1", str(version)}
    assert site.run("rollback")[0] == 0
    assert site.served() == 1
