"""The committed model repository is what an export of the default spec writes."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from car_analyzer_export.repository.versions import serve_from_next_start

COMMITTED = Path(__file__).parents[2] / "model_repository"


def test_committed_files_are_what_the_exporter_writes(repository: Path) -> None:
    # Triton, if it ran already, has left compiled Python beside the preprocess step.
    written = {
        path.relative_to(repository) for path in repository.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    made_by_each_export = {
        path
        for path in written
        if path.name in ("model.onnx", "export.json", "known.json") or {"known", "configs"} & set(path.parts)
    }
    for path in written - made_by_each_export:
        text = (repository / path).read_text()
        if path == Path("car_analyzer/config.pbtxt"):  # what identifies an export has no place in a clean checkout
            config = text_format.Parse(text, model_config_pb2.ModelConfig())
            assert len(config.parameters["export_id"].string_value) == 16
            del config.parameters["export_id"]
            assert text_format.Parse((COMMITTED / path).read_text(), model_config_pb2.ModelConfig()) == config
        else:
            assert (COMMITTED / path).read_text() == text, path
    tracked = {path.relative_to(COMMITTED) for path in COMMITTED.rglob("*") if path.is_file()}
    assert {path for path in tracked if path.name == "config.pbtxt"} == {
        path for path in written if path.name == "config.pbtxt"
    }


def test_an_export_replaces_the_configurations_of_a_clean_checkout(copy: Path) -> None:
    file = Path("car_analyzer/config.pbtxt")
    exported = (copy / file).read_text()
    (copy / file).write_text((COMMITTED / file).read_text())
    serve_from_next_start(copy, 1)
    assert (copy / file).read_text() == exported


def test_only_the_first_step_has_a_bounded_queue(repository: Path) -> None:
    configs = {
        file.parent.name: text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        for file in repository.glob("*/config.pbtxt")
    }
    limits = {name: c.dynamic_batching.default_queue_policy.max_queue_size for name, c in configs.items()}
    assert limits == {"preprocess": 128, "cleanliness": 0, "condition": 0, "car_analyzer": 0}


def test_no_model_asks_for_a_gpu_or_leaves_its_instances_uncounted(repository: Path) -> None:
    for file in repository.glob("*/config.pbtxt"):
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        if config.platform == "ensemble":
            continue
        (group,) = config.instance_group
        assert group.count >= 1
        assert group.kind != model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_pixels_say_how_they_lie(repository: Path) -> None:
    # For clients that read it, such as NVIDIA's image_client.py, which takes no input without.
    for head in ("cleanliness", "condition"):
        config = text_format.Parse((repository / head / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        assert [tensor.format for tensor in config.input] == [model_config_pb2.ModelInput.FORMAT_NHWC]
        assert [tensor.label_filename for tensor in config.output] == ["1/labels.txt"]


def test_an_answer_comes_from_one_version(repository: Path) -> None:
    configs = {
        file.parent.name: text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        for file in repository.glob("*/config.pbtxt")
    }
    assert {tuple(config.version_policy.specific.versions) for config in configs.values()} == {(1,)}
    assert {step.model_version for step in configs["car_analyzer"].ensemble_scheduling.step} == {1}
