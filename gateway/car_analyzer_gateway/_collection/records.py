"""What is recorded of an answer, and what people said about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from car_analyzer.heads import UNSURE

if TYPE_CHECKING:
    from car_analyzer import Analysis

# A head's label; for a multilabel head, its labels.
Label = str | Sequence[str]
Labels = Mapping[str, Label]


@dataclass(frozen=True)
class Record:
    """An answer.

    Attributes:
        time: When it was given, in seconds since 1970.
        request_id: The request's id.
        answer: The JSON of the answer.
        probabilities: Head to label to probability.
    """

    time: float
    request_id: str
    answer: Mapping[str, Any]
    probabilities: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, request_id: str, analysis: Analysis, time: float) -> Record:
        """Record an answer, without its explanations."""
        heads = {name: dataclasses.replace(head, explanation=None) for name, head in analysis.heads.items()}
        answer = dataclasses.replace(analysis, heads=heads).to_dict(with_model=True)
        return cls(time, request_id, answer, {name: dict(head.probabilities) for name, head in heads.items()})

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is not a record.
        """
        try:
            record = json.loads(data)
            time = datetime.fromisoformat(record["time"]).timestamp()
            return cls(time, record["requestId"], record["answer"], record["probabilities"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record: {error!r}") from error

    def to_json(self, reason: str, feedback: Labels | None) -> bytes:
        """The record as a file, with the reason for keeping the photo, and what people said."""
        record = {
            "time": datetime.fromtimestamp(self.time, timezone.utc).isoformat(timespec="milliseconds"),
            "requestId": self.request_id,
            "reason": reason,
            "answer": self.answer,
            "probabilities": self.probabilities,
            "feedback": feedback,
        }
        return json.dumps(record, ensure_ascii=False, indent=1).encode()

    @property
    def is_unsure(self) -> bool:
        """Whether the label of a head is `unsure`."""
        return any(self.answer[head] == UNSURE for head in self.probabilities)

    def confirms(self, head: str, label: Label) -> bool:
        """Whether the head's answer is this label."""
        answer = self.answer[head]
        return answer == label if isinstance(answer, str) else set(answer) == set(label)
