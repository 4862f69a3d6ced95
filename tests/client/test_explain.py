"""Where an answer comes from: the map's place in the photo, and the way there, without a Triton."""

from __future__ import annotations

import io
import json
import pickle
import runpy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from car_analyzer import (
    AsyncCarAnalyzer,
    CarAnalyzer,
    ConfigurationError,
    Explanation,
    Head,
    OverloadedError,
    PhotoError,
    ServerError,
)
from car_analyzer._explain import Explainer, parse_sources
from car_analyzer._explanation import read_explanation
from car_analyzer._geometry import Frame, read_frame
from car_analyzer._geometry import View as Shown
from car_analyzer._occlusion import BATCH, CELLS, WINDOWS, batches, fall_maps
from car_analyzer._transports import Answer, Deadline, ExportMismatchError
from car_analyzer._transports.base import ModelConfig
from car_analyzer.errors import ModelNotReadyError
from car_analyzer.heads import HeadSpec, ServedModel, Tensor
from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.preprocess.view import View
from tests.conftest import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (640, 480)
SQUARE = (320, 240, 460, 380)  # left, top, right and bottom in the upright photo; right of and below the centre
VIEWS = {
    "squashed": View(),
    "cropped": View(width=192, height=160, shortest_edge=224),
    "upright": View(exif_rotation=True),
    "upright and cropped": View(width=160, height=192, shortest_edge=256, exif_rotation=True),
}
LOGITS = {"softmax": 2, "sigmoid": 1, "multilabel": 3}


def make_photo(orientation: int = 1, size: tuple[int, int] = SIZE, form: str = "JPEG") -> bytes:
    """A dark photo with a bright square, stored in one of EXIF's eight ways."""
    upright = Image.new("RGB", size, (40, 40, 40))
    upright.paste((250, 250, 250), SQUARE)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, form, quality=95, exif=exif)
    assert ImageOps.exif_transpose(Image.open(buffer)).size == size
    return buffer.getvalue()


class Network:
    """A transport to the real preprocess step, and to a network whose logit is the brightness of its pixels."""

    def __init__(self, view: View, logits: int, *, cam: bool = False) -> None:
        self._view = view
        self._logits = logits
        self._cam = cam
        self.batches: list[int] = []
        self.error: Exception | None = None

    def brightness(self, pixels: Any) -> Any:
        bright = (np.asarray(pixels) > 150).mean(axis=(1, 2, 3)) * 20
        return np.stack([bright, -bright, bright / 2][-self._logits :] if self._logits > 1 else [bright], axis=1)

    async def infer(self, model: str, photo: bytes, **_: Any) -> Answer:
        if self.error is not None:
            raise self.error
        pixels = self._view.prepare(Photo(photo))
        if model == "preprocess":
            return Answer("1", {"pixels": Tensor((1, *pixels.shape), pixels.tobytes())})
        assert model == "cars_explain"
        rows, columns = (np.arange(8) * side // 8 for side in pixels.shape[:2])
        cells = np.add.reduceat(np.add.reduceat((pixels[..., 0] > 150) * 1.0, rows, 0), columns, 1)
        maps = np.stack([cells] * self._logits).ravel().tolist()
        return Answer("1", {"condition_map": Tensor((1, self._logits, 8, 8), tuple(maps))})

    async def model_config(self, model: str, version: str, **_: Any) -> ModelConfig:
        assert (model, version) == ("network", "3")
        return ModelConfig({}, version, (), 12)

    async def infer_pixels(self, _model: str, _version: str, pixels: bytes, shape: Any, **_: Any) -> Answer:
        self.batches.append(shape[0])
        logits = self.brightness(np.frombuffer(pixels, np.uint8).reshape(shape))
        return Answer("3", {"logits": Tensor(logits.shape, tuple(logits.ravel().tolist()))})

    async def explain(self, photo: bytes, activation: str = "softmax") -> Explanation:
        labels = ("intact", "damaged", "dented")[: max(2, self._logits)]
        spec = HeadSpec("condition", "condition_logits", labels, activation, 0.5, "")
        logits = self.brightness(self._view.prepare(Photo(photo))[None])[0]
        source = {
            "network": "network",
            "output": "logits",
            "pixels": "pixels",
            "view": asdict(self._view),
            "map": "condition_map" if self._cam else None,
        }
        served = ServedModel("export", "3", (spec,), json.dumps({"condition": source}))
        found = labels[1:] if activation == "multilabel" else None
        label = "unsure" if activation == "sigmoid" else "intact"
        probabilities = dict.fromkeys(labels, 0.1) | {labels[1]: 0.3}
        head = Head(label, 0.5, probabilities, tuple(map(float, logits)), found)
        explainer = Explainer(self, "cars", served, photo, "", Deadline(60))  # type: ignore[arg-type]
        explanation = (await explainer.explain({"condition": head}))["condition"].explanation
        assert explanation is not None
        return explanation


def peak(explanation: Explanation) -> tuple[float, float]:
    """The place in the upright photo where the map is highest, in pixels."""
    values, box = explanation.map, explanation.box
    row, column = np.unravel_index(values.argmax(), values.shape)
    return (
        box.left + (column + 0.5) * box.width / values.shape[1],
        box.top + (row + 0.5) * box.height / values.shape[0],
    )


def is_in_square(x: float, y: float) -> bool:
    return SQUARE[0] < x < SQUARE[2] and SQUARE[1] < y < SQUARE[3]


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("cam", [False, True], ids=["occlusion", "cam"])
async def test_the_peak_is_in_the_square(view: View, orientation: int, cam: bool) -> None:
    explanation = await Network(view, 3, cam=cam).explain(make_photo(orientation), "multilabel")
    assert explanation.method == ("cam" if cam else "occlusion")
    assert explanation.photo_size == SIZE
    assert explanation.orientation == orientation
    assert explanation.map.dtype == np.float32
    assert is_in_square(*peak(explanation))


@pytest.mark.parametrize("name", ["cropped", "upright and cropped"])
@pytest.mark.parametrize("orientation", [3, 6])
async def test_a_tiff_is_upright_with_and_without_exif_rotation(name: str, orientation: int) -> None:
    explanation = await Network(VIEWS[name], 3, cam=True).explain(make_photo(orientation, form="TIFF"), "multilabel")
    assert (explanation.photo_size, explanation.orientation) == (SIZE, 1)
    assert is_in_square(*peak(explanation))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 500), (333, 777)])
