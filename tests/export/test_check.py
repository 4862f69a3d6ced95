"""`car-analyzer check` on a real Triton: counts, advice, reports, and errors in sentences."""

from __future__ import annotations

import html
import json
import re
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from car_analyzer._cli.main import main
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from tests.conftest import EXAMPLES, SMALL_TRITON, decided

from .labelled_photos import LABELS, PICTURES, Run, write_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.triton

# Each head is the demo's cleanliness with one thing wrong in its spec, and what is to be said about it.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "swapped": ({"labels": ["dirty", "clean"]}, 'under [heads.swapped], write labels = ["clean", "dirty"]'),
    "one_logit": ({"labels": ["dirty", "clean"]}, 'under [heads.one_logit], write labels = ["clean", "dirty"]'),
    "blue": ({"channels": "BGR"}, 'under [heads.blue], write channels = "RGB"'),
    "bare": ({"normalize": False}, "write mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225] in place of"),
    "zoomed": ({"shortest_edge": 900}, "under [heads.zoomed], remove shortest_edge"),
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def call(*arguments: object) -> Run:
        code = main(["check", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Run(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A repository and a server with a head for each fault."""
    folder = tmp_path_factory.mktemp("faulty")
    weights, network = EXAMPLES / "cleanliness_model.pth", EXAMPLES / "demo_network.py"
    heads = {
        name: {"weights": weights, "architecture": f"{network}:build", "labels": ["clean", "dirty"], **fault}
        for name, (fault, _) in FAULTS.items()
    }
    single = torch.load(weights, weights_only=True)
    for part in ("weight", "bias"):
        single[f"head.{part}"] = single[f"head.{part}"][1:] - single[f"head.{part}"][:1]
    torch.save(single, folder / "one_logit.pth")
    (folder / "one_logit.py").write_text(network.read_text().replace("nn.Linear(2 * 96, 2)", "nn.Linear(2 * 96, 1)"))
    heads["one_logit"] |= {"weights": folder / "one_logit.pth", "architecture": f"{folder / 'one_logit.py'}:build"}
    repository = folder / "model_repository"
    export(plan_export(decided(Spec.from_values({"heads": heads}, "faults"))), repository)
    with Server(Settings(repository, **SMALL_TRITON)) as running:
        yield SimpleNamespace(url=running.grpc_url, repository=repository)


def test_right_models_are_found_right(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(pictures, tmp_path / "photos")
    (photos / "dirty_intact" / "notes.txt").write_text("no photo")
    page = tmp_path / "check.html"
    result = run(
        *(photos, "--url", server.grpc_url, "--repository", server.repository),
        *("--json", "--report", page, "--min-accuracy", "0.9"),
    )
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["photos"] == PICTURES
    for head, labels in LABELS.items():
        counted = found["heads"][head]
        assert counted["photos"] == PICTURES
        assert counted["accuracy"] >= 0.95
        assert sum(counted["confusion"][label][label] for label in labels) == counted["right"]
    right = sum(head["right"] for head in found["heads"].values())
    assert right / (2 * PICTURES) >= 0.97
    assert found["warnings"] == found["failed"] == []
    assert found["notes"] == ["No other preprocessing fits clearly better."]
    # labels, normalisation, channels and crop
    assert len(found["readings"]["condition"]) > 10

    text = page.read_text()
    mistakes = sum(len(head["mistakes"]) for head in found["heads"].values())
    assert text.count("data:image/jpeg;base64,") == PICTURES + mistakes
    # Nothing is fetched from anywhere.
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|<script|<link""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_what_to_change(
    fault: str, run: Any, faulty: Any, pictures: Path, tmp_path: Path
) -> None:
    rows = [{"file": path, fault: path.parent.name.partition("_")[0]} for path in sorted(pictures.rglob("*.jpg"))]
    if fault == "blue":
        rows *= 2  # only five of the photos show it
    result = run(write_csv(tmp_path / "labels.csv", rows), "--url", faulty.url, "--repository", faulty.repository)
    assert result.code == 0
    assert FAULTS[fault][1] in result.words
    assert f"of {len(rows)} photos would be correct; now" in result.words
    assert "Support: of" in result.words
    assert result.out.count("WARNING") == 1


def test_turned_photos_are_noticed(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.jpg"):
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(path) as image:
            image.rotate(90, expand=True).save(tmp_path / f"{path.parent.name}_{path.name}", quality=90, exif=exif)
    result = run(tmp_path, "--url", server.grpc_url, "--repository", server.repository)
    assert "under [heads.condition], write exif_rotation = true; then export again." in result.words


def test_csv_with_gaps_and_failures(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    good = min(pictures.rglob("*.jpg"))
    (tmp_path / "near.jpg").write_bytes(good.read_bytes())
    (tmp_path / "<b>broken.jpg").write_bytes(b"no photo")
    rows = [
        {"file": "near.jpg", "Cleanliness": "Clean", "condition": "unknown", "source": "me"},
        {"file": good, "Cleanliness": "", "condition": "damaged", "source": "me"},
        {"file": good, "Cleanliness": "", "condition": "", "source": "me"},
        {"file": "<b>broken.jpg", "Cleanliness": "dirty", "condition": "", "source": "me"},
        {"file": "missing.jpg", "Cleanliness": "dirty", "condition": "", "source": "me"},
    ]
    file, page = write_csv(tmp_path / "labels.csv", rows), tmp_path / "check.html"
    result = run(file, "--url", server.http_url, "--repository", tmp_path / "none", "--report", page)
    assert result.code == 0
    assert "cleanliness: 100.0% right (1 of 1 photo;" in result.out
    assert "condition: 100.0% right (1 of 1 photo;" in result.out
    assert "2 photos could not be analysed" in result.out
    assert "missing.jpg: cannot read" in result.out
    assert "'unknown' in column condition is none of its labels" in result.out
    assert "was not tried" in result.words
    assert html.escape("<b>broken.jpg") in page.read_text()
    assert "<b>broken" not in page.read_text()


def test_the_report_shows_where_mistakes_come_from(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    right, wrong = sorted((pictures / "clean_damaged").glob("*.jpg"))[:2]
    rows = [
        {"file": right, "cleanliness": "clean", "condition": "damaged"},
        {"file": wrong, "cleanliness": "clean", "condition": "intact"},
        {"file": "missing.jpg", "cleanliness": "clean", "condition": "intact"},
    ]
    file, page = write_csv(tmp_path / "labels.csv", rows), tmp_path / "check.html"
    result = run(file, "--url", server.grpc_url, "--repository", server.repository, "--report", page)
    assert result.code == 0
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == len([right, wrong]) + 1
    assert text.count('<p class="caption soft">Where “damaged” (condition) comes from') == 1


def test_another_repository_is_not_believed(run: Any, server: Any, faulty: Any, pictures: Path) -> None:
    result = run(pictures, "--url", server.grpc_url, "--repository", faulty.repository)
    assert result.code == 0
    assert "are not those of the server" in result.words


def test_a_head_without_photos_is_named(run: Any, faulty: Any, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "clean_intact", tmp_path / "blue" / "clean")
    result = run(tmp_path, "--url", faulty.url, "--repository", faulty.repository)
    assert "bare was not checked. It shares labels with swapped, one_logit, blue, zoomed" in result.words
    assert "blue: all photos are 'clean'" in result.words


def test_minimum_accuracy(run: Any, faulty: Any, pictures: Path, tmp_path: Path) -> None:
    rows = [{"file": path, "swapped": path.parent.name.partition("_")[0]} for path in pictures.rglob("*.jpg")]
    file = write_csv(tmp_path / "labels.csv", rows)
    result = run(file, "--url", faulty.url, "--repository", tmp_path, "--min-accuracy", "0.5")
    assert result.code == 1
    assert "swapped is right on" in result.err
    assert "below 50.0%" in result.err


def test_errors_are_sentences(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere")
    assert (result.code, result.out) == (1, "")
    assert "nowhere does not exist" in result.err

    (tmp_path / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "1.png")
    result = run(tmp_path, "--url", server.grpc_url)
    assert (result.code, result.out) == (1, "")
    assert "has no photo with a label of this model (cleanliness: clean, dirty; condition: intact" in result.err
    assert "Photos in the folder cats/" in result.err

    (tmp_path / "dirty_cars.jpg").write_bytes(b"")
    assert "None of the 1 photos could be analysed" in run(tmp_path, "--url", server.grpc_url).err

    result = run(pictures, "--url", "grpc://127.0.0.1:9")
    assert (result.code, result.out) == (3, "")
    assert "car-analyzer serve" in result.err

    for wrong in (["--min-accuracy", "90"], ["--url", "ftp://x"], ["--report", tmp_path / "no" / "x.html"], ["--x"]):
        assert run(pictures, *wrong).code == 2
