"""`car-analyzer calibrate` on a real repository, without a server."""

from __future__ import annotations

import json
import random
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer._cli.main import main
from car_analyzer.drift import Reference
from car_analyzer_export.calibration.answers import LocalModel
from car_analyzer_export.checking.labelled import LabelledPhoto
from car_analyzer_export.onnx_model.answers import read_answers
from car_analyzer_export.repository.publishing.reference_check import check_files, read_references
from car_analyzer_export.repository.version_copy import heads_of
from car_analyzer_export.repository.versions import configs_of, on_disk, version_before
from car_analyzer_server.repository import SIGNATURE, check_repository
from car_analyzer_server.signing import verify

from .labelled_photos import LABELS, Run, write_csv
from .publish_site import tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.signatures import Keys


@pytest.fixture
def run(copy: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def call(*arguments: object) -> Run:
        code = main(["calibrate", "--repository", str(copy), *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Run(code=code, out=out, err=err)

    return call


def labelled(pictures: Path, file: Path, wrong: float) -> Path:
    """Five times all pictures, some of them with a wrong condition: the demo model is surer than that allows."""
    chance = random.Random(1)
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(sorted(pictures.rglob("*.jpg")) * 5):
        copied = shutil.copy(path, file.parent / f"{number}.jpg")
        condition = path.parent.name.partition("_")[2]
        (other,) = {*LABELS["condition"]} - {condition}
        rows.append({"file": copied, "condition": other if chance.random() < wrong else condition})
    return write_csv(file, rows)


def test_a_new_version_has_the_same_labels_and_lower_confidences(
    run: Any, copy: Path, pictures: Path, tmp_path: Path
) -> None:
    file, page = labelled(pictures, tmp_path / "labels.csv", 0.2), tmp_path / "calibration.html"
    before, (first, *_) = tree(copy), heads_of(copy, 1)
    assert first.temperature == 1

    result = run(file, "--json", "--dry-run", "--report", page, "--precision", "0.9", "--recall", "0.5")
    assert (result.code, result.err) == (0, "")
    assert tree(copy) == before
    found = json.loads(result.out)["heads"]["condition"]
    assert found["after"]["ece"] < found["before"]["ece"] / 2
    assert [one["wish"] for one in found["proposals"]] == [{"precision": 0.9}, {"recall": 0.5}]
    text = page.read_text()
    assert text.count("<svg") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|<script|<link""", text)

    result = run(file)
    assert (result.code, result.err) == (0, "")
    assert "published as version 2" in result.words
    assert "cleanliness was not calibrated" in result.words
    assert on_disk(copy) == 2
    assert version_before(copy, 2) == 1
    check_repository(copy)
    check_files(copy, 2)
    assert read_references(copy, 2).photos == read_references(copy, 1).photos
    plain, calibrated = ({head.name: head for head in heads_of(copy, version)} for version in (1, 2))
    assert calibrated["cleanliness"] == plain["cleanliness"]
    assert calibrated["condition"].temperature == found["temperature"]
    logits = [[0.1 * step, -0.1 * step] for step in range(-50, 51)]
    answers = [read_answers(heads["condition"], logits) for heads in (plain, calibrated)]  # type: ignore[arg-type]
    for served, new in zip(*answers, strict=True):
        assert new.label == served.label
        assert 0.5 <= new.confidence <= served.confidence

    parameters = [configs_of(copy, version)["car_analyzer"].parameters for version in (1, 2)]
    ids = [one["export_id"].string_value for one in parameters]
    assert ids[0] != ids[1]
    for model in ("car_analyzer", "preprocess"):
        assert json.loads((copy / model / "2" / "export.json").read_text())["export_id"] == ids[1]
    record = json.loads((copy / "car_analyzer" / "2" / "export.json").read_text())
    assert record["calibrated"]["copy_of"] == 1
    assert record["calibrated"]["heads"]["condition"]["temperature"] == found["temperature"]
    assert "drift" not in parameters[0]
    assert Reference.from_json(parameters[1]["drift"].string_value).photos == record["drift"]["photos"] == 120

    # It is calibrated now, and the same photos show nothing new.
    result = run(file)
    assert result.code == 4
    assert "Nothing was published: calibration does not help." in result.out
    assert on_disk(copy) == 2


def test_unsuitable_photos_and_repositories_are_refused(run: Any, copy: Path, pictures: Path, tmp_path: Path) -> None:
    before = tree(copy)
    result = run(pictures)
    assert result.code == 1
    assert "24 with a label of this head (100 are needed)" in result.err
    swapped = labelled(pictures, tmp_path / "swapped.csv", 0.9)
    result = run(swapped)
    assert result.code == 1
    assert "its labels may be in the wrong order" in result.err
    result = run(tmp_path / "none")
    assert (result.code, result.err.count("does not exist")) == (1, 1)
    assert tree(copy) == before
    result = run(pictures, "--repository", tmp_path / "empty")
    assert result.code == 1
    assert "has no version to calibrate" in result.err


def test_a_signed_repository_stays_signed(run: Any, signed: Path, keys: Keys, pictures: Path, tmp_path: Path) -> None:
    file = labelled(pictures, tmp_path / "labels.csv", 0.2)
    result = run(file)
    assert result.code == 1
    assert "--sign KEY" in result.err
    assert run(file, "--sign", keys.private).code == 0
    verify(signed, keys.public)
    assert (signed / SIGNATURE).exists()


def test_local_answers_are_those_of_the_reference_photos(repository: Path) -> None:
    references = read_references(repository, 1)
    folder = repository / "car_analyzer" / "1"
    photos = [LabelledPhoto(folder / one.name, one.name, {}) for one in references.photos]
    answers = LocalModel(repository, heads_of(repository, 1)).analyze_all(photos, lambda: None)
    for reference, answer in zip(references.photos, answers, strict=True):
        assert answer.analysis is not None
        for head, logits in reference.logits.items():
            assert answer.analysis.heads[head].logits == pytest.approx(logits, abs=1e-3)
