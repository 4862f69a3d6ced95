"""The spec: networks, the heads that read their outputs, and the limits of the service.

Optional values that are missing may come from the checkpoint; `planning` completes them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import SpecError
from ..preprocess.photo import MAX_BYTES, MAX_PIXELS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENSEMBLE = "car_analyzer"
# The ensemble that also returns class activation maps.
EXPLAIN = f"{ENSEMBLE}_explain"
PREPROCESS = "preprocess"

# Labels in logit order for the two default heads.
WELL_KNOWN_LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Names of other models in the repository, and of keys in the answer that belong to no head.
_RESERVED_NAMES = frozenset(
    {ENSEMBLE, EXPLAIN, PREPROCESS, "processing_time_ms", "image", "error", "ok", "heads", "explanations", "to_dict"}
)

_BatchSize = Annotated[int, Field(ge=1, le=1024)]
_Side = Annotated[int, Field(ge=1, le=4096)]
_Label = Annotated[str, Field(pattern=r"^\S(.*\S)?$", max_length=100)]
_Sentence = Annotated[str, Field(pattern=r"^\S(.*\S)?$", max_length=500)]
_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(gt=0, le=1)]
_Probability = Annotated[float, Field(gt=0, lt=1)]
_Three = tuple[_Mean, _Mean, _Mean]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Table):
    """One network with its weights and preprocessing.

    Attributes:
        weights: The checkpoint.
        sha256: The expected digest of the checkpoint.
        architecture: `auto`, `torchvision:NAME`, `timm:NAME`, `path/to/file.py:factory` or `package.module:factory`.
        kwargs: Arguments for the factory.
        classes: The names of its classes in logit order, where a class answers several questions (`dirty_intact`).
        mean: Of the normalisation, in the order of `channels`, on a scale of 0 to 1.
        std: Likewise. `normalize = false` in the TOML means a mean of 0 and a std of 1.
        channels: The channel order that the network expects.
        photo_size: Width and height of the network's input, in pixels.
        shortest_edge: Scale the shorter side to this length and take a center crop, instead of squashing the photo.
        interpolation: Of the resize.
        antialias: As torchvision does for PIL images; without it, as for tensors with `antialias=False`.
        exif_rotation: Apply the EXIF orientation first.
        decoding: `exact`, or `scaled`: leave out the finest detail of large JPEGs, unless the view averages nothing.
            `auto`: scaled, if the answers stay the same.
        resampling: `exact`: Pillow's pixels; `fast`: within 1 of 255 of them, unless the view is not bilinear or has no
            antialias. `auto`: fast, if the answers stay the same.
    """

    weights: Path
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    architecture: str = "auto"
    kwargs: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[_Label, ...] | None = Field(default=None, min_length=2)
    mean: _Three | None = None
    std: tuple[_Std, _Std, _Std] | None = None
    channels: Literal["RGB", "BGR"] = "RGB"
    photo_size: tuple[_Side, _Side] | None = None
    shortest_edge: _Side | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    antialias: bool = True
    exif_rotation: bool = False
    decoding: Literal["auto", "scaled", "exact"] = "auto"
    resampling: Literal["auto", "fast", "exact"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_shorthands(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        if isinstance(filled.get("photo_size"), int):
            filled["photo_size"] = [filled["photo_size"]] * 2
        if (normalize := filled.pop("normalize", True)) is not True:
            if normalize is not False or "mean" in filled or "std" in filled:
                raise ValueError("normalize is true or false; with false, mean and std must be left out")
            filled |= {"mean": (0, 0, 0), "std": (1, 1, 1)}
        return filled

    @model_validator(mode="after")
    def _crop_fits(self) -> Network:
        if self.shortest_edge and self.photo_size and self.shortest_edge < max(self.photo_size):
            raise ValueError(
                f"shortest_edge {self.shortest_edge} is smaller than the photo_size that is cropped from it"
            )
        return self

    @property
    def left_open(self) -> set[str]:
        """The keys that the export decides by comparing answers."""
        return {key for key in ("decoding", "resampling") if getattr(self, key) == "auto"}


class Head(_Table):
    """One question about a photo, answered by a network.

    Attributes:
        network: The name of the network.
        output: The output to read, if the network has several: a position in a tuple or list, or a key of a dict.
        labels: In logit order. One logit: its sigmoid is the probability of the second.
        classes: Label → the network's classes that have it; by default those with the label in their name.
        activation: `softmax` over exclusive labels; `sigmoid` for one logit; `multilabel` for a sigmoid each.
        probabilities: The network itself ends in its softmax or sigmoids; detected by default.
        positive: The label that `threshold` and `unsure` apply to; the second one by default.
        threshold: The minimum probability of the positive label.
        unsure: Between these probabilities of the positive label the answer is `unsure`.
    """

    network: str
    output: int | str | None = None
    labels: tuple[_Label, ...] | None = Field(default=None, min_length=1)
    classes: dict[_Label, tuple[_Label, ...]] | None = Field(default=None, min_length=2)
    activation: Literal["softmax", "sigmoid", "multilabel"] | None = None
    probabilities: bool | None = None
    positive: _Label | None = None
    threshold: _Probability | None = None
    unsure: tuple[_Probability, _Probability] | None = None

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels and len({label.casefold() for label in labels}) != len(labels):
            raise ValueError("a label is listed twice")
        return labels

    @model_validator(mode="after")
    def _fits_together(self) -> Head:
        if self.labels and "unsure" in self.labels:
            raise ValueError("the label 'unsure' is reserved for the answer between two labels; rename the label")
        if self.unsure and self.unsure[0] >= self.unsure[1]:
            raise ValueError("unsure must be [lower, higher]")
        if self.unsure and not self.unsure[0] <= (self.threshold or 0.5) <= self.unsure[1]:
            raise ValueError(f"the threshold {self.threshold or 0.5} is not within unsure {list(self.unsure)}")
        if self.positive and self.labels and self.positive not in self.labels:
            raise ValueError(f"positive '{self.positive}' is not one of the labels {list(self.labels)}")
        if self.classes and self.labels and set(self.classes) != set(self.labels):
            raise ValueError(f"classes must be a table with the labels {list(self.labels)} as keys")
        if self.activation == "multilabel" and (self.positive or self.unsure):
            raise ValueError("positive and unsure need two labels that exclude each other; this head is multilabel")
        return self


class Limits(_Table):
    """The limits of the service.

    Attributes:
        max_bytes: Size of the largest accepted photo file.
        max_pixels: Width times height of the largest accepted photo.
        max_batch_size: The largest batch that Triton forms or accepts.
        batch_sizes: The only batch sizes that the networks run with, ascending; batches are padded to the next one, and
            the last one is `max_batch_size`. Empty: any size. By default, only the target `gpu` has some. TensorRT
            needs none, and gets none.
        max_queue_size: Requests waiting to be decoded; more are rejected as UNAVAILABLE (HTTP 503).
        max_queue_seconds: The queue timeout of each step, after which a request is rejected in the same way.
        preprocess_instances: Photos decoded concurrently, each in its own process; 0: `serve` decides, by its cores.
            For the target `gpu` the default is 8, or 4 with DALI.
        network_instances: Instances of each network.
        network_threads: Threads of each instance on a CPU; 0: the server's default. `serve` divides its cores.
        queue_delay_us: How long a network waits for more photos to form a batch, in microseconds.
        max_gpu_bytes: GPU memory that ONNX Runtime may use for one instance of a network; for the target `gpu` only.
    """

    max_bytes: int = Field(default=MAX_BYTES, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_batch_size: int = Field(default=32, ge=1, le=1024)
    batch_sizes: tuple[_BatchSize, ...] | None = None
    max_queue_size: int = Field(default=128, ge=1)
    max_queue_seconds: float = Field(default=10, gt=0, le=3600)
    preprocess_instances: int = Field(default=0, ge=0, le=1024)
    network_instances: int = Field(default=1, ge=1, le=64)
    network_threads: int = Field(default=0, ge=0, le=1024)
    queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    max_gpu_bytes: int = Field(default=8 << 30, ge=1 << 20)

    @model_validator(mode="after")
    def _batch_sizes_fit(self) -> Limits:
        if not self.batch_sizes:
            return self
        if list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise ValueError(f"batch_sizes {list(self.batch_sizes)} are not ascending")
        largest = self.batch_sizes[-1]
        if "max_batch_size" in self.model_fields_set and self.max_batch_size != largest:
            raise ValueError(
                f"batch_sizes end with {largest}, but max_batch_size is {self.max_batch_size}; leave out max_batch_size"
            )
        return self

    def completed(self, target: str, accelerator: str, preprocess: str) -> Limits:
        """The same limits, with the defaults of the target where none was given."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        defaults: dict[str, Any] = {}
        if target == "gpu":
            defaults = _GPU_LIMITS | {"preprocess_instances": _GPU_DECODERS[preprocess]}
        sizes = self.batch_sizes
        if sizes:
            given["max_batch_size"] = sizes[-1]
        elif sizes is None and target == "gpu":
            largest = given.get("max_batch_size", _GPU_BATCH_SIZES[-1])
            sizes = (*(size for size in _GPU_BATCH_SIZES if size < largest), largest)
        given["batch_sizes"] = () if accelerator == "tensorrt" else sizes or ()
        return self.model_copy(update=defaults | given)


