"""`car-analyzer export`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from car_analyzer.command_line import count

from ..errors import ExportError
from ..network_process import NetworkProcess
from ..photo_folder import describe
from ..spec import WELL_KNOWN_LABELS, Spec
from .labelled import STEPS, add_check_options, check_labelled, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..checking.outcome import Checked
    from ..export import Export
    from ..spec import NetworkPlan, Plan

_EPILOG = """\
examples:
  car-analyzer export cars.toml
  car-analyzer export --cleanliness cleanliness_model.pth --condition condition_model.pth \\
      --architecture network.py:build
  car-analyzer export cars.toml --dry-run
  car-analyzer export cars.toml --check labelled/   photos as of `car-analyzer check`, to know the networks by

A spec names the heads (paths in it start at its folder):
  [heads.cleanliness]
  weights = "cleanliness_model.pth"
  architecture = "auto"                  # or torchvision:NAME, timm:NAME, network.py:build, package.module:factory
  labels = ["clean", "dirty"]            # in logit order

exit codes: 0 published, 1 nothing published (the message says why), 2 wrong usage
"""


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_choice(parser, arguments)
    try:
        plan, export, checked = _run(read_spec(arguments), arguments)
    except ExportError as error:
        print(f"car-analyzer export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("car-analyzer export: interrupted; nothing was published.", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(_as_json(plan, export, checked)))
    else:
        report(plan, export, checked)
        if export is None:
            print("Nothing was published: this was a dry run.")
        else:
            print(f"published as version {export.version} (export {export.export_id}) in {export.repository}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="car-analyzer export",
        description="Export trained PyTorch classifiers to a Triton model repository, checked against PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="load and check everything, publish nothing")
    parser.add_argument("--json", action="store_true", help="print what was planned and published as JSON")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says what to export, and where to."""
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.toml", help="what to export")
    for name, labels in WELL_KNOWN_LABELS.items():
        parser.add_argument(
            f"--{name}", type=Path, metavar="FILE.pth", help=f"weights of the {' / '.join(labels)} head"
        )
    parser.add_argument(
        "--architecture",
        metavar="FILE.py:FACTORY",
        help="their network; default: find out",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--version", type=count, metavar="N", help="number of the new version; default: the next free one"
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos to compare ONNX Runtime with PyTorch on")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="accept a pickled network; this runs code in the file"
    )
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: the spec's, or fp32")
    parser.add_argument(
        "--target", choices=["any", "gpu"], help="gpu: batches, queues and CUDA options for GPUs; default: any"
    )
    parser.add_argument(
        "--accelerator", choices=["cuda", "tensorrt"], help="what runs the networks on a GPU; default: cuda"
    )
    parser.add_argument(
        "--engine-cache",
        metavar="DIR",
        help="where the serving machine keeps TensorRT's engines; default: /var/cache/car-analyzer",
    )
    parser.add_argument(
        "--preprocess", choices=["pillow", "dali"], help="dali: decode on a GPU where there is one; default: pillow"
    )
    add_check_options(parser)


def says_what(arguments: argparse.Namespace) -> bool:
    """Whether there is anything to export."""
    return bool(arguments.spec or _short_form(arguments))


