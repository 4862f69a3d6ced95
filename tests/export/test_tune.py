"""`car-analyzer tune`: measures real servers, and writes what serves most photos within the budget."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from car_analyzer._cli.main import main as command_line
from car_analyzer_export.cli import tune as tune_command
from car_analyzer_export.cli.tune import _noise, _winner, main
from car_analyzer_export.repository.config import as_text
from car_analyzer_export.repository.versions import config_on_disk, configs_of, locked, serve_from_next_start
from car_analyzer_export.spec import Limits
from car_analyzer_export.tuning import trial as trial_module
from car_analyzer_export.tuning.choice import Choice, around, variations
from car_analyzer_export.tuning.trial import Point, Trial
from car_analyzer_server import Server, Settings

from .publish_site import Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

SERVED = Choice(2, 1, 0, 0)


def trial(choice: Choice, *points: tuple[float, float]) -> Trial:
    return Trial(choice, tuple(Point(n, rate, p99 / 2, p99) for n, (rate, p99) in enumerate(points, start=1)))


def texts(repository: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in repository.glob("*/config.pbtxt")}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(tune_command, "variations", lambda *_: [("preprocess_instances", (2, 3))])
    found: dict[Choice, Trial] = {}

    def measure_once(*arguments: Any) -> Trial:
        choice = arguments[3]
        if choice not in found:
            found[choice] = trial_module.serve_and_measure(*arguments)
        return found[choice]

    monkeypatch.setattr(tune_command, "serve_and_measure", measure_once)
    return ["--callers", "1", "4", "--seconds", "0.5"]


def test_the_best_is_written(
    copy: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, command = texts(copy), ["--repository", str(copy), *quick]
    # Whatever was measured, the other settings are chosen.
    monkeypatch.setattr(tune_command, "_winner", lambda trials, _: trials[:2][-1])
    monkeypatch.setattr(tune_command, "_noise", lambda *_: None)
    assert main([*command, "--write", "--json", "--plot", str(tmp_path / "tune.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["choice"]["preprocess_instances"] for one in found["trials"]] == [2, 3, 2]
    assert (found["written"], found["noise"]) == (True, None)
    for one in found["trials"]:
        assert [point["callers"] for point in one["points"]] == [1, 4]
        assert all(point["rate"] > 0 and 0 < point["p50"] <= point["p99"] < math.inf for point in one["points"])
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert {model for model, text in texts(copy).items() if text != before[model]} == {"preprocess"}
    assert Choice.of(configs_of(copy, 1)) == Choice(3, 1, 0, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_service_that_needs_longer_than_is_measured(
    server: SimpleNamespace, sample_photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "WARM_UP_S", 0)
    measured = trial_module._measure(server.grpc_url, [sample_photos[0].read_bytes()], [1, 4], 1e-6)
    assert all(point.rate > 0 and 0 < point.p50 <= point.p99 < math.inf for point in asyncio.run(measured))


def test_what_is_only_reported(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(copy)
    measured = [trial(SERVED, (50, 20)), trial(Choice(4, 2, 1, 500), (90, 30))]
    monkeypatch.setattr(tune_command, "_search", lambda *_: measured)
    command = ["--repository", str(copy)]
    for flags in ([], ["--dry-run"]):
        assert main([*command, *flags]) == 0
        out = capsys.readouterr().out
        assert "Not written; --write would write this. For the spec:\n[limits]\n" in out
        assert "\npreprocess_instances = 4  # before: 2\n" in out
    command.append("--write")
    assert main([*command, "--budget", "25"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert main([*command, "--budget", "1"]) == 1
    assert "No settings reach a p99 latency of 1 ms." in capsys.readouterr().out
    measured.append(trial(SERVED, (75, 20)))
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "too noisy to tell: the current settings served 50.0 and 75.0 photos a second, which differ" in out
    assert out.endswith("Nothing was changed.\n")
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["best"]["preprocess_instances"], found["written"]) == (2, False)
    assert "too noisy" in found["noise"]
    assert texts(copy) == before


def change(repository: Path, model: str, edit: Callable[[Any], None]) -> None:
    config = config_on_disk(repository, model)
    edit(config)
    (repository / model / "config.pbtxt").write_text(as_text(config))


def tune_while(repository: Path, happens: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command; something happens after it read the repository and before it writes there."""
    measured = [trial(SERVED, (50, 20)), trial(Choice(4, 2, 1, 500), (90, 30))]

    def search(*_: object) -> list[Trial]:
        happens()
        return measured

    monkeypatch.setattr(tune_command, "_search", search)
    return main(["--repository", str(repository), "--write"])