def test_a_center_crop_is_where_the_exporter_takes_it(size: tuple[int, int]) -> None:
    view = VIEWS["cropped"]
    ramps = np.zeros((size[1], size[0], 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, size[0])
    ramps[..., 1] = np.linspace(0, 255, size[1])[:, None]
    pixels = view.pixels(Image.fromarray(ramps)).astype(float)
    box = Shown(view.width, view.height, view.shortest_edge, view.exif_rotation).box(size)
    middle = pixels[view.height // 2 - 1 : view.height // 2 + 1, view.width // 2 - 1 : view.width // 2 + 1]
    assert middle[..., 0].mean() / 255 == pytest.approx((box.left + box.width / 2) / size[0], abs=0.01)
    assert middle[..., 1].mean() / 255 == pytest.approx((box.top + box.height / 2) / size[1], abs=0.01)
    assert pixels[:, 0, 0].mean() / 255 == pytest.approx(box.left / size[0], abs=0.01)
    assert pixels[-1, :, 1].mean() / 255 == pytest.approx((box.top + box.height) / size[1], abs=0.01)


async def test_each_kind_of_head_explains_its_answer() -> None:
    photo = make_photo()
    softmax = await Network(View(), 2).explain(photo)
    assert softmax.labels == ("intact",)
    assert softmax.map is not None
    assert np.array_equal(softmax.map, softmax.maps["intact"])
    sigmoid = await Network(View(), 1).explain(photo, "sigmoid")  # its answer is unsure
    assert sigmoid.labels == ("damaged",)
    assert np.array_equal(sigmoid.maps["intact"], -sigmoid.maps["damaged"])
    assert is_in_square(*peak(sigmoid))
    several = await Network(View(), 3).explain(photo, "multilabel")
    assert several.labels == ("damaged", "dented")
    assert np.array_equal(several.map, np.maximum(several.maps["damaged"], several.maps["dented"]))


async def test_the_number_of_covered_copies_is_bounded() -> None:
    network = Network(View(), 2)
    await network.explain(make_photo())
    assert sum(network.batches) == 1 + WINDOWS**2 == 65
    assert max(network.batches) == 12  # the network's maximum
    large = np.zeros((3000, 2000, 3), np.uint8)
    assert len(next(batches(large, 64))) == 1
    assert len(next(batches(large[:100, :100], 64))) == BATCH


def test_the_map_is_the_fall_of_the_logits() -> None:
    logits = np.zeros((1 + WINDOWS**2, 2), np.float32)
    logits[0] = 3.0, 1.0
    logits[1:] = 1.0, 1.0
    maps = fall_maps(logits)
    assert maps.shape == (2, CELLS, CELLS)
    assert np.all(maps[0] == 2)
    assert np.all(maps[1] == 0)


async def test_a_model_that_is_replaced_meanwhile() -> None:
    network = Network(View(), 2)
    network.error = ExportMismatchError()
    with pytest.raises(OverloadedError, match="was replaced"):
        await network.explain(make_photo())


async def test_another_network_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    network, honest = Network(View(), 2), Network.infer_pixels

    async def other(self: Network, *arguments: Any, **options: Any) -> Answer:
        answer = await honest(self, *arguments, **options)
        tensor = answer.outputs["logits"]
        return Answer("3", {"logits": Tensor(tensor.shape, tuple(value + 5 for value in tensor.values))})

    monkeypatch.setattr(Network, "infer_pixels", other)
    with pytest.raises(OverloadedError, match="was replaced"):
        await network.explain(make_photo())

    async def gone(*_: Any, **__: Any) -> Answer:
        raise ModelNotReadyError("unknown version")

    monkeypatch.setattr(Network, "infer_pixels", gone)
    with pytest.raises(OverloadedError, match="was replaced"):
        await network.explain(make_photo())


async def test_a_map_for_too_few_labels() -> None:
    network = Network(View(), 2, cam=True)
    network.brightness = Network(View(), 1).brightness  # type: ignore[method-assign]
    network._logits = 1
    with pytest.raises(ServerError, match="1 maps for 2 logits"):
        await network.explain(make_photo())


@pytest.mark.parametrize("text", [None, "[]", "{", '{"condition": {}}', '{"condition": {"network": "n", "view": {}}}'])
def test_an_export_that_does_not_say_how(text: str | None) -> None:
    with pytest.raises(ConfigurationError, match="export again with this version") as caught:
        parse_sources(text, "cars")
    assert caught.value.code == "model.not_explainable"


@pytest.mark.parametrize("format_", ["AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP", "HEIF"])
def test_every_format_has_its_place(format_: str) -> None:
    if format_ == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, format_)
    assert read_frame(buffer.getvalue()) == Frame(64, 48)


async def test_a_photo_that_only_the_server_can_read() -> None:
    with pytest.raises(PhotoError, match="on this side.*pillow-heif") as caught:
        read_frame(b"\0\0\0\x18ftypheic" + bytes(100))
    assert caught.value.code == "photo.unreadable"


@pytest.mark.parametrize("orientation", [1, 6])
async def test_drawings_are_where_the_photo_is_bright(orientation: int) -> None:
    photo = make_photo(orientation)
    explanation = await Network(VIEWS["cropped"], 3).explain(photo, "multilabel")
    drawn = Image.open(io.BytesIO(explanation.on_photo(photo)))
    assert drawn.size == SIZE
    change = np.abs(np.asarray(drawn, int) - np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(photo))), int))
    rows, columns = np.nonzero(change.sum(axis=2) > 0.8 * change.sum(axis=2).max())
    assert is_in_square(columns.mean(), rows.mean())
    alone = Image.open(io.BytesIO(explanation.heat_map()))
    assert alone.mode == "RGBA"
    assert max(alone.size) <= 256
    strongest = np.unravel_index(np.asarray(alone)[..., 3].argmax(), alone.size[::-1])
    box = explanation.box
    assert is_in_square(
        box.left + (strongest[1] + 0.5) / alone.width * box.width,
        box.top + (strongest[0] + 0.5) / alone.height * box.height,
    )


