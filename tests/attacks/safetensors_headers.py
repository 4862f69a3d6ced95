"""Safetensors files with false headers."""

# ruff: noqa: ARG001 - not every attack uses the canary

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from .hostile import PROTO, STOP, attack, plain, reduce_system


def safetensors(folder: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(encoded) if length is None else length
    return plain(folder, struct.pack("<Q", size) + encoded + data, "hostile.safetensors")


def entry(start: int, end: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


@attack("its header claims")
def _safetensors_huge_header(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 4)}, b"\0" * 4, length=1 << 62)


@attack("its header claims")
def _safetensors_header_past_the_end(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 4)}, b"\0" * 4, length=1 << 20)


@attack("invalid offset")
def _safetensors_overlap(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 8), "b": entry(4, 8)}, b"\0" * 8)


@attack("its tensors end at byte 4,294,967,")
def _safetensors_past_the_end(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 4 << 30)}, b"\0" * 8)


@attack("invalid shape")
def _safetensors_shape_lies(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 8, [10**12])}, b"\0" * 8)


@attack("invalid value")
def _safetensors_negative(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(8, 0, [-2])}, b"\0" * 8)


@attack("holds a name twice")
def _safetensors_one_name_twice(folder: Path, canary: Path) -> Path:
    one = json.dumps(entry(0, 4))
    return safetensors(folder, f'{{"a": {one}, "a": {one}}}'.encode(), b"\0" * 4)


@attack("not valid JSON")
def _safetensors_deep_header(folder: Path, canary: Path) -> Path:
    return safetensors(folder, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@attack("not fully covered")
def _safetensors_rest_left_over(folder: Path, canary: Path) -> Path:
    return safetensors(folder, {"a": entry(0, 4)}, b"\0" * 4 + PROTO + reduce_system(canary) + STOP)
