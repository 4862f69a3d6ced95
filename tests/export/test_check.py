"""`car-analyzer check` on a real Triton: counts, findings in words, reports, and errors in sentences."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from car_analyzer._cli.main import main
from car_analyzer.heads import HeadSpec
from car_analyzer_export.checking.advice import advise
from car_analyzer_export.checking.errors import CheckError
from car_analyzer_export.checking.labelled import find_labelled
from car_analyzer_export.checking.readings import IMAGENET, Fit, Reading
from car_analyzer_export.checking.tally import interval
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from tests.conftest import EXAMPLES, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}
PICTURES = 24

# Each head is the demo's cleanliness with one thing wrong in its spec, and what is to be said about it.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "swapped": ({"labels": ["dirty", "clean"]}, 'under [heads.swapped], write labels = ["clean", "dirty"]'),
    "one_logit": ({"labels": ["dirty", "clean"]}, 'under [heads.one_logit], write labels = ["clean", "dirty"]'),
    "blue": ({"channels": "BGR"}, 'under [heads.blue], write channels = "RGB"'),
    "bare": ({"normalize": False}, "write mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225] in place of"),
    "zoomed": ({"shortest_edge": 900}, "under [heads.zoomed], remove shortest_edge"),
}


class Run(SimpleNamespace):
    """What a run of the command left."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The output without its line breaks."""
        return " ".join(self.out.split())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def call(*arguments: object) -> Run:
        code = main(["check", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Run(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn cars, none of which the demo models were trained with, in folders such as `dirty_intact`."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from train_demo_models import COMBINATIONS, draw_jpeg
    finally:
        sys.path.remove(str(EXAMPLES))
    folder = tmp_path_factory.mktemp("labelled")
    for number in range(PICTURES):
        file = folder / COMBINATIONS[number % 4] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(draw_jpeg(7, 3_000_000 + number))
    return folder


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
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0)) as running:
        yield SimpleNamespace(url=running.grpc_url, repository=repository)


def write_csv(file: Path, rows: list[dict[str, Any]]) -> Path:
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_right_models_are_found_right(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    (pictures / "dirty_intact" / "notes.txt").write_text("no photo")
    page = tmp_path / "check.html"
    result = run(
        *(pictures, "--url", server.grpc_url, "--repository", server.repository),
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
    assert found["notes"] == ["No other reading of the photos fits clearly better."]
    # labels, normalisation, channels and crop
    assert len(found["readings"]["condition"]) > 10

    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == PICTURES
    # Nothing is fetched from anywhere.
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|<script|<link""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_what_to_change(
    fault: str, run: Any, faulty: Any, pictures: Path, tmp_path: Path
) -> None:
    rows = [{"file": path, fault: path.parent.name.partition("_")[0]} for path in sorted(pictures.rglob("*.jpg"))]
    result = run(write_csv(tmp_path / "labels.csv", rows), "--url", faulty.url, "--repository", faulty.repository)
    assert result.code == 0
    assert FAULTS[fault][1] in result.words
    assert f"of {PICTURES} photos are right; as served" in result.words
    assert result.out.count("WARNING") == 1


def test_turned_photos_are_noticed(run: Any, server: Any, pictures: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.jpg"):
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(path) as image:
            image.rotate(90, expand=True).save(tmp_path / f"{path.parent.name}_{path.name}", quality=90, exif=exif)
    result = run(tmp_path, "--url", server.grpc_url, "--repository", server.repository)
    assert "under [heads.cleanliness], write exif_rotation = true; then export again." in result.words


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
    assert "were not tried" in result.words
    assert html.escape("<b>broken.jpg") in page.read_text()
    assert "<b>broken" not in page.read_text()


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
    assert "holds no photo with a label of this model (cleanliness: clean, dirty; condition: intact" in result.err
    assert "Photos in the folder cats/" in result.err

    (tmp_path / "dirty_cars.jpg").write_bytes(b"")
    assert "None of the 1 photos could be analysed" in run(tmp_path, "--url", server.grpc_url).err

    result = run(pictures, "--url", "grpc://127.0.0.1:9")
    assert (result.code, result.out) == (3, "")
    assert "car-analyzer serve" in result.err

    for wrong in (["--min-accuracy", "90"], ["--url", "ftp://x"], ["--report", tmp_path / "no" / "x.html"], ["--x"]):
        assert run(pictures, *wrong).code == 2


@pytest.fixture
def export_checked(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Exports the demo's cleanliness with its labels in an order, checked on drawn cars."""

    def call(labels: list[str], *arguments: object) -> Run:
        spec = tmp_path / "spec.toml"
        spec.write_text(
            f"""[heads.cleanliness]
            weights = "{EXAMPLES / "cleanliness_model.pth"}"
            architecture = "{EXAMPLES / "demo_network.py"}:build"
            decoding = "scaled"
            labels = {json.dumps(labels)}"""
        )
        rows = [{"file": path, "cleanliness": path.parent.name.partition("_")[0]} for path in pictures.rglob("*.jpg")]
        labelled = write_csv(tmp_path / "labels.csv", rows)
        flags = ("--check", labelled, "--repository", tmp_path / "models", *arguments)
        code = main(["export", str(spec), *map(str, flags)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Run(code=code, out=out, err=err)

    return call


def test_an_export_that_knows_the_photos_is_published(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["clean", "dirty"])
    assert result.code == 0
    assert f"cleanliness: 100.0% right ({PICTURES} of {PICTURES} photos;" in result.out
    assert "is \\ says" in result.out
    record = json.loads((tmp_path / "models" / "cleanliness" / "1" / "export.json").read_text())
    assert record["checked"] == {"cleanliness": {"photos": PICTURES, "right": PICTURES}}


def test_an_export_that_does_not_know_the_photos_is_refused(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["dirty", "clean"])
    assert result.code == 1
    assert "cleanliness: 0.0% right" in result.out
    assert 'under [heads.cleanliness], write labels = ["clean", "dirty"]' in result.words
    assert "'cleanliness' is right on 0.0% of 24 labelled photos (0.0% on average over the labels), no " in result.err
    assert "Nothing was published." in result.err
    assert not (tmp_path / "models").exists()
    assert export_checked(["dirty", "clean"], "--dry-run", "--min-accuracy", "0").code == 0


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


def test_errors_of_a_check_before_publishing_are_sentences(export_checked: Any, tmp_path: Path) -> None:
    result = export_checked(["clean", "dirty"], "--check", tmp_path / "nowhere")
    assert result.code == 1
    assert "--check: " in result.err
    assert "nowhere does not exist" in result.err
    (tmp_path / "dirty_1.jpg").write_bytes(b"")
    assert "The photo is empty" in export_checked(["clean", "dirty"], "--check", tmp_path).err


@pytest.mark.parametrize(
    ("path", "truth"),
    [
        ("clean/1.jpg", {"cleanliness": "clean"}),
        ("train/Dirty/intact.jpg", {"cleanliness": "dirty"}),
        ("cleanliness/dirty/x.jpg", {"cleanliness": "dirty"}),
        ("dirty_intact/x.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("dirty/damaged/x.jpg", {"cleanliness": "dirty", "condition": "damaged"}),
        ("clean/dirty/x.jpg", {"cleanliness": "dirty"}),
        ("dirty-intact-2.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("others/dirty_intact_2.jpg", {"cleanliness": "dirty", "condition": "intact"}),
        ("tires/yes/1.jpg", {"tires": "yes"}),
        ("glass_no/1.jpg", {"glass": "no"}),
        ("grade/2/1.jpg", {"grade": "2"}),
        ("yes/1.jpg", None),
        ("not so clean/1.jpg", None),
        ("2_3.jpg", None),
        ("clean/notes.txt", None),
    ],
)
def test_labels_in_paths(path: str, truth: dict[str, str] | None, tmp_path: Path) -> None:
    labels = {**LABELS, "tires": ("no", "yes"), "glass": ("no", "yes"), "grade": ("1", "2")}
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    if truth is None:
        with pytest.raises(CheckError):
            find_labelled(tmp_path, labels)
    else:
        (photo,) = find_labelled(tmp_path, labels).photos
        assert photo.truth == truth


def test_several_labels_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('file;marks\na.jpg;scratch, dent\nb.jpg;none\nc.jpg;\nd.jpg;dent, "rust"\n')
    found = find_labelled(tmp_path / "a.csv", {"marks": ("dent", "scratch", "rust")}, frozenset({"marks"}))
    assert [photo.truth["marks"] for photo in found.photos] == ["dent, scratch", "", "dent, rust"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "file\nx.jpg\n", "file,cleanliness\n", "\0\0"])
def test_useless_csv(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(CheckError):
        find_labelled(tmp_path / "labels.csv", LABELS)


def fits(truths: str, served: str, other: str) -> list[Fit]:
    """Two readings of the same photos; a letter is a label."""
    head = HeadSpec("mud", "mud_logits", ("c", "d"), "softmax", None, "d")
    network: Any = SimpleNamespace(name="mud", heads=[head], combined=frozenset())
    reading = Reading(View(), "RGB", IMAGENET)
    changed = replace(reading, channels="BGR")
    return [
        Fit(network, head, one, changes, [a == b for a, b in zip(truths, said, strict=True)], list(truths))
        for one, changes, said in ((reading, 0, served), (changed, 1, other))
    ]


def test_advice_weighs_how_many_photos_there_are() -> None:
    clear = advise(fits("cd" * 10, "cc" * 10, "cd" * 10))
    assert clear is not None
    assert clear.sure
    assert (clear.photos, clear.right_now, clear.right_then) == (20, 10, 20)
    few = advise([*fits("cdcdcd", "dcdcdc", "cdcdcd"), *fits("cdcdcd", "dcdcdc", "dcdcdc")[1:] * 5])
    assert few is not None
    assert not few.sure
    assert "6 photos are few" in few.sentence


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("threshold", "said"), [(None, False), (0.5, False), (0.3, True)])
def test_advice_keeps_the_label_that_a_threshold_is_about(activation: str, threshold: float | None, said: bool) -> None:
    served, other = fits("cd" * 10, "dc" * 10, "cd" * 10)
    served.head = replace(served.head, activation=activation, threshold=threshold)
    other.head = replace(served.head, labels=("d", "c"))
    found = advise([served, other])
    assert found is not None
    assert ('write labels = ["d", "c"] and positive = "d"' in found.sentence) == said


@pytest.mark.parametrize(
    ("truths", "served", "other"),
    [
        ("cdcd", "dcdc", "cdcd"),  # too few
        ("cdcdcdcd", "cccccccd", "ccccdcdd"),  # may be chance
        ("dddddddd", "cccccccc", "dddddddd"),  # one label only
        ("dddddddddc", "cccccccccc", "dddddddddd"),  # always the same answer, now the more frequent one
        ("cd" * 50, "cd" * 45 + "dc" * 5, "cd" * 50),  # good enough as it is
    ],
)
def test_no_advice_without_grounds(truths: str, served: str, other: str) -> None:
    assert advise(fits(truths, served, other)) is None


def test_interval() -> None:
    assert interval(10, 10) == pytest.approx((0.722, 1), abs=1e-3)
    assert interval(0, 10) == pytest.approx((0, 0.278), abs=1e-3)
    assert interval(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)
