"""`car-analyzer export --check`: what labelled photos say of networks before they are published."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer._cli.main import main
from car_analyzer.drift import STATISTICS, Reference
from car_analyzer_export.repository.versions import configs_of
from tests.conftest import EXAMPLES

from .labelled_photos import PICTURES, Run, write_csv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.triton


@pytest.fixture
def export_checked(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Exports the demo's cleanliness with its labels in an order, checked on drawn cars."""

    def call(labels: list[str], *arguments: object, copies: int = 0) -> Run:
        spec = tmp_path / "spec.toml"
        spec.write_text(
            f"""[heads.cleanliness]
            weights = "{EXAMPLES / "cleanliness_model.pth"}"
            architecture = "{EXAMPLES / "demo_network.py"}:build"
            decoding = "scaled"
            resampling = "exact"
            labels = {json.dumps(labels)}"""
        )
        rows = [{"file": path, "cleanliness": path.parent.name.partition("_")[0]} for path in pictures.rglob("*.jpg")]
        rows += [
            row | {"file": shutil.copy(row["file"], tmp_path / f"{number}-{row['file'].name}")}
            for number in range(copies)
            for row in list(rows)
        ]
        labelled = write_csv(tmp_path / "labels.csv", rows)
        flags = ("--check", labelled, "--repository", tmp_path / "models", *arguments)
        code = main(["export", str(spec), *map(str, flags)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Run(code=code, out=out, err=err)

    return call


def test_an_export_that_knows_the_photos_is_published(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["clean", "dirty"], copies=4)
    photos = 5 * PICTURES
    assert result.code == 0
    assert f"cleanliness: 100.0% right ({photos} of {photos} photos;" in result.out
    assert "is \\ says" in result.out
    record = json.loads((tmp_path / "models" / "cleanliness" / "1" / "export.json").read_text())
    assert record["checked"] == {"cleanliness": {"photos": photos, "right": photos}}
    # What the gateway compares photos with.
    assert f"Recorded the statistics of {photos} photos" in result.words
    config = configs_of(tmp_path / "models", 1)["car_analyzer"]
    reference = Reference.from_json(config.parameters["drift"].string_value)
    assert (reference.photos, set(reference.shares["cleanliness"])) == (photos, {"clean", "dirty"})
    assert list(reference.values) == list(STATISTICS)
    record = json.loads((tmp_path / "models" / "car_analyzer" / "1" / "export.json").read_text())
    assert record["drift"] == reference.describe()


@pytest.mark.usefixtures("networks_here")
def test_an_export_that_does_not_know_the_photos_is_refused(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["dirty", "clean"])
    assert result.code == 1
    assert "Too few photos to record their statistics" in result.words
    assert "cleanliness: 0.0% right" in result.out
    assert 'under [heads.cleanliness], write labels = ["clean", "dirty"]' in result.words
    assert "'cleanliness' is right on 0.0% of 24 labelled photos (0.0% on average over the labels), no " in result.err
    assert "Nothing was published." in result.err
    assert not (tmp_path / "models").exists()
    assert export_checked(["dirty", "clean"], "--dry-run", "--min-accuracy", "0").code == 0


@pytest.mark.usefixtures("networks_here")
def test_what_an_export_must_reach_can_be_said(export_checked: Any, pictures: Path, tmp_path: Path) -> None:
    car = min((pictures / "dirty_intact").iterdir()).read_bytes()
    for label in ("clean", "dirty"):
        (tmp_path / "both" / label).mkdir(parents=True)
        (tmp_path / "both" / label / "car.jpg").write_bytes(car)
    both = ("--dry-run", "--check", tmp_path / "both")
    assert "no better than chance (50.0%)" in export_checked(["clean", "dirty"], *both).err
    assert (
        "on 50.0% of 2 labelled photos, below 60.0%"
        in export_checked(["clean", "dirty"], *both, "--min-accuracy", "0.6").err
    )
    passed = export_checked(["clean", "dirty"], *both, "--min-accuracy", "0.5", "--json")
    assert json.loads(passed.out)["check"]["heads"]["cleanliness"]["accuracy"] == 0.5


@pytest.mark.usefixtures("networks_here")
def test_errors_of_a_check_before_publishing_are_sentences(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["clean", "dirty"], "--check", tmp_path / "nowhere")
    assert result.code == 1
    assert "--check: " in result.err
    assert "nowhere does not exist" in result.err
    (tmp_path / "dirty_1.jpg").write_bytes(b"")
    assert "The photo is empty" in export_checked(["clean", "dirty"], "--check", tmp_path).err
