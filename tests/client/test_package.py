from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import car_analyzer
from car_analyzer import AsyncCarAnalyzer, CarAnalyzer, errors

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
HEAVY = ("torch", "onnx", "onnxruntime", "tritonclient", "grpc", "aiohttp", "numpy", "PIL", "tqdm", "flask", "fastapi")


def test_all_is_complete() -> None:
    for name in car_analyzer.__all__:
        assert hasattr(car_analyzer, name)
    public = {
        name
        for name, value in vars(car_analyzer).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(car_analyzer.__all__) == public | {"__version__"}
    own = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert own <= set(car_analyzer.__all__)


def test_help_shows_no_private_module() -> None:
    assert "car_analyzer._" not in pydoc.render_doc(car_analyzer)
    for name in car_analyzer.__all__:
        public = getattr(car_analyzer, name)
        if inspect.isclass(public):
            assert "car_analyzer._" not in pydoc.render_doc(public), name


def test_messages_and_docs_name_extras_that_exist() -> None:
    root = PYPROJECT.parent
    files = [root / "README.md", *root.glob("docs/*.md")]
    files += [file for room in ("client", "export", "gateway", "server") for file in root.glob(f"{room}/**/*.py")]
    named = {
        extra
        for file in files
        for found in re.findall(r"(?:car-analyzer|'\.)\[([a-z,]+)\]", file.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }
    optional = PYPROJECT.read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert {"bulk", "plot", "server", "zoo"} <= named
    assert named <= set(re.findall(r"^([a-z]+) = \[", optional, re.MULTILINE))


def test_the_readme_pins_pytorch_as_the_constraints_do() -> None:
    constraints = (PYPROJECT.parent / "constraints.txt").read_text().splitlines()
    pins = re.findall(r"\btorch(?:vision)?==\S+", (PYPROJECT.parent / "README.md").read_text(encoding="utf-8"))
    assert len(pins) == 2
    assert set(pins) <= set(constraints)


def test_error_tree_is_drawn_whole() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(
        r"\w+Error\b(?= )", "\n".join(re.sub(r"\(also.*\)", "", line) for line in errors.__doc__.splitlines())
    )
    own = [name for name, value in vars(errors).items() if inspect.isclass(value)]
    assert sorted([*drawn, "CarAnalyzerError"]) == sorted(own)


def test_importing_it_is_light() -> None:
    code = f"import sys, car_analyzer; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert result.stderr == ""


def test_version_is_the_projects() -> None:
    version = re.search(r'^version = "(.+)"$', PYPROJECT.read_text(), re.MULTILINE)
    assert version is None or version[1] == car_analyzer.__version__


def test_both_clients_offer_the_same() -> None:
    for name, blocking in inspect.getmembers(CarAnalyzer, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            other = inspect.signature(getattr(AsyncCarAnalyzer, name))
            mine = inspect.signature(blocking)
            assert list(mine.parameters) == list(other.parameters), name
            assert [p.default for p in mine.parameters.values()] == [p.default for p in other.parameters.values()], name