async def test_a_map_that_hardly_matters_is_drawn_faintly() -> None:
    explanation = await Network(View(), 3).explain(make_photo(), "multilabel")
    strong = np.asarray(Image.open(io.BytesIO(explanation.heat_map())))
    weaker = {label: values / 1000 for label, values in explanation.maps.items()}
    faint = np.asarray(Image.open(io.BytesIO(replace(explanation, maps=weaker).heat_map())))
    assert strong[..., 3].max() > 150
    assert faint[..., 3].max() < 5


async def test_it_can_be_sent() -> None:
    explanation = await Network(VIEWS["squashed"], 3).explain(make_photo(6), "multilabel")
    assert pickle.loads(pickle.dumps(explanation)) == explanation
    fields = explanation.to_dict() | {"maps": {label: values.tolist() for label, values in explanation.maps.items()}}
    received = read_explanation(json.loads(json.dumps(fields)))
    assert received == explanation
    assert np.array_equal(received.map, explanation.map)


def draw(seed: int, *, damaged: bool) -> Image.Image:
    draw_car = runpy.run_path(str(EXAMPLES / "draw_cars.py"))["draw_car"]
    picture: Image.Image = draw_car(np.random.default_rng([7, seed]), dirty=False, damaged=damaged)
    return picture


def test_the_damage_is_where_triton_finds_it(url: str) -> None:
    """The demo's network, on cars of which both pictures are known: with their damage and without it."""
    with CarAnalyzer(url) as analyzer:
        for seed in (1, 2, 3):
            photo = draw(seed, damaged=True)
            analysis = analyzer.analyze(photo, explain=True)
            assert analysis.condition.label == "damaged"
            explanation = analysis.condition.explanation
            assert explanation is not None
            assert explanation.labels == ("damaged",)
            change = np.abs(np.asarray(photo, int) - np.asarray(draw(seed, damaged=False), int)).sum(axis=2) > 60
            x, y = peak(explanation)
            near = change[max(0, int(y) - 60) : int(y) + 60, max(0, int(x) - 80) : int(x) + 80]
            assert near.mean() > 2 * change.mean()
        assert json.loads(json.dumps(analysis.to_dict()))["explanations"]["condition"] == explanation.to_dict()
        plain = analyzer.analyze(photo)
        assert plain.condition.explanation is None
        assert plain.condition.logits == analysis.condition.logits
        assert "explanations" not in plain.to_dict()


async def test_an_earlier_export_cannot_explain(
    url: str, sample_photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("car_analyzer._triton.ServedModel", lambda *fields: ServedModel(*fields[:3]))
    async with AsyncCarAnalyzer(url) as analyzer:
        with pytest.raises(ConfigurationError, match="export again with this version"):
            await analyzer.analyze(sample_photos[0], explain=True)
        assert (await analyzer.analyze(sample_photos[0])).ok
