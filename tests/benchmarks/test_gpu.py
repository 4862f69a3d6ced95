"""The measurement of a GPU runs through without one, and names what it leaves out; what it needs can be packed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fatbin import thin
from benchmarks.gpu_pack import _archive, _split, make_variants
from benchmarks.gpu_report import DECODER, JPEGS, NETWORKS, PIXELS, Row, as_tables, best_rates, limit
from benchmarks.gpu_served import as_steps, counted, parse_counts
from benchmarks.gpu_variants import VARIANTS, Variant

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_runs_through(tmp_path: Path) -> None:
    make_variants(tmp_path / "models", "tiny", [Variant("cuda", "fp32", "pillow"), Variant("tensorrt", "fp32", "dali")])
    options = ["--seconds=2", "--clients=2", "--processes=1", "--pixels-batch=2", "--callers", "2", "4"]
    options += ["--sizes", "s", "--batches", "1", "2"]
    steps = [
        "networks only, cuda",
        "networks only, tensorrt",
        "networks only, PyTorch eager",
        "decoder",
        "parity",
        "served, cuda",
    ]
    command = [sys.executable, "-m", "benchmarks.gpu", "--packed", tmp_path, "--out", tmp_path, *options, "--only"]
    ended = subprocess.run([*command, *steps], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    rows = [Row(**row) for row in figures["figures"]]
    measured = {(row.section, row.name, row.batch) for row in rows}
    assert {(NETWORKS, "cuda fp32", batch) for batch in (1, 2)} <= measured
    assert {(NETWORKS, "PyTorch eager, fp32", batch) for batch in (1, 2)} <= measured
    assert (PIXELS, "cuda fp32", 2) in measured
    for load in ("1 caller", "at its peak", "at half of its peak"):
        assert (f"{JPEGS}, s", f"cuda fp32 pillow, {load}", None) in measured
    assert all(row.rate > 0 and row.errors == 0 for row in rows)
    served = [row for row in rows if row.section == f"{JPEGS}, s"]
    assert all(set(row.steps) == {"preprocess", "cleanliness", "condition"} for row in served)
    assert all({"Triton", "preprocess", "load"} <= set(row.cores) for row in served)
    left_out = "\n".join(figures["left_out"])
    assert "cuda fp16 dali: it was not exported" in left_out
    assert "networks only, tensorrt fp32: TensorRT is not used: there is no GPU" in left_out
    assert "Left out" in ended.stdout
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    # A second run keeps what was measured, and has nothing to start.
    again = subprocess.run(
        [*command, "served, cuda"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "continues" in again.stderr
    assert "..." not in again.stderr
    assert json.loads((tmp_path / "gpu.json").read_text())["figures"] == figures["figures"]


def test_the_limit_is_the_slower_of_networks_and_decoder() -> None:
    networks = [Row(NETWORKS, "cuda fp16", batch, rate, 1, 1) for batch, rate in ((1, 100.0), (32, 900.0))]
    decoders = [Row(f"{DECODER}, s", "decoding, interpolated colours", None, 600, 1, 1)]
    headers = Row(f"{DECODER}, s", "checking headers", None, 5000, 1, 1)
    with_dali = Row(f"{JPEGS}, s", "cuda fp16 dali, at its peak", None, 300, 1, 1)
    with_pillow = Row(f"{JPEGS}, s", "cuda fp16 pillow, at its peak", None, 90, 1, 1)
    pixels = Row(PIXELS, "cuda fp16", 32, 450, 1, 1)
    rows = [*networks, *decoders, headers, with_dali, with_pillow, pixels]
    assert limit(with_dali, rows) == (600, "decoder")
    assert limit(with_pillow, rows) == (900, "networks")
    assert limit(pixels, rows) == (900, "networks")
    assert limit(networks[0], rows) is None
    assert "| cuda fp16 dali, at its peak |  |  | 300 | 0.50 (decoder) |" in as_tables(rows, [], [])


def test_the_tables_show_where_the_time_goes() -> None:
    steps, cores = {"preprocess": (6.5, 1.25, 20.0)}, {"Triton": 2.5, "load": 0.5}
    rows = [
        Row(f"{JPEGS}, s", "cuda fp16 dali, at its peak", None, 300, 1, 1, callers=64, steps=steps, cores=cores),
        Row(f"{JPEGS}, s", "cuda fp16 dali, 1 caller", None, 100, 1, 1, callers=1),
    ]
    tables = as_tables(rows, [], ["DALI: it is missing"])
    assert "| what | callers | preprocess | cores: Triton | cores: load |" in tables
    assert "| cuda fp16 dali, at its peak | 64 | 6.5: 1.2 + 20.0 | 2.5 | 0.5 |" in tables
    assert "- DALI: it is missing" in tables
    assert best_rates(rows) == {f"{JPEGS}, s": {"cuda fp16 dali, at its peak": [300]}}


def test_names_of_variants_differ_and_ablations_share_exports() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    first = Variant("cuda", "fp16", "dali")
    assert not first.ablation
    processes, batches = first._replace(processes=8), first._replace(batch_sizes=(1, 16, 64))
    assert processes.name == "cuda fp16 dali, 8 preprocess processes"
    assert processes.ablation
    assert processes.folder == first.folder == "cuda-fp16-dali"
    assert batches.folder == "cuda-fp16-dali-batches-1-16-64"


def test_statistics_are_differences_of_all_versions() -> None:
    def model(name: str, requests: int, photos: int, runs: int, milliseconds: int) -> dict[str, object]:
        spent = {"count": requests, "ns": milliseconds * 1_000_000}
        stats = dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), spent)
        return {"name": name, "inference_count": photos, "execution_count": runs, "inference_stats": stats}

    before = parse_counts({"model_stats": [model("preprocess", 10, 10, 10, 50), model("idle", 1, 1, 1, 1)]})
    versions = [model("preprocess", 20, 20, 12, 100), model("preprocess", 10, 20, 3, 50)]
    after = parse_counts({"model_stats": [*versions, model("car_analyzer", 9, 9, 9, 9), model("idle", 1, 1, 1, 1)]})
    steps = as_steps(counted(before, after))
    assert steps == {"preprocess": (6, 5, 15)}


def test_code_for_other_architectures_is_overwritten(tmp_path: Path) -> None:
    def entry(kind: int, architecture: int, code: bytes) -> bytes:
        header = struct.pack("<HHIQ", kind, 0x101, 64, len(code)) + bytes(12) + struct.pack("<I", architecture)
        return header.ljust(64, b"\0") + code

    def fat_binary(*entries: bytes) -> bytes:
        return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(b"".join(entries))) + b"".join(entries)

    other, own = fat_binary(entry(2, 80, b"eighty!!")), entry(2, 90, b"ninety!!")
    untouched = b"\x7fELF" + struct.pack("<I", 0xBA55ED50) + b"no fat binary" + other
    before = untouched + fat_binary(entry(1, 120, b"PTX code"), entry(2, 80, b"eighty!!"), own)
    file = tmp_path / "library.so"
    file.write_bytes(before)
    assert thin(file, 90) == 16
    after = file.read_bytes()
    assert len(after) == len(before)
    assert after.startswith(untouched)
    assert after.endswith(own)
    assert before.count(b"eighty!!") == 2
    assert after.count(b"eighty!!") == 1
    assert b"PTX code" not in after
    assert thin(file, 70) == 0


def test_a_pack_arrives_in_parts(tmp_path: Path) -> None:
    home, archives, parts = tmp_path / "pack", tmp_path / "archives", tmp_path / "parts"
    packages = home / "python" / "lib" / "python3" / "site-packages"
    files = {packages / "onnxruntime" / "a.so": b"a", packages / "tqdm.py": b"b", home / "models" / "x" / "m": b"m"}
    files |= {home / "models" / "weights" / "left.out": b"w", home / "code" / "c.py": os.urandom(20_000)}
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (home / "run.sh").write_text('#!/bin/sh\necho "measured $*"\n')
    (home / "run.sh").chmod(0o755)
    found = _archive(home, archives)
    assert {file.name.partition("-")[0] for file in found} == {"onnxruntime", "python", "models", "code"}
    times = [file.stat().st_mtime_ns for file in found]
    assert [file.stat().st_mtime_ns for file in _archive(home, archives)] == times
    made = _split(found, parts, 10_000)
    assert [part.name for part in made] == [f"part.{number:02}" for number in range(len(made))]
    assert all(part.stat().st_size <= 10_000 for part in made)
    for arguments in ("first", "second"):  # the parts are needed once
        ended = subprocess.run([parts / "measure.sh", arguments], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, f"measured {arguments}\n"), ended.stderr
        for part in parts.glob("part.*"):
            part.unlink()
    unpacked = [file for file in (parts / "pack").rglob("*") if file.is_file() and file.name != "run.sh"]
    expected = {file: content for file, content in files.items() if file.name != "left.out"}
    assert {home / file.relative_to(parts / "pack"): file.read_bytes() for file in unpacked} == expected


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(os.urandom(5_000))
    parts = _split([tmp_path / "archive"], tmp_path / "parts", 4_000)
    parts[1].unlink()
    ended = subprocess.run([parts[0].with_name("measure.sh")], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "part.01" in ended.stderr + ended.stdout
