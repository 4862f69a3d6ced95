"""Writes reports: self-contained HTML pages with one style."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def write_page(file: Path, package: str, filters: Mapping[str, Callable[..., Any]], values: Mapping[str, Any]) -> None:
    """Writes a page.

    Args:
        file: The HTML file.
        package: The package that has the template, `report.html.jinja`.
        filters: For the template.
        values: Likewise; `style` is the style that all pages share.

    Raises:
        OSError: It cannot be written.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    source = resources.files(package).joinpath("report.html.jinja").read_text(encoding="utf-8")
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    page = environment.from_string(source).stream(values, style=style)
    with file.open("w", encoding="utf-8") as target:
        target.writelines(page)
