"""Bulk runs: from lists, folders and object storage to a file, killed and continued."""

from __future__ import annotations

import fcntl
import functools
import http.server
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from car_analyzer import PhotoError
from car_analyzer._cli import sources
from tests.conftest import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace

COMMAND = [sys.executable, "-W", "error", "-m", "car_analyzer", "analyze"]


def run(*words: Any, code: int = 0, **options: Any) -> str:
    """Standard output and standard error together."""
    result = subprocess.run(
        [*COMMAND, *map(os.fspath, words)], capture_output=True, timeout=120, check=False, text=True, **options
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def read(output: Path) -> dict[str, dict[str, Any]]:
    """The answers by photo; each photo may be there only once."""
    assert output.read_bytes().endswith(b"\n")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    answers = {line["image"]: line for line in lines}
    assert len(answers) == len(lines)
    return answers


@pytest.fixture
def many(tmp_path: Path, sample_photos: list[Path]) -> list[Path]:
    """Many names for the few sample photos, which start with their labels."""
    folder = tmp_path / "many"
    folder.mkdir()
    photos = []
    for number in range(200):
        photo = sample_photos[number % len(sample_photos)]
        photos.append(folder / f"{photo.stem}-{number}.jpg")
        photos[-1].symlink_to(photo)
    return photos


@pytest.fixture
def listing(tmp_path: Path, many: list[Path]) -> Path:
    """A list of them."""
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{photo}\n" for photo in many))
    return file


def test_photos_of_all_kinds(server: SimpleNamespace, sample_photos: list[Path], tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(sample_photos[0].parent))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever).start()
    address = f"http://127.0.0.1:{web.server_port}"
    (tmp_path / "text.jpg").write_text("no photo")
    good = [str(sample_photos[0]), sample_photos[1].as_uri(), f"{address}/{sample_photos[2].name}"]
    bad = [str(tmp_path / "text.jpg"), str(tmp_path / "none.jpg"), f"{address}/none.jpg", "s9://bucket/car.jpg"]
    names = [*good, *bad, good[0], ""]
    output = tmp_path / "answers.jsonl"
    try:
        said = run(
            "--from",
            "-",
            "--output",
            output,
            "--url",
            server.grpc_url,
            code=1,
            input="".join(f"{n}\r\n" for n in names),
        )
    finally:
        web.shutdown()
        web.server_close()
    assert said == f"{output}: 7 photos, 7 of them from this run; 4 failed\n"
    answers = read(output)
    assert set(answers) == {*good, *bad}
    for name, photo in zip(good, sample_photos, strict=False):
        assert photo.name.startswith(f"{answers[name]['cleanliness']}_{answers[name]['condition']}")
    assert "not a photo" in answers[bad[0]]["error"]
    for name in bad[1:3]:
        assert answers[name]["error"] == f"cannot read {name}: No such file or directory"
    assert "s9" in answers[bad[3]]["error"]


