"""The page at / and the files that belong to it, which come with the package."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
# Nothing from elsewhere, nothing inline; blob: is how a page shows a photo it is about to send.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}


class StaticFile:
    """One file, read once: there are few, they are small, and they do not change."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind.endswith(("json", "xml"))
        self._headers = {
            "Content-Type": f"{kind}; charset=utf-8" if text else kind,
            "ETag": f'"{hashlib.sha256(self._content).hexdigest()[:32]}"',
            # Asked for again each time, and sent only when they changed: the file names say nothing of their content.
            "Cache-Control": "no-cache" if path.suffix == ".html" else "public, max-age=300, must-revalidate",
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
        }

    async def answer(self, request: Request) -> Response:
        """Send the file, or say that the caller has it."""
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if self._headers["ETag"] in known:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


def static_routes(folder: Path = FOLDER) -> list[Route]:
    """A route for each file, and `/` for the index."""
    files = {
        path.relative_to(folder).as_posix(): StaticFile(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    routes = [Route(f"/{name}", file.answer) for name, file in files.items()]
    if INDEX in files:
        routes.append(Route("/", files[INDEX].answer))
    return routes
