"""Collects photos and what people say about their answers, to train with. Nothing of it delays an answer."""

from __future__ import annotations

from ._collection import Collection
from .recent import Photo

__all__ = ["Collection", "Photo"]
