"""The measurement of a GPU runs through without one, and names what it leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_pack import make_variants
from benchmarks.gpu_report import DECODER, JPEGS, NETWORKS, PIXELS, Row, as_tables, limit
from benchmarks.gpu_variants import Variant

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_runs_through(tmp_path: Path) -> None:
    make_variants(tmp_path / "models", "tiny", [Variant("cuda", "fp32", "pillow"), Variant("tensorrt", "fp32", "dali")])
    options = [
        "--seconds=2",
        "--clients=2",
        "--processes=1",
        "--pixels-batch=2",
        "--sizes",
        "s",
        "--batches",
        "1",
        "2",
    ]
    steps = [
        "networks only, cuda",
        "networks only, tensorrt",
        "networks only, PyTorch eager",
        "decoder",
        "parity",
        "served, cuda",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--packed", tmp_path, "--out", tmp_path, *options, "--only", *steps],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    rows = [Row(**row) for row in figures["figures"]]
    measured = {(row.section, row.name, row.batch) for row in rows}
    assert {(NETWORKS, "cuda fp32", batch) for batch in (1, 2)} <= measured
    assert {(NETWORKS, "PyTorch eager, fp32", batch) for batch in (1, 2)} <= measured
    assert (PIXELS, "cuda fp32", 2) in measured
    assert (f"{JPEGS}, s", "cuda fp32 pillow, at its peak", None) in measured
    assert (f"{JPEGS}, s", "cuda fp32 pillow, at half of its peak", None) in measured
    assert all(row.rate > 0 and row.errors == 0 for row in rows)
    left_out = "\n".join(figures["left_out"])
    assert "cuda fp16 dali: it was not exported" in left_out
    assert "networks only, tensorrt fp32: TensorRT is not used: there is no GPU" in left_out
    assert "Left out" in ended.stdout
    assert (tmp_path / "gpu.png").stat().st_size > 1000


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
    assert "| cuda fp16 dali, at its peak |  | 300 | 0.50 (decoder) |" in as_tables(rows, [], [])
