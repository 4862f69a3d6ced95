"""Renders the OpenAPI document as a page that works offline and without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px; }
code { padding: 1px 4px; } pre { padding: 1rem; overflow: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 4px 1rem 4px 0; vertical-align: top; }
h2 { margin-top: 3rem; } iframe { width: 100%; height: 9rem; border: 1px solid #8888; border-radius: 4px; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e8eb; } code, pre { background: #262a30; }
  a { color: #8ab4f8; } }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
DOCS_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

# The answer is shown in a frame: that needs no script.
TRY_FORM = """
<form action="analyze" method="post" enctype="multipart/form-data" target="answer">
<p><label>Try it: <input type="file" name="image" accept="image/*,.heic,.heif" multiple required></label>
<button>Analyse</button></p></form><iframe name="answer" title="Answer"></iframe>
"""
# A form cannot send a token; the script of the page at / does.
TRY_ON_PAGE = '<p>Try it on <a href=".">the page</a>, which asks for the token.</p>'

EXAMPLES = {
    "/analyze": (
        "curl -F image=@car.jpg http://localhost:5000/analyze\n"
        "curl -F image=@front.jpg -F image=@back.jpg http://localhost:5000/analyze\n"
        "curl -H 'Content-Type: image/jpeg' --data-binary @car.jpg http://localhost:5000/analyze\n"
        "curl -F image=@car.jpg 'http://localhost:5000/analyze?explain=1'"
    ),
    "/feedback": (
        "curl -H 'Content-Type: application/json' "
        """-d '{"request_id": "abc", "labels": {"condition": "damaged"}}' http://localhost:5000/feedback"""
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
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_text(info['description'])} "
        f'For machines: <a href="openapi.json">openapi.json</a>.</p>{operations}</body></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</h2>"]
    if "description" in operation:
        parts.append(f"<p>{_text(operation['description'])}</p>")
    needs_token = "security" in operation
    if needs_token:
        parts.append("<p>Needs the header <code>Authorization: Bearer TOKEN</code>.</p>")
    if path in EXAMPLES:
        parts.append(f"<pre>{escape(EXAMPLES[path])}</pre>")
    if path == "/analyze":
        parts.append(TRY_ON_PAGE if needs_token else TRY_FORM)
    elif not needs_token and method == "get":
        parts.append(f'<p>Try it: <a href="{escape(path.lstrip("/"))}">{escape(path)}</a></p>')
    if "requestBody" in operation:
        types = ", ".join(f"<code>{escape(kind)}</code>" for kind in operation["requestBody"]["content"])
        parts.append(f"<p>The body is one of {types}.</p>")
    rows = "".join(_response(status, response) for status, response in operation["responses"].items())
    parts.append(f"<table><tr><th>Status</th><th>Meaning</th><th>Codes</th></tr>{rows}</table>")
    parts.extend(_examples(operation["responses"].get("200", {"content": {}})))
    return "".join(parts)


def _response(status: str, response: dict[str, Any]) -> str:
    examples = [example["value"] for body in response.get("content", {}).values() for example in _named(body).values()]
    codes = ", ".join(f"<code>{escape(value['code'])}</code>" for value in examples if "code" in value)
    return f"<tr><td>{status}</td><td>{_text(response['description'])}</td><td>{codes}</td></tr>"


def _examples(response: dict[str, Any]) -> Iterator[str]:
    for kind, body in response["content"].items():
        for name, example in _named(body).items():
            text = json.dumps(example["value"], indent=2)
            yield f"<p><code>{escape(kind)}</code>, {escape(name)}:</p><pre>{escape(text)}</pre>"


def _named(body: dict[str, Any]) -> dict[str, Any]:
    examples: dict[str, Any] = body.get("examples", {})
    return examples


def _text(markdown: str) -> str:
    """Escape a text, with code for what is between backticks."""
    pieces = escape(markdown).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