def test_a_version_that_was_published_meanwhile_stays(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def publish() -> None:
        with locked(copy):
            serve_from_next_start(copy, published)

    site = Site(tmp_path, copy, Server(Settings(copy)))  # not started
    published = site.again()
    assert tune_while(copy, publish, monkeypatch) == 1
    assert site.on_disk() == published
    stored = {file.stem: file.read_text() for file in copy.glob(f"car_analyzer/{published}/configs/*")}
    assert texts(copy) == stored
    out, err = capsys.readouterr()
    assert f"Version 1 was measured, but {copy} now serves version {published}; nothing was written." in err
    assert "Not written.\n[limits]\npreprocess_instances = 4  # before: 2\n" in out


def test_another_export_of_the_same_version_stays(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export_again() -> None:
        change(copy, "car_analyzer", lambda config: setattr(config.parameters["export_id"], "string_value", "another"))
        shutil.copy(
            copy / "car_analyzer" / "config.pbtxt", copy / "car_analyzer" / "1" / "configs" / "car_analyzer.pbtxt"
        )

    assert tune_while(copy, export_again, monkeypatch) == 1
    assert Choice.of(configs_of(copy, 1)) == SERVED
    assert f"Version 1 in {copy} is another export than the one that was measured" in capsys.readouterr().err


def test_settings_that_were_changed_meanwhile_stay(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit() -> None:
        change(copy, "condition", lambda config: setattr(config.instance_group[0], "count", 5))

    assert tune_while(copy, edit, monkeypatch) == 1
    assert config_on_disk(copy, "condition").instance_group[0].count == 5
    assert Choice.of(configs_of(copy, 1)) == SERVED
    assert "were changed during the measurements" in capsys.readouterr().err


def test_only_what_was_tuned_is_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit() -> None:
        change(copy, "preprocess", lambda config: setattr(config, "max_batch_size", 17))
        with (copy / "car_analyzer" / "config.pbtxt").open("a") as file:
            file.write("# by hand\n")

    assert tune_while(copy, edit, monkeypatch) == 0
    assert config_on_disk(copy, "preprocess").max_batch_size == 17
    assert Choice.of(configs_of(copy, 1)) == Choice(4, 2, 1, 500)
    assert texts(copy)["car_analyzer"].endswith("# by hand\n")


def test_the_winner() -> None:
    served = trial(SERVED, (50, 20), (100, 90))
    faster = trial(Choice(4, 1, 0, 0), (60, 30), (150, 200))
    little = trial(Choice(3, 1, 0, 0), (50, 20), (102, 90))
    assert _winner([served, faster], math.inf) is faster
    assert _winner([served, faster], 100) is served
    assert _winner([served, little], math.inf) is served
    assert _winner([served, faster], 25) is served
    assert _winner([served, faster], 10) is None


def test_what_is_too_noisy() -> None:
    other = Choice(4, 1, 0, 0)
    first = trial(SERVED, (50, 20))
    assert _noise([first, trial(other, (51, 20)), trial(SERVED, (51, 20))], math.inf) is None  # no gain either
    assert _noise([first, trial(other, (90, 20)), trial(SERVED, (60, 20))], math.inf) is None
    assert _noise([first, trial(other, (65, 20)), trial(SERVED, (60, 20))], math.inf) is not None
    assert _noise([first, trial(other, (55, 20)), trial(SERVED, (60, 20))], math.inf) is not None
    assert "50.0 and 0 (the p99 latency was too high)" in str(
        _noise([first, trial(other, (90, 20)), trial(SERVED, (50, 90))], 30)
    )
    assert _noise([first, trial(SERVED, (60, 20))], 10) is None
    faster = trial(other, (61, 20))
    assert _winner([first, faster, trial(SERVED, (60, 20))], math.inf) is first


def test_choices_and_configurations(repository: Path) -> None:
    configs = configs_of(repository, 1)
    assert Choice.of(configs) == SERVED
    for other in (Choice(7, 2, 3, 500), SERVED):
        other.write_to(configs)
        assert Choice.of(configs) == other
    assert configs == configs_of(repository, 1)


@pytest.mark.parametrize(("cores", "networks"), [(1, 2), (2, 2), (16, 2), (64, 1)])
def test_what_is_tried_can_be_served(cores: int, networks: int) -> None:
    for field, values in variations(cores, networks):
        assert values == tuple(sorted(set(values)))
        for found in around(SERVED, field, values):
            assert found != SERVED
            assert found.preprocess_instances >= 0
            assert found.network_instances >= 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--repository", "none"], 1, "none serves no version"),
        (["--photos", "none"], 1, "none is not a folder with photos"),
        (["--budget", "-1"], 2, "'-1' is not a number above zero"),
        (["--budget", "soon"], 2, "'soon' is not a number above zero"),
        (["--write", "--dry-run"], 2, "not allowed with argument"),
        (["--callers", "0"], 2, "'0' is not a whole number from 1"),
    ],
)
def test_usage(flags: list[str], code: int, message: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["tune", "--repository", str(copy), *flags]) == code
    assert message in capsys.readouterr().err


def test_a_plot_needs_an_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command_line(["tune", "--plot", "tune.png"]) == 2
    assert (
        "--plot needs matplotlib, which is not installed: pip install 'car-analyzer[plot]'" in capsys.readouterr().err
    )


def test_photos_that_are_none(copy: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    assert main(["--repository", str(copy), *quick, "--photos", str(tmp_path / "photos")]) == 1
    assert "none of the photos is accepted" in capsys.readouterr().err


def test_names_are_those_of_the_spec() -> None:
    assert set(Choice.__dataclass_fields__) <= set(Limits.model_fields)
