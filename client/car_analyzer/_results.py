"""The results of calls: frozen, comparable, and safe to pickle and to copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ._explanation import Explanation
    from .errors import CarAnalyzerError


@dataclass(frozen=True, slots=True)
class Head:
    """The answer of one classifier for a photo.

    Attributes:
        label: The label that it chose; `unsure` between the limits that the model defines.
        confidence: The chosen label's probability, 0 to 1; for `unsure` that of the more likely label; for several
            labels that of the least certain yes/no decision.
        probabilities: Every label's probability in the model's order. They add up to 1 unless the head is multilabel.
            If the model was calibrated, they and `confidence` are calibrated.
        logits: The network's output, in the model's order; never calibrated.
        labels: Multilabel heads only: all labels that apply; `label` is these, joined by commas.
        explanation: Where in the photo the answer comes from; only with `analyze(…, explain=True)`.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    logits: tuple[float, ...]
    labels: tuple[str, ...] | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """The answer of the model for a photo.

    Each head is an attribute, `analysis.cleanliness.label`, and an item, `analysis["cleanliness"].label`. Type checkers
    accept the attributes `cleanliness` and `condition` only, so that they find a misspelt name; heads of other models
    are items for them: `analysis["brand"].label`. Iterating gives the names of the heads.

    Attributes:
        heads: Head name to `Head`, in the model's display order; also for names that are not valid attributes.
        processing_time_ms: Milliseconds from sending the photo to receiving the answer; explaining it comes after that.
        version: The version of the ensemble that answered; each repository counts from 1.
        export_id: The unique id of the export that answered; None for an older export, which has no id.
        exif_rotation: Whether all networks saw the photo turned by its EXIF orientation; False: at least one saw it as
            stored. None for an older export, which does not tell.
        ok: True; distinguishes it from a `Failure`.
    """

    ok: ClassVar[Literal[True]] = True

    heads: Mapping[str, Head]
    processing_time_ms: float
    version: str = ""
    export_id: str | None = None
    exif_rotation: bool | None = None

    if TYPE_CHECKING:

        @property
        def cleanliness(self) -> Head:
            """The head `cleanliness`."""
            return self["cleanliness"]

        @property
        def condition(self) -> Head:
            """The head `condition`."""
            return self["condition"]

    else:  # hidden from type checkers, for which it would give every name a head

        def __getattr__(self, name: str) -> Head:
            # Copying and unpickling look up special methods on an object that has no heads yet.
            if name.startswith("__") or name == "heads":
                raise AttributeError(name)
            try:
                return self[name]
            except KeyError as error:
                raise AttributeError(error.args[0]) from None

    def __getitem__(self, name: str) -> Head:
        try:
            return self.heads[name]
        except KeyError:
            raise KeyError(f"no head {name!r}; this model has {', '.join(self.heads)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.heads)

    def __dir__(self) -> Iterable[str]:
        return [*object.__dir__(self), *self.heads]

    def to_dict(self, *, with_model: bool = False) -> dict[str, Any]:
        """The analysis as JSON-ready camelCase.

        Args:
            with_model: Add `modelVersion` and, unless it has none, `exportId`.

        Returns:
            `{"cleanliness": "dirty", "cleanlinessConfidence": 0.97, …, "processingTime": 41.3}`: confidences to
            four digits, milliseconds to one. Explained answers add `explanations`: head to `Explanation.to_dict()`.
        """
        flat: dict[str, Any] = {}
        for name, head in self.heads.items():
            flat[name] = head.label if head.labels is None else list(head.labels)
            flat[f"{name}Confidence"] = round(head.confidence, 4)
        flat["processingTime"] = round(self.processing_time_ms, 1)
        explained = {name: head.explanation for name, head in self.heads.items() if head.explanation is not None}
        if explained:
            flat["explanations"] = {name: explanation.to_dict() for name, explanation in explained.items()}
        if with_model:
            flat["modelVersion"] = self.version
            if self.export_id is not None:
                flat["exportId"] = self.export_id
        return flat


@dataclass(frozen=True, slots=True)
class Failure:
    """Takes the place of an `Analysis` for a photo that could not be analysed.

    Attributes:
        error: What went wrong.
        ok: False; distinguishes it from an `Analysis`.
    """

    ok: ClassVar[Literal[False]] = False

    error: CarAnalyzerError

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON-ready `{"error": "…", "code": "photo.invalid"}`."""
        return {"error": str(self.error), "code": self.error.code}


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can analyse photos.

    Attributes:
        url: The server's URL.
        ready: The server and all models are ready.
        server_ready: The server itself reports that it is ready.
        models: The ensemble and each of its steps, and whether it is loaded; empty if no server answers.
        message: What is missing, in a sentence; None if nothing is.
        version: The version of the ensemble that is served; None if its config does not name one.
        export_id: The id of the export that is served; None if it has none.
        description: What the models are; None if their spec does not tell.
        demo: The models are for demonstration: their answers are not to be relied on.
    """

    url: str
    ready: bool
    server_ready: bool = False
    models: Mapping[str, bool] = field(default_factory=dict)
    message: str | None = None
    version: str | None = None
    export_id: str | None = None
    description: str | None = None
    demo: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The health as JSON-ready camelCase.

        Returns:
            `status` (`OK` or `unavailable`), `url`, `models`, and, where known, `message`, `version`, `exportId`,
            `description`, and `demo` if it is true.
        """
        flat = {"status": "OK" if self.ready else "unavailable", "url": self.url, "models": dict(self.models)}
        known = {
            "message": self.message,
            "version": self.version,
            "exportId": self.export_id,
            "description": self.description,
            "demo": self.demo or None,
        }
        return flat | {key: value for key, value in known.items() if value is not None}


# For help() and messages. Not in the class bodies, where `dataclass` would look for `ClassVar` in that module.
for _kind in (Head, Analysis, Failure, Health):
    _kind.__module__ = "car_analyzer"
