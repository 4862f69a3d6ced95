"""Writes the index of torchvision's and timm's networks, for maintainers: python export/build_architecture_index.py.

Run it when a new version of either is worth supporting; it takes a few minutes.
"""

from __future__ import annotations

import sys
import warnings
from importlib import metadata

from car_analyzer_export.architectures import index, zoo
from car_analyzer_export.errors import NetworkError


def main() -> None:
    """Builds every network without weights and writes one line for each."""
    warnings.simplefilter("ignore")
    models, timm = zoo.import_library("torchvision.models"), zoo.import_library("timm")

    names = {zoo.TORCHVISION: models.list_models(module=models), zoo.TIMM: timm.list_models()}
    lines = []
    for source in zoo.SOURCES:
        for name in sorted(names[source]):
            try:
                network = zoo.create(source, name, {"num_classes": 2})
            except NetworkError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            weights = network.state_dict()
            if any(part.partition(".")[0] in zoo.HEADS for part in weights):
                lines.append(index.Entry.of(source, name, weights).to_line())
            else:
                print(f"left out: {source}:{name} is no classifier", file=sys.stderr)
    versions = ", ".join(f"{source} {metadata.version(source)}" for source in zoo.SOURCES)
    header = f"# Written by export/build_architecture_index.py from {versions}: source, name, fingerprint, sketch\n"
    index.FILE.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} networks, {index.FILE.stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