# A GPU processes a longer queue in the same time. One instance copies pixels and answers while the other computes. The
# delay fills batches at thousands of photos a second, and is a twentieth of the latency budget.
_GPU_LIMITS = {"max_queue_size": 512, "network_instances": 2, "queue_delay_us": 500}
# On an H100, a ResNet-18 in fp16 took 0.7 ms for 1 photo, 1.4 ms for 8 and 1.5 ms for 32 (docs/gpu.md). Two of them
# alone did 11,500 photos a second in batches of 32, three times what the whole service reached, and 13,700 in batches
# of 64. Each size costs memory and time at the start.
_GPU_BATCH_SIZES = (1, 8, 32)
# Processes that decode for one GPU.
_GPU_DECODERS = {"pillow": 8, "dali": 4}


class Spec(_Table):
    """A whole export.

    Attributes:
        heads: By name, in the order of the answer's keys.
        networks: By name. A head with weights has a network of the same name.
        description: What the models are, for whoever reads their answers; one line.
        demo: The answers are not to be relied on; the page, health checks and logs say so.
        explain: Also serve class activation maps, for the networks that have them.
        photo_size: For networks that have none.
        photos: A folder of photos to compare ONNX Runtime with PyTorch on, and faster preprocessing with exact; without
            it, generated pictures are used.
        precision: Of the published models; int8 needs `photos` for its calibration.
        target: `any` is tuned for CPUs, and uses a GPU if there is one; `gpu` is tuned for GPUs, and works on CPUs.
        accelerator: Runs the networks on a GPU; `tensorrt` needs the target `gpu`.
        engine_cache: The folder for TensorRT engines on the serving machine.
        preprocess: Decodes and resizes: `pillow`, or `dali`, which uses a GPU if there is one.
        limits: The limits of the service.
    """

    heads: dict[str, Head] = Field(min_length=1)
    networks: dict[str, Network]
    description: _Sentence | None = None
    demo: bool = False
    explain: bool = False
    photo_size: tuple[_Side, _Side] | None = None
    photos: Path | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    target: Literal["any", "gpu"] = "any"
    accelerator: Literal["cuda", "tensorrt"] = "cuda"
    engine_cache: str = Field(default="/var/cache/car-analyzer", min_length=1)
    preprocess: Literal["pillow", "dali"] = "pillow"
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _split_heads_with_weights(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("heads"), dict):
            return values
        filled = {"networks": {}, **values}
        if isinstance(filled.get("photo_size"), int):
            filled["photo_size"] = [filled["photo_size"]] * 2
        networks, heads = dict(filled["networks"]), {}
        for name, head in filled["heads"].items():
            if not isinstance(head, dict) or "network" in head:
                heads[name] = head
                continue
            if name in networks:
                raise ValueError(
                    f"'{name}' has a table in [heads] and in [networks]; write network = \"{name}\" in its head"
                )
            own = {key: value for key, value in head.items() if key in Head.model_fields}
            networks[name] = {key: value for key, value in head.items() if key not in own}
            heads[name] = own | {"network": name}
        return filled | {"heads": heads, "networks": networks}

    @model_validator(mode="after")
    def _names_are_usable(self) -> Spec:
        for name in {**self.heads, **self.networks}:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"the name '{name}' must start with a lower-case letter and hold only a-z, 0-9 and '_'"
                )
            if name in _RESERVED_NAMES:
                raise ValueError(f"the name '{name}' is reserved; choose another")
        for name, head in self.heads.items():
            if head.network not in self.networks:
                raise ValueError(f"head '{name}' reads the network '{head.network}', but no such network is defined")
        if unread := set(self.networks) - {head.network for head in self.heads.values()}:
            raise ValueError(f"no head reads the network '{min(unread)}'")
        return self

    @property
    def steps(self) -> int:
        """The number of steps that an export reports."""
        comparison = any(network.left_open for network in self.networks.values())
        return len(self.networks) * (3 if self.precision == "fp32" else 4) + comparison

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str, folder: Path | None = None) -> Spec:
        """Validates values from TOML or flags; relative paths start at `folder`.

        Raises:
            SpecError: A key is unknown or missing, or a value is invalid; the message starts with `where`.
        """
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            written = values.get("heads") if isinstance(values.get("heads"), dict) else {}
            problems = dict.fromkeys(_sentence(dict(problem), written or {}) for problem in error.errors())
            raise SpecError("\n".join(f"{where}: {problem}" for problem in problems)) from None
        return spec if folder is None else spec._anchored_at(folder)

    @classmethod
    def from_file(cls, path: Path) -> Spec:
        """Reads a TOML spec; relative paths in it start at its folder.

        Raises:
            SpecError: The file cannot be read, is not TOML, or is not a valid spec.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}.") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{path}: not valid TOML: {error}.") from error
        return cls.from_values(values, str(path), path.parent)

    def _anchored_at(self, folder: Path) -> Spec:
        networks = {
            name: network.model_copy(
                update={
                    "weights": folder / network.weights,
                    "architecture": _anchored_architecture(network.architecture, folder),
                }
            )
            for name, network in self.networks.items()
        }
        return self.model_copy(update={"networks": networks, "photos": folder / self.photos if self.photos else None})


def _anchored_architecture(architecture: str, folder: Path) -> str:
    """Resolves `file.py:factory` from the spec's folder; returns everything else unchanged."""
    file, colon, factory = architecture.rpartition(":")
    return f"{folder / file}{colon}{factory}" if file.endswith(".py") else architecture


def _sentence(problem: dict[str, Any], heads: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    if place[:1] == ["networks"] and len(place) > 1 and place[1] in heads:
        place[0] = "heads"  # where the user wrote it
    key = ".".join(place)
    match problem["type"]:
        case "missing":
            return f"'{key}' is missing."
        case "extra_forbidden":
            return f"'{key}' is not a key of a spec; is it misspelt?"
        case "value_error":
            text = problem["msg"].removeprefix("Value error, ")
            return f"'{key}': {text}." if key else f"{text}."
        case _:
            return f"'{key}': {problem['msg']} (it is {problem['input']!r})."