def test_killed_again_and_again(server: SimpleNamespace, many: list[Path], listing: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    # Over HTTP: gRPC calls that a kill interrupts can crash a Triton before 24.12, and others use this one.
    command = [*COMMAND, "--from", "-", "--output", str(output), "--url", server.http_url]
    written = 0

    def has_written() -> bool:
        return output.exists() and output.read_bytes().count(b"\n") >= written + 20

    for named in (60, 120, 180):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            # The list does not end, or it could be done before it is killed.
            process.stdin.write(b"".join(os.fsencode(photo) + b"\n" for photo in many[:named]))
            process.stdin.flush()
            until(has_written)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        whole = output.read_bytes()
        assert written + 20 <= whole.count(b"\n") <= named
        written = whole.count(b"\n")
        output.write_bytes(whole + b'{"image": "' + os.fsencode(many[-1])[:9])  # as a kill leaves it at its worst
    said = run("--from", listing, "--output", output, "--url", server.grpc_url)
    assert said == f"{output}: 200 photos, {200 - written} of them from this run; 0 failed\n"
    answers = read(output)
    assert set(answers) == set(map(str, many))
    for photo in many:
        assert photo.name.startswith(f"{answers[str(photo)]['cleanliness']}_{answers[str(photo)]['condition']}")
    before = output.read_bytes()
    run("--from", listing, "--output", output, "--url", "grpc://127.0.0.1:1")  # nothing is left to ask
    assert output.read_bytes() == before


def test_errors_are_tried_again_when_asked(server: SimpleNamespace, sample_photos: list[Path], tmp_path: Path) -> None:
    late, never, output = tmp_path / "late.jpg", tmp_path / "never.jpg", tmp_path / "answers.jsonl"
    words = [sample_photos[0], late, never, "--output", output, "--url", server.grpc_url]
    run(*words, code=1)
    late.symlink_to(sample_photos[1])
    run(*words, code=1)
    assert "No such file" in read(output)[str(late)]["error"]
    said = run(*words, "--retry-errors", code=1)
    assert said == f"{output}: 3 photos, 2 of them from this run; 1 failed\n"
    answers = read(output)
    assert set(answers) == set(map(str, words[:3]))
    assert sample_photos[1].name.startswith(answers[str(late)]["cleanliness"])
    assert [path.name for path in tmp_path.glob("answers*")] == ["answers.jsonl"]


def test_a_folder(server: SimpleNamespace, many: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    run(many[0].parent, "--output", output, "--url", server.http_url)
    assert set(read(output)) == set(map(str, many))


def test_a_list_without_a_file_for_the_answers(server: SimpleNamespace, listing: Path, many: list[Path]) -> None:
    lines = [json.loads(line) for line in run("--from", listing, "--url", server.grpc_url).splitlines()]
    assert sorted(line["image"] for line in lines) == sorted(map(str, many))


def test_nobody_answers(nowhere: str, server: SimpleNamespace, sample_photos: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    words = [*sample_photos, "--output", output]
    said = run(*words, "--url", nowhere, code=3)
    assert nowhere in said
    assert "give the same command again" in said
    assert output.read_bytes() == b""
    run(*words, "--url", server.grpc_url)
    assert len(read(output)) == len(sample_photos)


@pytest.mark.parametrize(("model", "code"), [("misspelt", 3), ("condition", 2)])
def test_a_wrong_model_is_no_photos_fault(
    model: str, code: int, url: str, sample_photos: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    options = ["--url", url, "--model", model, "--output", output, "--timeout", "60"]
    assert model in run(*sample_photos, *options, code=code)
    assert output.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG", "line 1 was not written by"),
        (b'{"image": "a.jpg", "error": "x"}\n[]\n', "line 2 was not written by"),
        (b'{"image": "a.jpg"}\n{"image": "a.jpg"}\n', "two answers for a.jpg"),
        (b'{"image": 7}\n', "line 1 was not written by"),
    ],
)
def test_other_files_are_left_alone(content: bytes, message: str, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    output.write_bytes(content)
    for more in ([], ["--retry-errors"]):
        assert message in run("car.jpg", "--output", output, *more, code=2)
        if "two answers" not in message:
            assert output.read_bytes() == content


def test_one_run_at_a_time(server: SimpleNamespace, sample_photos: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    words = ["--output", output, "--url", server.grpc_url]
    with subprocess.Popen([*COMMAND, "--from", "-", *map(str, words)], stdin=subprocess.PIPE) as first:
        assert first.stdin is not None
        first.stdin.write(os.fsencode(sample_photos[0]) + b"\n")
        first.stdin.flush()
        until(lambda: output.exists() and output.read_bytes())
        assert "another run is writing" in run(sample_photos[1], *words, code=2)
        first.stdin.close()
        assert first.wait(PATIENCE_S) == 0
    assert list(read(output)) == [str(sample_photos[0])]


def test_millions_of_names_do_not_fill_the_memory(tmp_path: Path) -> None:
    listing, output = tmp_path / "list.txt", tmp_path / "answers.jsonl"
    measure = (
        "import resource, sys; from car_analyzer._cli.main import main; code = main(sys.argv[1:]);"
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        """The memory peak in MB of a run whose photos all have an answer."""
        names = [f"/photos/{number:0150}.jpg" for number in range(count)]
        listing.write_text("\n".join(names))
        output.write_text("".join(json.dumps({"image": name, "cleanliness": "clean"}) + "\n" for name in names))
        command = [sys.executable, "-c", measure, "analyze", "--from", listing, "--output", output]
        code, size = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()
        assert code == "0"
        return int(size) // 1024

    assert peak(300_000) - peak(10) < 15  # the names alone are 47 MB


def test_object_storage(sample_photos: list[Path]) -> None:
    storage = fsspec.filesystem("memory")
    for name in ("/bucket/a.jpg", "/bucket/deep/b.JPG", "/bucket/notes.txt"):
        storage.pipe_file(name, sample_photos[0].read_bytes())
    try:
        found = list(sources.walk(["memory://bucket/"], [], recursive=True))
        assert sorted(found) == ["memory:///bucket/a.jpg", "memory:///bucket/deep/b.JPG"]
        assert list(sources.walk(["memory://bucket/"], [], recursive=False)) == ["memory:///bucket/a.jpg"]
        assert sources.read(found[0]) == sample_photos[0].read_bytes()
        with pytest.raises(PhotoError, match=r"memory://bucket/none\.jpg: No such file or directory"):
            sources.read("memory://bucket/none.jpg")
    finally:
        storage.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("absent", "url", "advice"),
    [
        ("fsspec", "s3://bucket/car.jpg", "car-analyzer[bulk]"),
        ("s3fs", "s3://bucket/car.jpg", "pip install s3fs"),
        ("aiohttp", "https://example.com/car.jpg", "pip install 'car-analyzer[bulk]'"),
    ],
)
def test_missing_libraries(absent: str, url: str, advice: str, tmp_path: Path) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None; from car_analyzer._cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "analyze", url, "--output", str(tmp_path / "answers.jsonl")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert advice in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a photo"),
        (["car.jpg", "--retry-errors"], "needs the --output"),
        (["car.jpg", "--table", "--output", "x"], "--table"),
        (["-", "--output", "x"], "has no name"),
        (["-", "http://localhost/car.jpg"], "has no name"),
        (["--from", "no-such-list.txt", "--output", "x"], "cannot read the list no-such-list.txt: No such file"),
    ],
)
def test_wrong_usage(words: list[str], message: str, tmp_path: Path) -> None:
    assert message in run(*words, code=2, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no photo was found" in run(tmp_path / "empty", "--output", tmp_path / "answers.jsonl", code=1)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal."""
    ends = pty.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    yield ends
    for end in ends:
        os.close(end)


def test_a_bar_for_people(server: SimpleNamespace, listing: Path, tmp_path: Path, terminal: tuple[int, int]) -> None:
    person, program = terminal
    shown: list[bytes] = []

    def look() -> None:
        while b"of them from this run" not in b"".join(shown):
            shown.append(os.read(person, 65536))

    thread = threading.Thread(target=look)
    thread.start()
    command = [*COMMAND, "--from", str(listing), "--output", str(tmp_path / "out.jsonl"), "--url", server.grpc_url]
    subprocess.run(command, stderr=program, check=True, timeout=PATIENCE_S)
    thread.join(PATIENCE_S)
    assert b"/200" in b"".join(shown)
    assert b"photo/s" in b"".join(shown)
