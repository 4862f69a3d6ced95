"""`POST /analyze` and `GET /health` in front of a Triton: photos go through as they are, labels come back as JSON."""

from ._app import make_app
from ._settings import Settings

__all__ = ["Settings", "make_app"]
