"""`POST /analyze` and `GET /health` in front of a Triton: takes photos, returns labels as JSON."""

from ._app import make_app
from ._settings import Settings

__all__ = ["Settings", "make_app"]
