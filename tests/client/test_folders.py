from __future__ import annotations

import os
from pathlib import Path

from car_analyzer.folders import Entry, find_photos, natural_key


def names(entries: list[Entry], root: Path) -> list[str]:
    assert all(entry.error is None for entry in entries)
    return [os.path.relpath(entry.name, root) for entry in entries]


def test_names_sort_as_people_do() -> None:
    mixed = ["b.jpg", "car10.jpg", "Car2.jpg", "car1.jpg", "1.jpg", "a.jpg", "car02.jpg", "²³.jpg"]
    assert sorted(mixed, key=natural_key) == [
        "1.jpg",
        "a.jpg",
        "b.jpg",
        "car1.jpg",
        "Car2.jpg",
        "car02.jpg",
        "car10.jpg",
        "²³.jpg",
    ]


def test_folders_give_their_photos(tmp_path: Path) -> None:
    for name in (
        "10.JPG",
        "9.jpeg",
        "a.Png",
        "b.txt",
        "c",
        "d.webp",
        "e.tiff",
        "deep/f.gif",
        "deep/er/g.avif",
        "deep/er/h.HEIC",
        "x.jpg/h.bmp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    flat = ["9.jpeg", "10.JPG", "a.Png", "d.webp", "e.tiff"]
    assert names(find_photos([str(tmp_path)], recursive=False), tmp_path) == flat
    assert names(find_photos([str(tmp_path)], recursive=True), tmp_path) == [
        *flat[:3],
        "d.webp",
        "deep/er/g.avif",
        "deep/er/h.HEIC",
        "deep/f.gif",
        "e.tiff",
        "x.jpg/h.bmp",
    ]


def test_files_are_taken_as_they_are_given(tmp_path: Path) -> None:
    given = ["-", "no/such.txt", str(tmp_path / "b.txt")]
    assert find_photos(given, recursive=True) == [Entry(name) for name in given]


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jpg").touch()
    (entry,) = find_photos([str(tmp_path)], recursive=False)
    assert entry.error is not None
    assert "no photo" in entry.error


def test_circles_of_links_are_not_walked(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert names(find_photos([str(tmp_path)], recursive=True), tmp_path) == ["a.jpg", "link.jpg"]
