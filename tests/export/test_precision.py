"""Half precision and 8-bit integers are published only where their answers are those of single precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from PIL import Image

from car_analyzer_export.errors import SpecError, VerificationError
from car_analyzer_export.export import export
from car_analyzer_export.onnx_model import precision as precision_module
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from tests.conftest import decided

pytestmark = pytest.mark.triton

EXAMPLES = Path(__file__).parents[2] / "examples"


def demo(precision: str) -> Spec:
    spec = decided(Spec.from_file(EXAMPLES / "demo.toml"))
    return spec.model_copy(update={"precision": precision})


@pytest.mark.parametrize(
    ("precision", "weights", "share"), [("fp16", onnx.TensorProto.FLOAT16, 0.7), ("int8", onnx.TensorProto.INT8, 0.5)]
)
def test_it_is_smaller_and_answers_alike(
    precision: str, weights: int, share: float, tmp_path: Path, sample_photos: list[Path]
) -> None:
    export(plan_export(demo(precision)), tmp_path)
    for head, labels in (("cleanliness", ("clean", "dirty")), ("condition", ("intact", "damaged"))):
        folder = tmp_path / head / "1"
        record = json.loads((folder / "export.json").read_text())["precision"]
        assert record["precision"] == precision
        assert record["pictures"] == len(sample_photos)
        assert record["answers_agreeing"] == 1
        assert (folder / "model.onnx").stat().st_size < share * record["fp32_bytes"]
        assert weights in {tensor.data_type for tensor in onnx.load(folder / "model.onnx").graph.initializer}
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        assert [node.type for node in session.get_inputs()] == ["tensor(uint8)"]
        assert [node.type for node in session.get_outputs()] == ["tensor(float)"]
        for photo in sample_photos:
            with Image.open(photo) as image:
                pixels = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))[None]
            (logits,) = session.run(None, {"pixels": pixels})
            assert labels[logits[0].argmax()] in photo.name.split("_")


def test_too_many_other_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(_file: Path, converted: Path, _pixels: object, *, symmetric: bool) -> None:
        assert not symmetric

        model = onnx.load(_file)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("bias"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(-7 * onnx.numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, converted)

    monkeypatch.setattr(precision_module, "_quantize", spoil)
    with pytest.raises(VerificationError, match=r"Head '\w+': In int8 only .* of the answers on 8 pictures"):
        export(plan_export(demo("int8")), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_int8_needs_photos() -> None:
    with pytest.raises(SpecError, match="int8 is calibrated on photos"):
        plan_export(demo("int8").model_copy(update={"photos": None}))