def check_choice(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the process if it is not clear what to export."""
    if arguments.min_accuracy is not None and arguments.check is None:
        parser.error("--min-accuracy is for the photos of --check")
    if arguments.spec and (_short_form(arguments) or arguments.architecture):
        parser.error("give a spec, or --cleanliness, --condition and --architecture, not both")
    if not says_what(arguments):
        parser.error("give a spec, or at least one of --cleanliness and --condition")


def _short_form(arguments: argparse.Namespace) -> list[str]:
    return [name for name in WELL_KNOWN_LABELS if getattr(arguments, name)]


def read_spec(arguments: argparse.Namespace) -> Spec:
    """What to export.

    Raises:
        SpecError: The spec is at fault.
    """
    if arguments.spec:
        spec = Spec.from_file(arguments.spec)
    else:
        heads: dict[str, dict[str, Any]] = {
            name: {"weights": getattr(arguments, name), "architecture": arguments.architecture or "auto"}
            for name in _short_form(arguments)
        }
        spec = Spec.from_values({"heads": heads}, "flags")
    names = ("photos", "precision", "target", "accelerator", "engine_cache", "preprocess")
    given = {name: getattr(arguments, name) for name in names}
    return spec.model_copy(update={name: value for name, value in given.items() if value is not None})


def _run(spec: Spec, arguments: argparse.Namespace) -> tuple[Plan, Export | None, Checked | None]:
    with (
        progress_bar(1 + spec.steps + (STEPS if arguments.check else 0), "starting PyTorch") as progress,
        NetworkProcess(spec, trust_pickle=arguments.trust_pickle, progress=progress) as networks,
    ):
        from ..export import add_version  # while the other process imports PyTorch

        plan = networks.plan()
        checked = check_labelled(plan, networks, arguments)
        if arguments.dry_run:
            networks.check()
            return plan, None, checked
        done = add_version(plan, arguments.repository, networks.write, version=arguments.version, checked=checked)
        return plan, done, checked


@contextlib.contextmanager
def progress_bar(steps: int, first: str = "") -> Iterator[Callable[[str], None]]:
    """Shows a bar on a terminal; gives what moves it on to the next step, called with a few words about that."""
    bar_format = "{l_bar}{bar}| {n}/{total} {desc}"
    with tqdm(total=steps, disable=None, bar_format=bar_format, leave=False) as bar:
        bar.set_description_str(first)

        def progress(step: str) -> None:
            bar.update()
            bar.set_description_str(step)

        yield progress


def report(plan: Plan, export: Export | None, checked: Checked | None) -> None:
    """Prints what was planned and found out."""
    if skipped := export.skipped if export is not None else plan.skipped:
        print(f"Skipped of the photos in {plan.photos}: {describe(skipped)}.", file=sys.stderr)
    for network in plan.networks:
        for note in network.notes:
            print(note, file=sys.stderr)
        print(f"{network.name}: {network.weights.name}, {network.architecture}, {_describe_view(network)}")
        for head in network.heads:
            print(f"  {head.name}: {' / '.join(head.labels)} ({head.activation})")
        if export is not None:
            facts = export.networks[network.name]
            batches = [batch for found in facts["compared_with_pytorch"]["batches"].values() for batch in found]
            print(
                f"  {facts['onnx']['bytes'] / 1e6:.1f} MB of ONNX; agrees with PyTorch on "
                f"{max(batch['batch'] for batch in batches)} pictures "
                f"(largest difference of a logit {max(batch['max_difference'] for batch in batches):.1g})"
            )
            if precision := facts.get("precision"):
                print(
                    f"  {precision['precision']} instead of {precision['fp32_bytes'] / 1e6:.1f} MB of fp32; "
                    f"{precision['answers_agreeing']:.1%} of the answers on {precision['pictures']} pictures agree"
                )

    if checked is not None:
        print(lines(checked))


def _describe_view(network: NetworkPlan) -> str:
    view = network.view
    crop = f"shortest edge {view.shortest_edge}, middle " if view.shortest_edge else ""
    parts = [f"{crop}{view.width} x {view.height} {'BGR' if network.bgr else 'RGB'}", view.interpolation]
    said = {"no antialias": not view.antialias, "upright": view.exif_rotation, f"{view.decoding} decoding": True}
    parts += [text for text, is_so in said.items() if is_so]
    return ", ".join(parts)


def _as_json(plan: Plan, export: Export | None, checked: Checked | None) -> dict[str, Any]:
    known = {} if checked is None else {"check": checked.facts}
    if export is not None:
        facts = {
            "repository": str(export.repository),
            "version": export.version,
            "export_id": export.export_id,
            "networks": export.networks,
        }
        return facts | ({"skipped": export.skipped} if export.skipped else {}) | known
    return {"dry_run": True, "networks": {network.name: network.describe() for network in plan.networks}} | known
