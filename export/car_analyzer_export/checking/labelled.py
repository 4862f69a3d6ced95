"""Finds labelled photos, by the structure of a folder or in a CSV file."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from car_analyzer.folders import find_photos, label_folder

from ..errors import CheckError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Labels = Mapping[str, Sequence[str]]

FILE_COLUMNS = ("file", "photo", "image", "path", "filename")


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and its labels.

    Attributes:
        path: Its file.
        name: A printable name, relative to the folder or CSV file.
        truth: Head → its label. Heads without a label are missing.
    """

    path: Path
    name: str
    truth: dict[str, str]


@dataclass
class Found:
    """The photos in a folder or CSV file.

    Attributes:
        photos: Those with at least one label.
        unlabelled: Why other photos have no label → how many.
    """

    photos: list[LabelledPhoto] = field(default_factory=list)
    unlabelled: Counter[str] = field(default_factory=Counter)


def find_labelled(source: Path, labels: Labels, multilabel: frozenset[str] = frozenset()) -> Found:
    """Finds photos with labels.

    Args:
        source: A folder, or a CSV file.
        labels: Head → its labels.
        multilabel: The heads whose labels do not exclude each other.

    Raises:
        CheckError: The file or folder is missing, cannot be read, or has no labelled photo.
    """
    if not source.exists():
        raise CheckError(f"{source} does not exist; give a folder of photos, or a CSV file.")
    found = _from_folder(source, labels, multilabel) if source.is_dir() else _from_csv(source, labels, multilabel)
    if not found.photos:
        expected = "; ".join(f"{head}: {', '.join(names)}" for head, names in labels.items())
        reasons = "".join(f"\n  {reason}" for reason, _ in found.unlabelled.most_common(5))
        raise CheckError(
            f"{source} has no photo with a label of this model ({expected}). Put the photos into sub-folders named by "
            f"label, such as {_example(labels)}, or list them in a CSV file.{reasons}"
        )
    return found


def printable(text: str) -> str:
    """Escapes the bytes of a file name that are not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _example(labels: Labels) -> str:
    head, names = next(iter(labels.items()))
    return f"{names[0]}/ and {names[-1]}/, or {head}/{names[0]}/"


def _from_folder(folder: Path, labels: Labels, multilabel: frozenset[str]) -> Found:
    found, words = Found(), _Vocabulary(labels, multilabel)
    for entry in find_photos([str(folder)], recursive=True):
        path = Path(entry.name)
        if entry.error:
            found.unlabelled[f"{entry.error}."] += 1
            continue
        relative = path.relative_to(folder)
        truth = words.of_folders(relative.parts[:-1]) or words.of_file(relative.stem)
        if truth:
            found.photos.append(LabelledPhoto(path, printable(str(relative)), truth))
        else:
            where = f"the folder {printable(str(relative.parent))}/" if relative.parent.parts else "the folder itself"
            found.unlabelled[f"Photos in {where} have no label in their path that belongs to exactly one head."] += 1
    return found


class _Vocabulary:
    """The labels and heads as sequences of words, so that `very-dirty`, `Very Dirty` and `very_dirty` are the same."""

    def __init__(self, labels: Labels, multilabel: frozenset[str]) -> None:
        self._heads = {_words(head): head for head in labels}
        self._labels: dict[tuple[str, ...], dict[str, str]] = {}
        self._several = {head: labels[head] for head in multilabel if head in labels}
        for head, names in labels.items():
            for name in names:
                self._labels.setdefault(_words(name) or _words(label_folder(name)), {})[head] = name
            if head in self._several:
                self._labels.setdefault(("none",), {}).setdefault(head, "")
        # Longer ones first: `not damaged` before `damaged`.
        self._phrases = sorted({*self._heads, *self._labels} - {()}, key=len, reverse=True)

    def of_folders(self, parts: Sequence[str]) -> dict[str, str]:
        """The labels in the names of folders; deeper folders take precedence."""
        truth: dict[str, str] = {}
        head: str | None = None
        for part in parts:
            phrases, rest = self._split(_words(part))
            if not rest:
                found, head = self._read(phrases, head)
                truth |= found
        return truth

    def of_file(self, stem: str) -> dict[str, str]:
        """The labels at the start of a file name, such as `dirty_intact_2`."""
        phrases, _ = self._split(_words(stem))
        # Photos are numbered, so a number in a file name is not a label.
        return self._read([phrase for phrase in phrases if not "".join(phrase).isdecimal()], None)[0]

    def _read(self, phrases: list[tuple[str, ...]], head: str | None) -> tuple[dict[str, str], str | None]:
        truth: dict[str, str] = {}
        several: dict[str, list[str]] = {}
        for phrase in phrases:
            meanings = self._labels.get(phrase, {})
            if head in meanings:
                meanings = {head: meanings[head]}
            if len(meanings) == 1:
                truth |= meanings
                for name, label in meanings.items():
                    several.setdefault(name, []).append(label)
            elif phrase in self._heads:
                head = self._heads[phrase]
        # Joined as the client joins them.
        for name in several.keys() & self._several.keys():
            truth[name] = ", ".join(label for label in self._several[name] if label in several[name])
        return truth, head

    def _split(self, words: tuple[str, ...]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """The phrases at the start of some words, and the remaining words."""
        phrases = []
        while phrase := next((one for one in self._phrases if words[: len(one)] == one), None):
            phrases.append(phrase)
            words = words[len(phrase) :]
        return phrases, words


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


def _from_csv(file: Path, labels: Labels, multilabel: frozenset[str]) -> Found:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CheckError(f"{file}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise CheckError(f"{file} is neither a folder nor a CSV file in UTF-8.") from None
    header = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count), restkey="", restval="")
    try:
        columns = {(name or "").strip().casefold(): name for name in rows.fieldnames or ()}
        file_column = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
        heads = {head: columns[head.casefold()] for head in labels if head.casefold() in columns}
        if file_column is None or not heads:
            raise CheckError(
                f"{file} needs a first line with a column 'file' and one for each head ({', '.join(labels)}); "
                f"it starts with: {printable(header.strip()[:200])}"
            )
        found = Found()
        for row in rows:
            _add_row(
                found, file, row[file_column].strip(), {h: row[c].strip() for h, c in heads.items()}, labels, multilabel
            )
    except csv.Error as error:
        raise CheckError(f"{file} is not a CSV file: {error}.") from error
    return found


def _add_row(
    found: Found, file: Path, name: str, values: dict[str, str], labels: Labels, multilabel: frozenset[str]
) -> None:
    if not name:
        return
    truth: dict[str, str] = {}
    for head, value in values.items():
        label = _several(value, labels[head]) if head in multilabel else _one(value, labels[head])
        if label is not None:
            truth[head] = label
        elif value:
            found.unlabelled[f"'{printable(value)}' in column {head} is none of its labels, and was skipped."] += 1
    if truth:
        found.photos.append(LabelledPhoto(file.parent / name, printable(name), truth))
    else:
        found.unlabelled["Photos without any label were skipped."] += 1


def _one(value: str, labels: Sequence[str]) -> str | None:
    return next((label for label in labels if _words(label) == _words(value)), None)


def _several(value: str, labels: Sequence[str]) -> str | None:
    """Labels separated by commas, semicolons or bars, or `none`, joined as the client joins them."""
    if value.casefold() == "none":
        return ""
    found = [_one(part, labels) for part in re.split(r"[,;|]", value)]
    return ", ".join(label for label in labels if label in found) if value and None not in found else None
