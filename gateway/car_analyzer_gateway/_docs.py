"""Renders the OpenAPI document as a page that works offline and without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px; }
code { padding: 1px 4px; } pre { padding: 1rem; overflow: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 4px 1rem 4px 0; vertical-align: top; }
h2 { margin-top: 3rem; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e8eb; } code, pre { background: #262a30; }
  a { color: #8ab4f8; } }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
DOCS_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"

EXAMPLES = {
    "/analyze": (
        "curl -F image=@car.jpg http://localhost:5000/analyze\n"
        "curl -F image=@front.jpg -F image=@back.jpg http://localhost:5000/analyze\n"
        "curl -H 'Content-Type: image/jpeg' --data-binary @car.jpg http://localhost:5000/analyze"
    ),
    "/health": "curl http://localhost:5000/health",
    "/metrics": "curl http://localhost:5000/metrics",
}


def render_docs(document: dict[str, Any]) -> str:
    """Render the page.

    Args:
        document: The OpenAPI document.
    """
    info = document["info"]
    operations = "".join(
        _operation(path, method, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_text(info['description'])} "
        f'For machines: <a href="openapi.json">openapi.json</a>.</p>{operations}</body></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</h2>"]
    if "description" in operation:
        parts.append(f"<p>{_text(operation['description'])}</p>")
    if "security" in operation:
        parts.append("<p>Needs the header <code>Authorization: Bearer TOKEN</code>.</p>")
    if path in EXAMPLES:
        parts.append(f"<pre>{escape(EXAMPLES[path])}</pre>")
    if "requestBody" in operation:
        types = ", ".join(f"<code>{escape(kind)}</code>" for kind in operation["requestBody"]["content"])
        parts.append(f"<p>The body is one of {types}.</p>")
    rows = "".join(_response(status, response) for status, response in operation["responses"].items())
    parts.append(f"<table><tr><th>Status</th><th>Meaning</th><th>Body</th></tr>{rows}</table>")
    if path == "/analyze":
        parts.append(
            f"<pre>{escape(json.dumps(_example(document['components']['schemas']['Analysis']), indent=2))}</pre>"
        )
    return "".join(parts)


def _response(status: str, response: dict[str, Any]) -> str:
    bodies = ", ".join(f"<code>{escape(kind)}</code>" for kind in response["content"])
    return f"<tr><td>{status}</td><td>{_text(response['description'])}</td><td>{bodies}</td></tr>"


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: member["example"] for name, member in schema["properties"].items() if "example" in member}


def _text(markdown: str) -> str:
    """Escape a text, with code for what is between backticks."""
    pieces = escape(markdown).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
