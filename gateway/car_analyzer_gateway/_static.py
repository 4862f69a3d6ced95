"""The page at / and its files, which are part of the package."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Route
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
# Only our own files, and nothing inline; blob: shows a photo before it is sent.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class PageFiles(StaticFiles):
    """Starlette's static files, with headers for security and caching."""

    def file_response(self, full_path: Any, *arguments: Any, **options: Any) -> Response:
        """Send a file, or 304 if the client has it."""
        response = super().file_response(full_path, *arguments, **options)
        # File names do not change with their content, so clients have to revalidate.
        is_page = str(full_path).endswith(".html")
        response.headers["Cache-Control"] = "no-cache" if is_page else "public, max-age=300, must-revalidate"
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def static_routes(folder: Path = FOLDER) -> list[Route]:
    """A route for each file, and `/` for the index."""
    files = PageFiles(directory=folder)

    async def send(name: str, request: Request) -> Response:
        return await files.get_response(name, request.scope)

    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    routes = [Route(f"/{name}", partial(send, name)) for name in names]
    return [Route("/", partial(send, INDEX)), *routes] if INDEX in names else routes
