"""A running Triton gets another version without a failed request, whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from car_analyzer import TLS, CarAnalyzer
from car_analyzer._config import Endpoint
from car_analyzer_export import _cli_publish, _cli_rollback, known, versions
from car_analyzer_export import export as export_module
from car_analyzer_export.errors import PublishError
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.publishing import switch
from car_analyzer_export.publishing.control import Triton
from car_analyzer_export.publishing.known import read_known
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from car_analyzer_server.repository import check_repository
from car_analyzer_server.settings import triton_arguments
from reliability.publishing import VersionAnswer, VersionedPhoto, VersionStream

from .conftest import make_network, write_network

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-for-the-tests-only"
ANY = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
HEADS = {"cleanliness": ["clean", "dirty"], "condition": ["intact", "damaged"]}
OTHER_WORDS = {"cleanliness": ["sauber", "schmutzig"], "condition": ["heil", "kaputt"]}


@dataclass
class Site:
    """A Triton on a repository of tiny networks, and what is needed to change what it serves."""

    folder: Path
    repository: Path
    server: Server
    capture: pytest.CaptureFixture[str] | None = None

    def spec(self, seed: int, labels: dict[str, list[str]] = HEADS, **values: Any) -> Path:
        """Networks with weights of their own, and a spec for them."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in ({"photo_size": 64} | values).items()]
        for index, (head, words) in enumerate(labels.items()):
            network = make_network(self.folder / "network.py")
            generator = torch.Generator().manual_seed(10 * seed + index)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
            torch.save(network.state_dict(), self.folder / f"{head}{seed}.pth")
            lines += [f"[heads.{head}]", f'weights = "{head}{seed}.pth"', 'architecture = "network.py:build"']
            lines += [f"labels = {json.dumps(words)}"]
        file = self.folder / f"spec{seed}.toml"
        file.write_text("\n".join(lines))
        return file

    def place(self, seed: int, **values: Any) -> int:
        """Exports a version that nothing serves."""
        plan = plan_export(Spec.from_file(self.spec(seed, **values)))
        return export(plan, self.repository, deliver=lambda _repository, _version: None).version

    def again(self) -> int:
        """The first version once more, as another one; much faster than an export."""
        new = max(versions.exported(self.repository / "car_analyzer")) + 1
        for model in ("preprocess", "cleanliness", "condition", "car_analyzer"):
            shutil.copytree(self.repository / model / "1", self.repository / model / str(new))
        for file in self.repository.glob(f"car_analyzer/{new}/configs/*"):
            text = re.sub(r"(versions|model_version): 1\b", rf"\1: {new}", file.read_text())
            file.write_text(text.replace('label_filename: "1/', f'label_filename: "{new}/'))
        (self.repository / "car_analyzer" / str(new) / "served.json").unlink(missing_ok=True)
        return new

    def run(self, command: str, *arguments: object, url: str | None = None, key: str = KEY) -> tuple[int, str]:
        """Runs a command; its exit code and what it printed."""
        (self.folder / "key").write_text(key)
        flags = ["--repository", self.repository, "--url", url or self.server.grpc_url]
        flags += ["--admin-key-file", self.folder / "key"] if key else []
        main = {"publish": _cli_publish.main, "rollback": _cli_rollback.main}[command]
        code = main([str(argument) for argument in (*flags, *arguments)])
        assert self.capture is not None
        printed = self.capture.readouterr()
        return code, printed.out + printed.err

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        """Runs a command in a process of its own, after some code."""
        (self.folder / "key").write_text(KEY)
        flags = ["--repository", self.repository, "--url", self.server.grpc_url]
        flags += ["--admin-key-file", self.folder / "key"]
        script = f"{code}\nimport sys\nfrom car_analyzer._cli import main\nsys.exit(main(sys.argv[1:]))"
        return subprocess.Popen(
            [sys.executable, "-c", script, *map(str, (*arguments, *flags))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def triton(self) -> Triton:
        return Triton(Endpoint.parse(self.server.grpc_url), KEY, TLS())

    def served(self) -> int:
        """The version that answers, which must be whole."""
        with self.triton() as triton:
            version = triton.served()
            assert version is not None
            read_known(self.repository, version).ask(triton, "car_analyzer")
        return version

    def loaded(self) -> dict[str, set[int]]:
        with self.triton() as triton:
            models = ("car_analyzer", "preprocess", "cleanliness", "condition", "tires")
            states = {model: triton.versions(model) for model in models}
        return {model: {v for v, state in found.items() if state == "READY"} for model, found in states.items()}

    def on_disk(self) -> int:
        """The version that a Triton would serve that starts now; the repository must be in order for it."""
        check_repository(self.repository)
        ensemble = config(self.repository, "car_analyzer")
        (version,) = ensemble.version_policy.specific.versions
        for step in ensemble.ensemble_scheduling.step:
            assert step.model_version == version
            named = config(self.repository, step.model_name).version_policy.specific.versions
            assert version in named
            assert all((self.repository / step.model_name / str(one)).is_dir() for one in named)
        return version


def config(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), pb.ModelConfig())


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("publish")
    write_network(folder)
    site = Site(folder, folder / "repository", None)  # type: ignore[arg-type]
    export(plan_export(Spec.from_file(site.spec(0))), site.repository)
    with Server(Settings(site.repository, admin_key=KEY, **ANY)) as site.server:
        yield site


@pytest.fixture
def site(shared_site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    """Serves some version or other, which is also the one on disk."""
    monkeypatch.setattr(switch, "_longest", lambda _configs: 0.2)
    shared_site.capture = capsys
    if shared_site.served() != versions.on_disk(shared_site.repository):
        versions.serve_from_next_start(shared_site.repository, shared_site.served())
    return shared_site


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def versioned_photos(site: Site, versions_: dict[int, tuple[int, dict[str, list[str]]]]) -> list[VersionedPhoto]:
    """Photos with PyTorch's answers: version → the seed of its networks, and its labels."""
    found = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        answers = {
            version: VersionAnswer(reference(site, seed, picture), labels)
            for version, (seed, labels) in versions_.items()
        }
        found.append(VersionedPhoto(f"photo {number}", buffer.getvalue(), {}, answers))
    return found


def reference(site: Site, seed: int, picture: Image.Image) -> dict[str, list[float]]:
    """PyTorch's logits, by the recipe of the training."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = np.array(picture.resize((64, 64), Image.Resampling.BILINEAR))
    tensor = torch.from_numpy(pixels).float().div(255).sub(mean).div(std).permute(2, 0, 1)[None]
    logits = {}
    for head in HEADS:
        network = make_network(site.folder / "network.py").eval()
        network.load_state_dict(torch.load(site.folder / f"{head}{seed}.pth", weights_only=True))
        with torch.inference_mode():
            logits[head] = network(tensor)[0].tolist()
    return logits


def test_every_answer_comes_whole_from_one_version(site: Site) -> None:
    """Under load by both protocols: a publication, a rollback, and forth again."""
    code, printed = site.run("publish", site.spec(101, OTHER_WORDS))
    assert code == 0, printed
    first = site.served()
    second = site.place(102)
    photos = versioned_photos(site, {first: (101, OTHER_WORDS), second: (102, HEADS)})
    with contextlib.ExitStack() as stack:
        urls = (site.server.grpc_url, site.server.http_url)
        streams = [stack.enter_context(VersionStream(url, photos, workers=2)) for url in urls]
        for command, served in ((("publish", "--version", second), second), (("rollback",), first)):
            for stream in streams:
                stream.wait_for(30)
            code, printed = site.run(*command)
            assert code == 0, printed
            assert f"version {served} is served at {site.server.grpc_url}" in printed
            assert site.served() == site.on_disk() == served
        for stream in streams:
            stream.wait_for(30)
    for stream in streams:
        assert stream.errors() == []
        assert set(stream.versions) == {first, second}
    models = ("car_analyzer", "preprocess", "cleanliness", "condition")
    assert site.loaded() == {**{model: {first} for model in models}, "tires": set()}


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


def test_another_size_of_photos_is_refused(site: Site) -> None:
    before, files = site.served(), tree(site.repository)
    code, printed = site.run("publish", site.spec(104, photo_size=96))
    assert code == 1
    assert "cannot be loaded side by side: 'cleanliness' takes pixels [64, 64, 3] TYPE_UINT8 before" in printed
    assert "restart Triton" in printed
    assert_untouched(site, before, files)


def test_a_version_that_answers_otherwise_is_taken_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the export recorded is not what the networks say."""
    before, files = site.served(), tree(site.repository)
    write = known.write_known

    def record_otherwise(plan: Any, networks: Any, folder: Path) -> None:
        write(plan, networks, folder)
        facts = json.loads((folder / "known.json").read_text())
        facts["photos"][5]["logits"]["condition"].reverse()
        (folder / "known.json").write_text(json.dumps(facts))

    monkeypatch.setattr(export_module, "write_known", record_otherwise)
    code, printed = site.run("publish", site.spec(105))
    assert code == 1
    assert "does not answer as it did when it was exported: for the known photo known/6.jpg, condition is" in printed
    (withdrawn,) = assert_untouched(site, before, files)
    # Whoever has seen the number remembers what it meant.
    assert site.place(106) == withdrawn + 1


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
        (None, "", 1, "keeps its administration to those who have its key, and no key was sent"),
        (None, "another-key-than-the-right-one", 1, "the administrator's key that was sent is not Triton's"),
        (None, "short", 1, "must be 16 or more"),
        ("grpc://127.0.0.1:1", KEY, 3, "Nobody answers at grpc://127.0.0.1:1"),
        (site.server.http_url, KEY, 1, "Triton is controlled by gRPC"),
        (site.server.http_url.replace("http://", "grpc://"), KEY, 3, "Nobody answers"),
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
    assert f"does not serve what lies in {other}" in printed
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


QUICK = "from car_analyzer_export.publishing import switch; switch._longest = lambda _configs: 0.2"

KILL = """
import os, signal
from car_analyzer_export import versions
from car_analyzer_export.publishing import control, switch
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
    with Server(Settings(repository, admin_key=KEY, **ANY)) as server:
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
    with Server(Settings(site.repository, admin_key=KEY, **ANY)) as server:
        code, printed = Site(site.folder, site.repository, server, site.capture).run("rollback", "--to", 1)
    assert code == 1
    assert "was not started with --model-control-mode=explicit" in printed
