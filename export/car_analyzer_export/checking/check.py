"""The check itself, from photos to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .advice import LEAST_PHOTOS, advise
from .asking import ask, ask_for_heads
from .errors import CheckError
from .labelled import find_labelled, printable
from .outcome import Outcome
from .tally import tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from car_analyzer import CarAnalyzer, Head

    from .asking import Answer
    from .readings import Fit
    from .tally import Tally


def check(
    source: Path,
    analyzer: CarAnalyzer,
    repository: Path,
    concurrency: int = 8,
    begin: Callable[[str, int], object] = lambda _what, _total: None,
    step: Callable[[], object] = lambda: None,
) -> Outcome:
    """Checks a served model on photos whose labels are known.

    Args:
        source: A folder, or a CSV file.
        analyzer: Asks the server.
        repository: Where the served models lie, to try other readings of the photos with them.
        concurrency: How many photos are in flight at once.
        begin: Called at the start of each part, with what it is and how many steps it has.
        step: Called after each step.

    Raises:
        CheckError: There is nothing to be checked.
        CarAnalyzerError: The server cannot be asked.
    """
    if not source.exists():  # before a server is needed to say so
        raise CheckError(f"{source} does not exist; give a folder of photos, or a CSV file.")
    heads = ask_for_heads(analyzer)
    labels = {name: tuple(head.probabilities) for name, head in heads.items()}
    multilabel = frozenset(name for name, head in heads.items() if head.labels is not None)
    found = find_labelled(source, labels, multilabel)
    begin("asking the server", len(found.photos))
    answers = ask(analyzer, found.photos, concurrency, step)
    tallies = tally(answers, heads)
    if not tallies:
        raise none_answered(answers)
    fits, notes = _try_readings(repository, heads, answers, tallies, begin, step)
    advice = [one for fit in fits.values() if fit and (one := advise(fit))]
    for name, counted in tallies.items():
        if counted.photos < LEAST_PHOTOS:
            notes.append(
                f"{name}: {counted.photos} photos are too few to judge other readings by; {LEAST_PHOTOS} are needed."
            )
        elif len(counted.truths) == 1:
            notes.append(
                f"{name}: all photos are '{counted.truths[0]}'; other readings need photos of other labels, too."
            )
    notes += [unchecked(name, labels) for name in labels if name not in tallies]
    if fits and not advice:
        notes.append("No other reading of the photos fits clearly better.")
    return Outcome(printable(str(source)), analyzer.url, answers, found.unlabelled, tallies, fits, advice, notes)


def none_answered(answers: list[Answer]) -> CheckError:
    """Not one photo has an answer."""
    return CheckError(f"None of the {len(answers)} photos could be analysed. The first: {answers[0].error}")


def unchecked(head: str, labels: dict[str, tuple[str, ...]]) -> str:
    """Says that a head was not checked, and how it could be."""
    shared = [other for other in labels if other != head and {*labels[head]} & {*labels[other]}]
    if shared:
        return (
            f"{head} was not checked. It shares labels with {', '.join(shared)}, so its folders need its name, too: "
            f"{head}/{labels[head][0]}/."
        )
    return f"{head} was not checked: no photo with an answer has one of its labels ({', '.join(labels[head])})."


def _try_readings(
    repository: Path,
    heads: dict[str, Head],
    answers: list[Answer],
    tallies: dict[str, Tally],
    begin: Callable[[str, int], object],
    step: Callable[[], object],
) -> tuple[dict[str, list[Fit]], list[str]]:
    from .local import LocalError, open_networks
    from .readings import ServedDiffersError, choose_photos, count_steps, fit_all

    try:
        networks = open_networks(repository, heads, tallies)
        photos = choose_photos(answers, tallies)
        begin("trying other readings", count_steps(networks, photos))
        found = fit_all(networks, photos, step)
    except (LocalError, ServedDiffersError) as error:
        return {}, [
            f"Other readings of the photos (labels, normalisation, channels, crop) were not tried: {error}. "
            "--repository says where the served models lie."
        ]
    notes = [
        f"{network.name}: other normalisations and BGR were not tried, because the ONNX model hides its own."
        for network in networks
        if not network.adjustable
    ]
    if len(photos) < sum(answer.analysis is not None for answer in answers):
        notes.append(f"Other readings were tried on {len(photos)} of the photos, evenly from all labels.")
    return {head: fits for head, fits in found.items() if head in tallies}, notes
