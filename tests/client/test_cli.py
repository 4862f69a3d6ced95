"""The command, as a shell runs it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from car_analyzer import ConfigurationError
from car_analyzer._cli.overlays import Overlays
from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from reliability.proxy import Proxy

COMMAND = [sys.executable, "-W", "error", "-m", "car_analyzer"]
KEYS = ["cleanliness", "cleanlinessConfidence", "condition", "conditionConfidence", "processingTime"]


def run(*words: Any, code: int = 0, **options: Any) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        [*COMMAND, *map(os.fspath, words)], capture_output=True, timeout=PATIENCE_S, check=False, **options
    )
    assert result.returncode == code, result.stderr.decode()
    assert b"Traceback" not in result.stderr
    if code in (0, 1):
        assert result.stderr == b""
    return result


def lines(result: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, sample_photos: list[Path]) -> Path:
    """Two photos, a text named like a photo, another text, and a photo in a subfolder."""
    for name, photo in [("car10.jpg", 0), ("car2.JPG", 1), ("deep/car1.jpg", 2)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(sample_photos[photo], tmp_path / name)
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "notes.txt").write_text("nor this")
    return tmp_path


def test_one_photo_is_one_object(url: str, sample_photos: list[Path]) -> None:
    result = run("analyze", sample_photos[0], "--url", url)
    (fields,) = lines(result)
    assert list(fields) == KEYS
    assert fields["cleanliness"] in ("clean", "dirty")
    assert fields["condition"] in ("intact", "damaged")
    assert 0.5 <= fields["cleanlinessConfidence"] <= 1
    assert fields["processingTime"] > 0


def test_explanations_are_pictures(url: str, sample_photos: list[Path], tmp_path: Path) -> None:
    maps = tmp_path / "new" / "maps"
    (fields,) = lines(run("analyze", sample_photos[2], "--url", url, "--explain", maps))
    assert list(fields) == [*KEYS, "explanations"]
    files = [maps / f"{sample_photos[2].name}.{head}.png" for head in ("cleanliness", "condition")]
    assert sorted(maps.iterdir()) == files
    for file, explanation in zip(files, fields["explanations"].values(), strict=True):
        assert explanation["file"] == str(file)
        assert explanation["method"] in ("cam", "occlusion")
        with Image.open(file) as picture, Image.open(sample_photos[2]) as photo:
            assert picture.size == photo.size
    table = run("analyze", sample_photos[2], tmp_path / "none.jpg", "--url", url, "--table", "--explain", maps, code=1)
    assert f"{fields['explanations']['condition']['method']}: {files[1]}".encode() in table.stdout
    content = sample_photos[2].read_bytes()
    (fields,) = lines(run("analyze", "-", "--url", url, "--explain", maps, input=content))
    assert fields["explanations"]["condition"]["file"] == str(maps / "stdin.condition.png")


def test_pictures_of_explanations_stay_in_their_folder(tmp_path: Path) -> None:
    overlays = Overlays(str(tmp_path / "maps"), ["a/car.jpg", "b/car.png", "a/car.jpg"])
    assert overlays.path("a/car.jpg", "../../x") == str(tmp_path / "maps" / "car.jpg.______x.png")
    with pytest.raises(ConfigurationError, match="a/car.jpg and b/car.jpg have the same name"):
        Overlays(str(tmp_path / "other"), ["a/car.jpg", "b/car.jpg"])
    assert not (tmp_path / "other").exists()


def test_the_model_that_answered_on_request(url: str, sample_photos: list[Path], tmp_path: Path) -> None:
    (report,) = lines(run("health", "--url", url))
    (fields,) = lines(run("analyze", sample_photos[0], "--url", url, "--with-model"))
    assert list(fields) == [*KEYS, "modelVersion", "exportId"]
    assert (fields["modelVersion"], fields["exportId"]) == (report["version"], report["exportId"])
    output = tmp_path / "answers.jsonl"
    subprocess.run(
        [*COMMAND, "analyze", sample_photos[0], "--url", url, "--with-model", "--output", output], check=True
    )
    assert list(json.loads(output.read_bytes())) == ["image", *KEYS, "modelVersion", "exportId"]


def test_url_may_come_from_the_environment(url: str, sample_photos: list[Path]) -> None:
    (fields,) = lines(run("analyze", sample_photos[0], env={**os.environ, "CAR_ANALYZER_URL": url}))
    assert list(fields) == KEYS


def test_standard_input(url: str, sample_photos: list[Path]) -> None:
    from_input = lines(run("analyze", "-", "--url", url, input=sample_photos[0].read_bytes()))[0]
    from_file = lines(run("analyze", sample_photos[0], "--url", url))[0]
    assert list(from_input) == KEYS
    assert from_input["cleanlinessConfidence"] == from_file["cleanlinessConfidence"]
    (error,) = lines(run("analyze", "-", "--url", url, input=b"", code=1))
    assert list(error) == ["image", "error", "code"]
    assert error["image"] == "-"


def test_folder_is_lines_in_natural_order(url: str, folder: Path) -> None:
    results = lines(run("analyze", folder, "--url", url, code=1))
    assert [line["image"] for line in results] == [f"{folder}/{name}" for name in ("car2.JPG", "car10.jpg", "text.jpg")]
    assert [list(line) for line in results] == [["image", *KEYS], ["image", *KEYS], ["image", "error", "code"]]


def test_folders_below_are_for_recursive(url: str, folder: Path) -> None:
    results = lines(run("analyze", folder, "--recursive", "--url", url, code=1))
    assert [os.path.relpath(line["image"], folder) for line in results] == [
        "car2.JPG",
        "car10.jpg",
        "deep/car1.jpg",
        "text.jpg",
    ]


def test_missing_files_do_not_stop_the_others(url: str, sample_photos: list[Path], tmp_path: Path) -> None:
    absent = tmp_path / "absent.jpg"
    results = lines(run("analyze", absent, tmp_path, sample_photos[0], "--url", url, code=1))
    assert [line["image"] for line in results] == [str(absent), str(tmp_path), str(sample_photos[0])]
    assert "No such file" in results[0]["error"]
    assert "no photo" in results[1]["error"]
    assert list(results[2]) == ["image", *KEYS]
    (alone,) = lines(run("analyze", absent, "--url", url, code=1))
    assert list(alone) == ["image", "error", "code"]


def test_names_that_are_not_valid_text(url: str, sample_photos: list[Path], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n\x1b[2J.jpg")
    shutil.copy(sample_photos[0], name)
    for environment in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        env = {**os.environ, **environment}
        (line,) = lines(run("analyze", tmp_path, "--url", url, env=env))
        assert line["image"] == name
        table = run("analyze", tmp_path, name + "x", "--table", "--url", url, env=env, code=1)
        assert len(table.stdout.splitlines()) == 3
        assert b"\x1b" not in table.stdout


def test_table_is_aligned(url: str, folder: Path) -> None:
    head, *rows, error = run("analyze", folder, "--table", "--url", url, code=1).stdout.decode().splitlines()
    assert re.fullmatch(r"photo +cleanliness +condition +ms", head)
    columns = [head.index(word) for word in ("cleanliness", "condition")]
    assert len(rows) == 2
    for row in rows:
        assert re.fullmatch(r"\S+ +(clean|dirty) [\d.]+% +(intact|damaged) [\d.]+% +[\d.]+", row)
        assert all(row[column - 2 : column].isspace() and not row[column].isspace() for column in columns)
    assert re.match(r"\S+text\.jpg +\S", error)


def test_a_missing_server_is_reported_in_seconds(nowhere: str, sample_photos: list[Path], folder: Path) -> None:
    for words in ([sample_photos[0]], [folder], [folder, "--table"]):
        result = run("analyze", *words, "--url", nowhere, code=3)
        assert result.stdout == b""
        assert nowhere in result.stderr.decode()
        assert b"car-analyzer serve" in result.stderr
    (report,) = lines(run("health", "--url", nowhere, code=3))
    assert list(report) == ["status", "url", "models", "message"]
    assert report["status"] == "unavailable"


def test_server_that_goes_away(
    server: SimpleNamespace, make_proxy: Callable[..., Proxy], sample_photos: list[Path]
) -> None:
    # Over HTTP only: the Triton in the PyPI wheel may crash when a gRPC call to an ensemble is interrupted.
    proxy = make_proxy(server.http_url).listen()
    proxy_url = f"http://127.0.0.1:{proxy.port}"
    words = ["analyze", *map(str, sample_photos[:1] * 5000), "--url", proxy_url, "--concurrency", "1"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        proxy.refuse()
        rest, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert b"car-analyzer serve" in errors
    assert b"Traceback" not in errors
    assert all(json.loads(line)["cleanliness"] for line in [*first, *rest.splitlines()])


def test_waiting_for_a_server_that_comes_later(proxy: Proxy, proxy_url: str) -> None:
    words = ["health", "--url", proxy_url, "--wait", str(PATIENCE_S)]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        proxy.listen()
        report, errors = process.communicate(timeout=2 * PATIENCE_S)
    assert (process.returncode, errors) == (0, b"")
    assert json.loads(report)["status"] == "OK"


def test_waiting_in_vain(nowhere: str, server: SimpleNamespace) -> None:
    result = run("health", "--url", nowhere, "--wait", "0.1", code=3)
    assert lines(result)[0]["status"] == "unavailable"
    assert re.fullmatch(rb"car-analyzer health: not ready within 0\.1 s: no server answers .*refused\n", result.stderr)
    result = run("health", "--url", server.http_url, "--model", "another", "--wait", "0.1", code=3)
    assert b"not ready within 0.1 s" in result.stderr
    assert b"another" in result.stderr


def test_health_of_a_server_that_is_ready(url: str) -> None:
    (report,) = lines(run("health", "--url", url))
    assert len(report.pop("exportId")) == 16
    assert report == {
        "status": "OK",
        "url": url,
        "models": dict.fromkeys(["car_analyzer", "preprocess", "cleanliness", "condition"], True),
        "version": "1",
        "description": "Two small networks, trained on drawn cars. On photographs their answers mean nothing.",
        "demo": True,
    }


def test_reader_that_has_seen_enough(url: str, sample_photos: list[Path]) -> None:
    words = ["analyze", *map(str, sample_photos[:1] * 2000), "--url", url]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["image"]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE_S) == 141


def test_full_disk_is_reported(url: str, sample_photos: list[Path]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        result = subprocess.run(
            [*COMMAND, "analyze", sample_photos[0], "--url", url], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert result.returncode == 1
    assert result.stderr == b"car-analyzer: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("waits_for", ["input", "answer"])
def test_ctrl_c(waits_for: str, proxy: Proxy, proxy_url: str, sample_photos: list[Path]) -> None:
    proxy.listen()
    photo = str(sample_photos[0])
    photos = [photo, "-"] if waits_for == "input" else [photo] * 2000
    with subprocess.Popen(
        [*COMMAND, "analyze", *photos, "--url", proxy_url, "--concurrency", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # If this process was started in the background, it and its children would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if waits_for == "answer":
            proxy.freeze()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert errors == b""


def test_a_bar_for_people_and_only_for_many(url: str, sample_photos: list[Path]) -> None:
    for count, has_bar in [(1, False), (3, True)]:
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        words = ["analyze", *map(str, sample_photos[:count]), "--url", url]
        try:
            result = subprocess.run(
                [*COMMAND, *words], stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=PATIENCE_S
            )
            try:
                shown = os.read(ours, 65536)
            except BlockingIOError:
                shown = b""
        finally:
            os.close(theirs)
            os.close(ours)
        assert len(lines(result)) == count
        assert (b"photo" in shown) is has_bar


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["analyze"],
        ["analyse", "car.jpg"],
        ["analyze", "car.jpg", "--timeout", "0"],
        ["analyze", "car.jpg", "--concurrency", "none"],
        ["analyze", "car.jpg", "--url", "ftp://triton"],
        ["analyze", "car.jpg", "--with-model", "--table"],
        ["analyze", "--from", "list.txt", "--explain", "maps"],
        ["analyze", "https://example.com/car.jpg", "--explain", "maps"],
        ["analyze", "car.jpg", "--explain", "/dev/null"],
        ["analyze", "front/car.jpg", "rear/car.jpg", "--explain", "maps"],
        ["health", "--url", "grpc://user:secret@triton"],
        ["health", "car.jpg"],
        ["health", "--wait", "0"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    result = run(*words, code=2)
    assert result.stdout == b""
    assert b"car-analyzer" in result.stderr
    assert b"secret@" not in result.stderr


@pytest.mark.parametrize("words", [["--help"], ["analyze", "--help"], ["health", "--help"]])
def test_help_has_an_example(words: list[str]) -> None:
    assert b"\n  car-analyzer " in run(*words).stdout


def test_version() -> None:
    assert re.fullmatch(rb"car-analyzer \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(("command", "package"), [("export", "car_analyzer_export"), ("serve", "car_analyzer_server")])
def test_commands_of_other_packages(command: str, package: str) -> None:
    assert f"car-analyzer {command}".encode() in run(command, "--help").stdout
    # As in an installation without that extra: the package cannot be imported.
    code = f"import sys; sys.modules[{package!r}] = None; from car_analyzer._cli.main import main; sys.exit(main())"
    extra = {"export": "export", "serve": "server"}[command]
    result = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"pip install 'car-analyzer[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr
