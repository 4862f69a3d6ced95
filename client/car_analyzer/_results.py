"""What a call answers with: frozen, comparable, and safe to pickle and to copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .errors import CarAnalyzerError


@dataclass(frozen=True, slots=True)
class Head:
    """What one classifier says about a photo.

    Attributes:
        label: The label it chose, or `unsure` where the model says so.
        confidence: The chosen label's probability, 0 to 1; for `unsure` the likelier label's; for several labels that
            of the least sure yes or no.
        probabilities: Every label's probability in the model's order; of labels that exclude each other, they add up
            to 1.
        logits: What the network gave, in the model's order.
        labels: Where labels do not exclude each other, all that apply; `label` is then these, joined by commas.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    logits: tuple[float, ...]
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the model says about a photo. Each head is an attribute: `analysis.cleanliness.label`.

    Attributes:
        heads: Head name to `Head`, in the model's display order. Names that are no attribute are found here.
        processing_time_ms: From sending the photo to having the answer, in milliseconds.
        version: The version of the ensemble that answered, a number that each repository counts from 1.
        export_id: The export that answered, which no other one shares; None for an older one, which has no id.
        ok: True; tells it from a `Failure`.
    """

    ok: ClassVar[Literal[True]] = True

    heads: Mapping[str, Head]
    processing_time_ms: float
    version: str = ""
    export_id: str | None = None

    def __getattr__(self, name: str) -> Head:
        # Copying and unpickling ask a half-made object, which has no heads yet, for its special methods.
        if name.startswith("__") or name == "heads":
            raise AttributeError(name)
        try:
            return self.heads[name]
        except KeyError:
            raise AttributeError(f"no head {name!r}; this model has {', '.join(self.heads)}") from None

    def __dir__(self) -> Iterable[str]:
        return [*object.__dir__(self), *self.heads]

    def to_dict(self) -> dict[str, Any]:
        """The analysis as JSON-ready camelCase.

        Returns:
            `{"cleanliness": "dirty", "cleanlinessConfidence": 0.97, …, "processingTime": 41.3}`: confidences to
            four digits, milliseconds to one.
        """
        flat: dict[str, Any] = {}
        for name, head in self.heads.items():
            flat[name] = head.label if head.labels is None else list(head.labels)
            flat[f"{name}Confidence"] = round(head.confidence, 4)
        flat["processingTime"] = round(self.processing_time_ms, 1)
        return flat


@dataclass(frozen=True, slots=True)
class Failure:
    """In the place of an `Analysis`, for a photo among many that could not be analysed.

    Attributes:
        error: Why.
        ok: False; tells it from an `Analysis`.
    """

    ok: ClassVar[Literal[False]] = False

    error: CarAnalyzerError

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON-ready `{"error": "…"}`."""
        return {"error": str(self.error)}


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can take photos.

    Attributes:
        url: Who was asked.
        ready: Everything needed is there.
        server_ready: The server itself says that it is ready.
        models: The ensemble and each of its steps, and whether it is loaded; empty when nobody answers.
        message: What is missing, in a sentence; None when nothing is.
        version: The version of the ensemble that is served; None if it does not name one.
        export_id: The export that is served; None if it does not say.
    """

    url: str
    ready: bool
    server_ready: bool = False
    models: Mapping[str, bool] = field(default_factory=dict)
    message: str | None = None
    version: str | None = None
    export_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The health as JSON-ready camelCase.

        Returns:
            `status` (`OK` or `unavailable`), `url`, `models`, and what is known of `message`, `version`, `exportId`.
        """
        flat = {"status": "OK" if self.ready else "unavailable", "url": self.url, "models": dict(self.models)}
        known = {"message": self.message, "version": self.version, "exportId": self.export_id}
        return flat | {key: value for key, value in known.items() if value is not None}
