"""What a type checker tells a program that uses the SDK."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import pytest
from mypy import api

PROGRAM = """\
from car_analyzer import CarAnalyzer, Head

with CarAnalyzer() as analyzer:
    result = analyzer.analyze("car.jpg")
    head: Head = result.cleanliness
    label: str = result.condition.label
    brand: Head = result["brand"]
    names: list[str] = [name for name in result if name in result]
    result.cleanlines  # wrong
    result.brand  # wrong
    result["brand"].lable  # wrong
    for answer in analyzer.analyze_many(["a.jpg"]):
        if answer.ok:
            label = answer.cleanliness.label
        else:
            code: str = answer.error.code
"""


def test_the_package_has_types() -> None:
    assert (importlib.resources.files("car_analyzer") / "py.typed").is_file()


@pytest.mark.slow
def test_a_misspelt_head_is_found(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    report, trouble, _ = api.run(["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}", str(program)])
    assert not trouble
    found = [int(line) for line in re.findall(r":(\d+): error: .* has no attribute", report)]
    assert found == [number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# wrong" in line], report
    assert report.count("error:") == len(found)
