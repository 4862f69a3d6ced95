"""Versions with the same labels: calibrated ones, and those that are compared with the served one first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from car_analyzer import CarAnalyzer, Retry
from car_analyzer.pixels import PixelSource
from car_analyzer_export.repository import versions
from car_analyzer_export.repository.version_copy import add_copy
from car_analyzer_export.shadow import trial
from reliability.publishing import VersionedLoad
from tests.conftest import PATIENCE_S, until
from tests.gateway.conftest import running_gateway

from .publish_site import HEADS, KEY, Site, versioned_photos


def test_calibrated_confidences_are_served_at_once(site: Site, tmp_path: Path) -> None:
    """With the same labels; until a rollback, or a newer export, which has no temperature."""
    before = site.again()
    assert site.run("publish", "--version", before)[0] == 0
    photos, rows, chance = [], ["file,cleanliness"], random.Random(1)
    for number in range(60):
        photos.append(tmp_path / f"{number}.png")
        red, green, blue = (chance.randrange(256) for _ in range(3))
        Image.new("RGB", (70, 70), (red, green, blue)).save(photos[-1])
    with CarAnalyzer(site.server.grpc_url) as analyzer:
        plain = [analyzer.analyze(photo) for photo in photos]
        for photo, analysis in zip(photos * 4, plain * 4, strict=True):
            given = analysis.cleanliness.label
            (other,) = {*HEADS["cleanliness"]} - {given}
            rows.append(f"{photo},{other if chance.random() < 0.3 else given}")  # the network is surer than that
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        code, printed = site.run("calibrate", tmp_path / "labels.csv")
        assert code == 0, printed
        assert "cleanliness calibrated, labels unchanged" in printed
        served = site.served()
        assert site.on_disk() == served > before
        for photo, analysis in zip(photos, plain, strict=True):
            calibrated = analyzer.analyze(photo)
            assert calibrated.version == str(served)
            assert calibrated.cleanliness.label == analysis.cleanliness.label
            assert calibrated.cleanliness.confidence != analysis.cleanliness.confidence
            assert calibrated.condition == analysis.condition
        assert site.run("rollback")[0] == 0
        assert analyzer.analyze(photos[0]).cleanliness == plain[0].cleanliness
    assert "temperature" in str(versions.configs_of(site.repository, served)["car_analyzer"])
    assert "temperature" not in str(versions.configs_of(site.repository, site.place(104))["car_analyzer"])


def test_a_version_is_compared_on_the_gateways_photos_first(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose labels differ is not served, nor seen by a caller; one with the same labels is."""
    monkeypatch.setattr(trial, "POLL_S", 0.05)
    before = site.again()
    assert site.run("publish", "--version", before)[0] == 0
    (tmp_path / "logs").mkdir()
    with contextlib.ExitStack() as stack:
        flags = ("--url", site.server.grpc_url, "--admin-key-file", str(site.folder / "key"))
        gateway = stack.enter_context(running_gateway(tmp_path / "logs", *flags))
        photos = versioned_photos(site, {before: (0, HEADS)})
        load = stack.enter_context(VersionedLoad(gateway.url, photos, workers=2, timeout=600))
        shadow = ("--shadow", "100%", "--shadow-photos", 30, "--gateway", gateway.url, "--report", tmp_path / "r.html")
        # The same networks with swapped labels: all answers about one head differ.
        swapped = copy_of(site, before, {"condition": {"labels": HEADS["condition"][::-1]}})
        code, printed = site.run("publish", "--version", swapped, *shadow)
        assert code == 1
        assert "condition: 0.0% agree (0 of " in printed
        assert "below 98.0%" in printed
        assert "cleanliness: 100.0% agree" in printed
        page = (tmp_path / "r.html").read_text()
        assert "below 98.0%" in page
        assert page.count("data:image/jpeg") >= 1
        assert site.loaded() == {**{model: {before} for model in site.loaded()}, "tires": set()}
        headers = {"Authorization": f"Bearer {KEY}"}
        assert gateway.http.get("/shadow", headers=headers).json()["running"] is False
        # Interrupted, it leaves nothing behind.
        calibrated = copy_of(site, before, {"condition": {"temperature": 2.0}})
        process = site.start("", "publish", "--version", calibrated, *shadow, "--shadow-photos", 1_000_000)
        assert process.stdout is not None
        until(lambda: "comparing version" in process.stdout.readline())
        # Meanwhile the served version prepares the photos of its explanations, and those that drift looks at.
        with CarAnalyzer(site.server.grpc_url, retry=Retry(attempts=1)) as analyzer:
            explained = analyzer.analyze(photos[0].content, explain=True)
        assert (explained.version, explained.condition.explanation.method) == (str(before), "occlusion")
        asyncio.run(prepare(site.server.http_url, photos[0].content, explained.version, explained.export_id))
        process.terminate()
        rest, _ = process.communicate(timeout=120)
        assert (process.returncode, "the previous version is still served" in rest) == (130, True), rest
        assert site.loaded() == {**{model: {before} for model in site.loaded()}, "tires": set()}
        assert gateway.http.get("/shadow", headers=headers).json()["running"] is False
        load.wait_for(10)
        assert load.errors() == []
        assert set(load.versions) == {before}
        code, printed = site.run("publish", "--version", calibrated, *shadow, "--json")
        assert code == 0, printed
        result = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
        assert result["served"] == site.served() == site.on_disk() == calibrated
        assert result["shadow"]["heads"]["condition"]["agreement"] == 1
        assert result["shadow"]["photos"] >= 30
    assert load.errors() == []


async def prepare(url: str, photo: bytes, version: str, export_id: str | None) -> None:
    source = PixelSource(url, "car_analyzer")
    try:
        assert (await source.pixels(photo, version, export_id, "", PATIENCE_S)).size
    finally:
        await source.close()


def copy_of(site: Site, version: int, heads: dict[str, Any]) -> int:
    """A version with the same networks and other values of its heads, which nothing serves yet."""
    return add_copy(site.repository, version, heads, {}, deliver=lambda _repository, _version: None).version
