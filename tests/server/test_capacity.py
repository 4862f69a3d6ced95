"""Processes and threads suit the cores of the machine that serves, unless the repository gives a number."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from car_analyzer_server import cores as cores_module
from car_analyzer_server._cli import _parser, _settings
from car_analyzer_server.capacity import set_decoding_processes, thread_pool_arguments
from car_analyzer_server.settings import Settings

GLOBAL_POOL = "--backend-config=onnxruntime,enable-global-threadpool=1"


def network(**parameters: str) -> pb.ModelConfig:
    config = pb.ModelConfig(backend="onnxruntime")
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def preprocess(count: int = 0, name: str = "preprocess") -> pb.ModelConfig:
    return pb.ModelConfig(name=name, backend="python", instance_group=[pb.ModelInstanceGroup(count=count)])


@pytest.mark.parametrize(
    ("cores", "networks", "threads"), [(1, 2, 1), (2, 2, 1), (2, 1, 2), (16, 2, 8), (16, 3, 5), (64, 1, 64)]
)
def test_all_networks_share_one_pool(cores: int, networks: int, threads: int) -> None:
    assert thread_pool_arguments([network(enable_mem_pattern="0")] * networks, cores, ["--log-verbose=1"]) == [
        GLOBAL_POOL,
        f"--backend-config=onnxruntime,intra_op_thread_count={threads}",
    ]


@pytest.mark.parametrize("parameter", ["intra_op_thread_count", "inter_op_thread_count", "execution_mode"])
def test_threads_that_a_network_sets_take_precedence(parameter: str) -> None:
    # With a shared pool, the backend would ignore them.
    assert thread_pool_arguments([network(), network(**{parameter: "1"})], 16, []) == []


@pytest.mark.parametrize(
    "given",
    [
        ["--backend-config=onnxruntime,enable-global-threadpool=0"],
        ["--backend-config", "onnxruntime,intra_op_thread_count=3"],
    ],
)
def test_arguments_of_the_user_take_precedence(given: list[str]) -> None:
    assert thread_pool_arguments([network(), network()], 16, given) == []


@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (2, 3), (16, 17)])
def test_decoding_processes(cores: int, processes: int) -> None:
    config = preprocess()
    assert set_decoding_processes(config, cores)
    assert config == preprocess(processes)


@pytest.mark.parametrize("config", [preprocess(5), preprocess(0, "other"), network()])
def test_what_is_left_alone(config: pb.ModelConfig) -> None:
    before = pb.ModelConfig.FromString(config.SerializeToString())
    assert not set_decoding_processes(config, 16)
    assert config == before


def test_cores_of_a_limited_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(cores_module, "_QUOTAS", (tmp_path / "cpu.max", tmp_path / "none"))
    monkeypatch.setattr(cores_module.os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.delenv("CAR_ANALYZER_CORES", raising=False)
    assert Settings().cores == 2
    assert _settings(_parser().parse_args([]), []).cores == 2


def test_cores_that_are_given(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CAR_ANALYZER_CORES", "3")
    assert _settings(_parser().parse_args([]), []).cores == 3
    assert _settings(_parser().parse_args(["--cores", "5"]), []).cores == 5
    # What Kubernetes makes of a container that requests none.
    monkeypatch.setenv("CAR_ANALYZER_CORES", "0")
    assert _settings(_parser().parse_args([]), []).cores == Settings().cores
    monkeypatch.setenv("CAR_ANALYZER_CORES", "all")
    with pytest.raises(SystemExit):
        _parser().parse_args([])
    assert "argument --cores: 'all' is not a whole number" in capsys.readouterr().err
