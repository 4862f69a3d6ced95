"""`car-analyzer export`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .errors import ExportError
from .spec import WELL_KNOWN_LABELS, Spec

if TYPE_CHECKING:
    from .export import Export

_EPILOG = """\
examples:
  car-analyzer export cars.toml
  car-analyzer export --cleanliness cleanliness_model.pth --condition condition_model.pth \\
      --architecture network.py:build

A spec names the heads (paths in it start at its folder):
  [heads.cleanliness]
  weights = "cleanliness_model.pth"
  architecture = "network.py:build"      # or "package.module:factory"
  labels = ["clean", "dirty"]            # in logit order

exit codes: 0 published, 1 nothing published (the message says why), 2 wrong usage
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    short_form = [name for name in WELL_KNOWN_LABELS if getattr(arguments, name)]
    if arguments.spec and (short_form or arguments.architecture):
        parser.error("give a spec, or --cleanliness, --condition and --architecture, not both")
    if not arguments.spec and not short_form:
        parser.error("give a spec, or at least one of --cleanliness and --condition")
    try:
        export = _export(_spec(arguments, short_form), arguments)
    except ExportError as error:
        print(f"car-analyzer export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("car-analyzer export: interrupted; nothing was published.", file=sys.stderr)
        return 130
    _report(export, as_json=arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer export",
        description="Export trained PyTorch classifiers to a Triton model repository, checked against PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.toml", help="what to export")
    for name, labels in WELL_KNOWN_LABELS.items():
        parser.add_argument(
            f"--{name}", type=Path, metavar="FILE.pth", help=f"weights of the {' / '.join(labels)} head"
        )
    parser.add_argument("--architecture", metavar="FILE.py:FACTORY", help="the network of the weights given as flags")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--version", type=_version, metavar="N", help="number of the new version; default: the next free one"
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos to compare ONNX Runtime with PyTorch on")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="accept a pickled network; this runs code in the file"
    )
    parser.add_argument("--json", action="store_true", help="print what was published as JSON")
    return parser


def _version(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _spec(arguments: argparse.Namespace, short_form: list[str]) -> Spec:
    if arguments.spec:
        spec = Spec.from_file(arguments.spec)
    else:
        heads: dict[str, dict[str, Any]] = {
            name: {"weights": getattr(arguments, name), "architecture": arguments.architecture} for name in short_form
        }
        spec = Spec.from_values({"heads": heads}, "flags")
    return spec.model_copy(update={"photos": arguments.photos}) if arguments.photos else spec


def _export(spec: Spec, arguments: argparse.Namespace) -> Export:
    # `disable=None` shows the bar on a terminal only. It is on screen before PyTorch is imported, which takes seconds.
    steps = 1 + 3 * len(spec.heads)
    with tqdm(total=steps, disable=None, bar_format="{l_bar}{bar}| {n}/{total} {desc}", leave=False) as bar:
        bar.set_description_str("starting PyTorch")
        from .export import export

        def progress(step: str) -> None:
            bar.update()
            bar.set_description_str(step)

        return export(
            spec,
            arguments.repository,
            version=arguments.version,
            trust_pickle=arguments.trust_pickle,
            progress=progress,
        )


def _report(export: Export, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"repository": str(export.repository), "version": export.version, "heads": export.heads}))
        return
    for name, facts in export.heads.items():
        batches = facts["compared_with_pytorch"]["batches"]
        difference = max(batch["max_difference"] for batch in batches)
        pictures = max(batch["batch"] for batch in batches)
        print(
            f"{name}: {' / '.join(facts['labels'])}, {facts['model']['bytes'] / 1e6:.1f} MB; "
            f"PyTorch and ONNX Runtime agree on {pictures} pictures (largest difference of a logit {difference:.1g})"
        )
    print(f"published as version {export.version} in {export.repository}")
