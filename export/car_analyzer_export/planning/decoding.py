"""Decides whether large JPEGs are decoded scaled or exactly, where the spec leaves that open."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..onnx_model.agreement import MAX_PIXEL_DIFFERENCE, MIN_AGREEMENT, Agreement, compare_views
from ..preprocess.view import least_side_for
from .large_photos import LargePhotos, large_photos

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ..spec import Limits, NetworkPlan


def decide_decoding(
    networks: list[NetworkPlan], left_open: Collection[str], photos: Path | None, limits: Limits
) -> tuple[list[NetworkPlan], dict[str, str]]:
    """Compares each network's answers with both, and chooses exact decoding where they do not agree.

    A photo is decoded once for all networks, so if one needs exact decoding, all get it.

    Args:
        networks: All of an export. Undecided views have scaled decoding.
        left_open: The names of the undecided networks.
        photos: The user's photos.
        limits: The limits of the service.

    Returns:
        The networks with their views and the comparison; the photos that were skipped, see `PhotoFolder`.

    Raises:
        SpecError: The folder holds no readable photo.
    """
    scaled = [network.view for network in networks]
    least = least_side_for(scaled)
    if not left_open:
        return networks, {}
    if least is None:
        return [_exact(network) if network.name in left_open else network for network in networks], {}
    pictures = large_photos(least, photos, limits)
    if not pictures.contents:
        return networks, dict(pictures.skipped)
    exact = [replace(view, decoding="exact") for view in scaled]
    agreements = compare_views(networks, exact, scaled, pictures.contents, distinct=pictures.photos)
    found = {network.name: one for network, one in zip(networks, agreements, strict=True) if network.name in left_open}
    failing = [name for name, one in found.items() if not one.is_enough]
    decided = [
        _decided(network, found[network.name], failing, pictures) if network.name in found else network
        for network in networks
    ]
    return decided, dict(pictures.skipped)


def _decided(network: NetworkPlan, found: Agreement, failing: list[str], pictures: LargePhotos) -> NetworkPlan:
    record = {"chosen": "exact" if failing else "scaled", "compared": asdict(found) | _described(pictures)}
    network = replace(network, decoding=record)
    if not failing:
        return network
    if network.name in failing:
        note = (
            f"'{network.name}': large JPEGs are decoded exactly, which takes longer. Scaled decoding changes "
            f"{found.changed} of {found.photos} answers and the pixels by {found.pixel_difference:.2f} of 255; for "
            f"other such photos, expect {found.expected_change:.1%} changed answers (the limits are "
            f"{1 - MIN_AGREEMENT:.1%} and {MAX_PIXEL_DIFFERENCE}). "
        )
        if pictures.photos == 0:
            note += "These are generated pictures; to decide on photos, name a folder of some, as `photos`."
        else:
            note += 'Set decoding = "scaled" to use it anyway.'
    else:
        note = (
            f"'{network.name}': large JPEGs are decoded exactly, since '{failing[0]}' needs that, and a photo is "
            "decoded once for all networks."
        )
    return _exact(replace(network, notes=(*network.notes, note)))


def _exact(network: NetworkPlan) -> NetworkPlan:
    record = network.decoding or {"chosen": "exact"}
    return replace(network, view=replace(network.view, decoding="exact"), decoding=record)


def _described(pictures: LargePhotos) -> dict[str, Any]:
    return {
        "large_photos": pictures.unchanged,
        "enlarged_photos": len(pictures.contents) - pictures.unchanged if pictures.photos else 0,
        "generated_pictures": 0 if pictures.photos else len(pictures.contents),
        "sizes": sorted(set(pictures.sizes)),
    }
