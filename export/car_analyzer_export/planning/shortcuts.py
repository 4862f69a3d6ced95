"""Decides which shortcuts photos take, scaled decoding and fast resampling, where the spec leaves that open."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..onnx_model.agreement import MAX_PIXEL_DIFFERENCE, MIN_AGREEMENT, Agreement, compare_views
from ..preprocess.view import FAST_MISSING, least_side_for
from .comparison_photos import comparison_photos, small_photos

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from ..preprocess.view import View
    from ..spec import Limits, NetworkPlan
    from .comparison_photos import ComparisonPhotos

_EXACT: Any = "exact"


@dataclass(frozen=True)
class _Shortcut:
    """A faster way to prepare photos. Its key is the same in the spec, in `View` and in `export.json`.

    Attributes:
        value: The key's value for the shortcut; the other one is `exact`.
        name: Its name in sentences.
        otherwise: What happens without it.
    """

    value: str
    name: str
    otherwise: str


_SHORTCUTS = {
    "decoding": _Shortcut("scaled", "Scaled decoding", "large JPEGs are decoded exactly"),
    "resampling": _Shortcut("fast", "Fast resampling", "Pillow resizes the photos"),
}
# In `export.json`; see `_compare`.
_RECORDS = ("compared", "compared_on_small_photos")
# The first one with which the answers stay the same is chosen.
_COMBINATIONS = (("decoding", "resampling"), ("decoding",), ("resampling",))


@dataclass(frozen=True)
class _Comparison:
    """How the answers with some shortcuts compare with those without.

    Attributes:
        agreements: By network, of those for which one of the shortcuts was left open.
        tried: The keys of these shortcuts.
        photos: The photos.
        about: A description of them for `export.json`.
    """

    agreements: Mapping[str, Agreement]
    tried: Collection[str]
    photos: ComparisonPhotos
    about: Mapping[str, Any]

    @property
    def failing(self) -> list[str]:
        """The networks that need exact pixels."""
        return [name for name, found in self.agreements.items() if not found.is_enough]

    def describe(self, network: str) -> dict[str, Any]:
        """The record of one network for `export.json`."""
        return asdict(self.agreements[network]) | dict(self.about)


def decide_shortcuts(
    networks: list[NetworkPlan], left_open: Mapping[str, set[str]], photos: Path | None, limits: Limits
) -> tuple[list[NetworkPlan], dict[str, str]]:
    """Compares each network's answers with and without shortcuts, and takes those with which they agree.

    If one network cannot take a shortcut, none does: a photo is decoded once for all, and resized once for all networks
    with the same preprocessing.

    Args:
        networks: All of an export. Undecided views take all shortcuts.
        left_open: Network → the undecided keys.
        photos: The user's photos.
        limits: The limits of the service.

    Returns:
        The networks with their views and the comparison; the photos that were skipped, see `PhotoFolder`.

    Raises:
        SpecError: The folder holds no readable photo.
    """
    possible = [_possible(network, networks) for network in networks]
    undecided = {network.name: left_open[network.name] & keys for network, keys in zip(networks, possible, strict=True)}
    drafts = [_without(network, left_open[network.name] - undecided[network.name]) for network in networks]
    left = set().union(*undecided.values())
    found: dict[str, list[_Comparison]] = {}
    taken: tuple[str, ...] = ()
    skipped: dict[str, str] = {}
    for tried in dict.fromkeys(tuple(key for key in keys if key in left) for keys in _COMBINATIONS):
        if tried and not taken:
            compared = _compare(drafts, undecided, tried, photos, limits)
            found |= {key: [one for one in compared if key in one.tried] for key in tried}
            skipped |= compared[0].photos.skipped
            taken = () if any(one.failing for one in compared) else tried
    return [_decided(draft, undecided[draft.name], taken, found) for draft in drafts], skipped


def _possible(network: NetworkPlan, networks: Iterable[NetworkPlan]) -> set[str]:
    possible = set()
    if least_side_for(one.view for one in networks) is not None:
        possible.add("decoding")
    if network.view.has_fast and not FAST_MISSING:
        possible.add("resampling")
    return possible


def _without(network: NetworkPlan, impossible: Collection[str]) -> NetworkPlan:
    """A network without shortcuts that are impossible; there is nothing to compare."""
    notes = network.notes
    if "resampling" in impossible and network.view.has_fast:
        notes = (*notes, f"'{network.name}': Pillow resizes the photos, which takes longer: {FAST_MISSING}.")
    records = {key: {"chosen": _EXACT} for key in impossible}
    return replace(network, view=_exact(network.view, impossible), notes=notes, shortcuts=network.shortcuts | records)


def _compare(
    networks: list[NetworkPlan],
    undecided: Mapping[str, set[str]],
    tried: Collection[str],
    photos: Path | None,
    limits: Limits,
) -> list[_Comparison]:
    """Compares on large JPEGs, if they are decoded scaled; then fast resampling also on small photos.

    Small photos are the usual ones. They are decoded exactly, so their pixels change in another way.
    """
    least = least_side_for(_exact(network.view, undecided[network.name].difference(tried)) for network in networks)
    pictures = comparison_photos(least, photos, limits)
    if least is None or not pictures.contents:  # the service accepts none that are large enough
        pictures = comparison_photos(None, photos, limits)
        return [_compare_on(networks, undecided, tried, pictures, ("unchanged_photos", "enlarged_photos"))]
    found = [_compare_on(networks, undecided, tried, pictures, ("large_photos", "enlarged_photos"))]
    if "resampling" in tried and not found[0].failing:
        small = small_photos(least, photos, limits)
        names = ("unchanged_photos", "scaled_down_photos")
        found.append(_compare_on(networks, undecided, ("resampling",), small, names))
    return found


def _compare_on(
    networks: list[NetworkPlan],
    undecided: Mapping[str, set[str]],
    tried: Collection[str],
    pictures: ComparisonPhotos,
    names: tuple[str, str],
) -> _Comparison:
    """Compares on some pictures; `names` are the keys for how many photos are unchanged, and how many are not."""
    reference = [_exact(network.view, undecided[network.name]) for network in networks]
    other = [_exact(network.view, undecided[network.name].difference(tried)) for network in networks]
    agreements = compare_views(networks, reference, other, pictures.contents, distinct=pictures.photos)
    judged = {
        network.name: agreement
        for network, agreement in zip(networks, agreements, strict=True)
        if undecided[network.name].intersection(tried)
    }
    unchanged, changed = names
    about = {
        unchanged: pictures.unchanged,
        changed: len(pictures.contents) - pictures.unchanged if pictures.photos else 0,
        "generated_pictures": 0 if pictures.photos else len(pictures.contents),
        "sizes": sorted(set(pictures.sizes)),
    }
    return _Comparison(judged, tried, pictures, about)


def _decided(
    network: NetworkPlan, undecided: Collection[str], taken: Collection[str], found: Mapping[str, list[_Comparison]]
) -> NetworkPlan:
    """A network with its view, the comparisons behind it, and a note for each shortcut that it does not take."""
    refused = [key for key in found if key in undecided and key not in taken]
    records = {
        key: {
            "chosen": _EXACT if key in refused else _SHORTCUTS[key].value,
            **{name: one.describe(network.name) for name, one in zip(_RECORDS, found[key], strict=False)},
        }
        for key in undecided
    }
    failed = {key: next(one for one in found[key] if one.failing) for key in refused}
    return replace(
        network,
        view=_exact(network.view, refused),
        notes=(*network.notes, *(_note(network.name, key, failed[key]) for key in refused)),
        shortcuts=network.shortcuts | records,
    )


def _note(name: str, key: str, comparison: _Comparison) -> str:
    shortcut, agreement = _SHORTCUTS[key], comparison.agreements[name]
    start = f"'{name}': {shortcut.otherwise}"
    if agreement.is_enough:
        return f"{start}, since '{comparison.failing[0]}' needs that, and a photo is prepared once for all networks."
    note = (
        f"{start}, which takes longer. {shortcut.name} changes {agreement.changed} of {agreement.photos} answers "
        f"and the pixels by {agreement.pixel_difference:.2f} of 255; for other such photos, expect "
        f"{agreement.expected_change:.1%} changed answers (the limits are {1 - MIN_AGREEMENT:.1%} and "
        f"{MAX_PIXEL_DIFFERENCE}). "
    )
    if comparison.photos.photos == 0:
        return note + "These are generated pictures; to decide on photos, name a folder of some, as `photos`."
    return f'{note}Set {key} = "{shortcut.value}" to use it anyway.'


def _exact(view: View, keys: Collection[str]) -> View:
    return replace(view, **dict.fromkeys(keys, _EXACT))
