"""The check, from photos to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CheckError
from .advice import too_few
from .answers import analyze_all, fetch_heads
from .hypotheses import LEAST_PHOTOS, judge
from .labelled import find_labelled, printable
from .outcome import Outcome
from .tally import tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from car_analyzer import CarAnalyzer, Head

    from .answers import Answer
    from .hypotheses import Judgement
    from .tally import Tally


def check(
    source: Path,
    analyzer: CarAnalyzer,
    repository: Path,
    concurrency: int = 8,
    begin: Callable[[str, int], object] = lambda _what, _total: None,
    step: Callable[[], object] = lambda: None,
) -> Outcome:
    """Checks a served model on labelled photos.

    Args:
        source: A folder or a CSV file.
        analyzer: A client of the server.
        repository: The served model repository, to try other preprocessing with its models.
        concurrency: The number of concurrent requests.
        begin: Called at the start of each part, with its name and number of steps.
        step: Called after each step.

    Raises:
        CheckError: There is nothing to check.
        CarAnalyzerError: The server cannot be reached, or cannot answer.
    """
    if not source.exists():  # before the server is contacted
        raise CheckError(f"{source} does not exist; give a folder of photos, or a CSV file.")
    heads = fetch_heads(analyzer)
    labels = {name: tuple(head.probabilities) for name, head in heads.items()}
    multilabel = frozenset(name for name, head in heads.items() if head.labels is not None)
    found = find_labelled(source, labels, multilabel)
    begin("analysing photos", len(found.photos))
    answers = analyze_all(analyzer, found.photos, concurrency, step)
    tallies = tally(answers, heads)
    if not tallies:
        raise none_answered(answers)
    judgements, notes = _try_alternatives(repository, heads, answers, tallies, begin, step)
    notes += conclusions(judgements, tallies.values())
    notes += [unchecked(name, labels) for name in labels if name not in tallies]
    return Outcome(printable(str(source)), analyzer.url, answers, found.unlabelled, tallies, judgements, notes)


def none_answered(answers: list[Answer]) -> CheckError:
    """The error if no photo has an answer."""
    return CheckError(f"None of the {len(answers)} photos could be analysed. The first: {answers[0].error}")


def conclusions(judgements: Mapping[str, Judgement], tallies: Iterable[Tally]) -> list[str]:
    """What labelled photos could not tell about other preprocessing, in sentences."""
    found = [sentence for judgement in judgements.values() if (sentence := too_few(judgement))]
    for counted in tallies:
        if counted.photos < LEAST_PHOTOS:
            found.append(
                f"{counted.head}: {counted.photos} photos are too few to try other preprocessing; {LEAST_PHOTOS} are "
                "needed."
            )
        elif len(counted.truths) == 1:
            found.append(
                f"{counted.head}: all photos are '{counted.truths[0]}'; trying other preprocessing needs photos of "
                "other labels, too."
            )
    judged = [one for one in judgements.values() if any(tried.support for tried in one.hypotheses)]
    if judged and not any(one.proposal for one in judged):
        found.append("No other preprocessing fits clearly better.")
    return found


def unchecked(head: str, labels: dict[str, tuple[str, ...]]) -> str:
    """The note on a head that was not checked, and how to check it."""
    shared = [other for other in labels if other != head and {*labels[head]} & {*labels[other]}]
    if shared:
        return (
            f"{head} was not checked. It shares labels with {', '.join(shared)}, so its folders need its name: "
            f"{head}/{labels[head][0]}/."
        )
    return f"{head} was not checked: no photo with an answer has one of its labels ({', '.join(labels[head])})."


def _try_alternatives(
    repository: Path,
    heads: dict[str, Head],
    answers: list[Answer],
    tallies: dict[str, Tally],
    begin: Callable[[str, int], object],
    step: Callable[[], object],
) -> tuple[dict[str, Judgement], list[str]]:
    from .alternatives import ServedDiffersError, choose_photos, fit_all
    from .local import LocalError, open_networks

    try:
        networks = open_networks(repository, heads, tallies)
        photos = choose_photos(answers, tallies)
        begin("trying other preprocessing", len(networks) * len(photos))
        found = fit_all(networks, photos, step)
    except (LocalError, ServedDiffersError) as error:
        return {}, [
            f"Other preprocessing (label order, normalisation, channels, crop) was not tried: {error}. Give the "
            "served model repository with --repository."
        ]
    notes = [
        f"{network.name}: other normalisations and BGR were not tried; the normalisation in the ONNX model was not "
        "found."
        for network in networks
        if not network.adjustable
    ]
    if len(photos) < sum(answer.analysis is not None for answer in answers):
        notes.append(f"Other preprocessing was tried on {len(photos)} of the photos, evenly from all labels.")
    return {head: judge(fits) for head, fits in found.items() if head in tallies}, notes
