"""`car-analyzer export`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from car_analyzer.command_line import count

from ..network_process import NetworkProcess
from ..photo_folder import describe
from ..repository.signature import Signature
from ..repository.versions import complete
from ..spec import WELL_KNOWN_LABELS, Spec
from .common import add_repository, add_sign, make_parser, progress_bar, run
from .labelled import STEPS, add_check_options, check_labelled, printable_text

if TYPE_CHECKING:
    from ..checking.outcome import Checked
    from ..export import Export
    from ..spec import NetworkPlan, Plan

_EPILOG = """\
examples:
  car-analyzer export cars.toml
  car-analyzer export --cleanliness cleanliness_model.pth --condition condition_model.pth \\
      --architecture network.py:build --condition-labels damaged,intact
  car-analyzer export cars.toml --dry-run
  car-analyzer export cars.toml --sign sign.key     sign the repository, for `car-analyzer serve --verify sign.pub`
  car-analyzer export cars.toml --check labelled/   labelled photos, in the format of `car-analyzer check`

A spec lists the heads (relative paths start at its folder):
  [heads.cleanliness]
  weights = "cleanliness_model.pth"
  architecture = "auto"                  # or torchvision:NAME, timm:NAME, network.py:build, package.module:factory
  labels = ["clean", "dirty"]            # in logit order

exit codes: 0 published, 1 nothing published (the message says why), 2 wrong usage, 130 interrupted, nothing published
"""

# Options that replace the value of the same name in the spec.
_SPEC_OPTIONS = ("photos", "precision", "target", "accelerator", "engine_cache", "preprocess", "explain")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_source(parser, arguments)
    return run(
        "export",
        lambda: _export(read_spec(arguments), arguments),
        lambda result: _report(arguments, *result),
        interrupted="nothing was published",
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "export", "Export trained PyTorch classifiers to a Triton model repository, verified against PyTorch.", _EPILOG
    )
    add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="export and verify everything, publish nothing")
    parser.add_argument("--json", action="store_true", help="print the plan and the result as one JSON object")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for what to export, and where to."""
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.toml", help="what to export")
    for name, labels in WELL_KNOWN_LABELS.items():
        parser.add_argument(
            f"--{name}", type=Path, metavar="FILE.pth", help=f"weights of the {' / '.join(labels)} head"
        )
        parser.add_argument(
            f"--{name}-labels",
            type=_two_labels,
            metavar="A,B",
            help=f"its labels, in the order of the network's classes; default: the checkpoint's, or {','.join(labels)}",
        )
    parser.add_argument("--architecture", metavar="FILE.py:FACTORY", help="of these networks; default: detect it")
    add_repository(parser)
    add_sign(parser)
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
        help="folder for TensorRT engines on the serving machine; default: /var/cache/car-analyzer",
    )
    parser.add_argument(
        "--preprocess", choices=["pillow", "dali"], help="dali: decode on a GPU where there is one; default: pillow"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        default=None,
        help="also serve class activation maps of the networks that have them: which parts of a photo an answer is "
        "based on",
    )
    add_check_options(parser)


def has_source(arguments: argparse.Namespace) -> bool:
    """Whether the arguments name something to export."""
    return bool(arguments.spec or _weight_options(arguments) or any(_labels_of(arguments).values()))


def check_source(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the process with a usage error unless the arguments name exactly one source."""
    if arguments.min_accuracy is not None and arguments.check is None:
        parser.error("--min-accuracy needs --check")
    for name, labels in _labels_of(arguments).items():
        if labels and arguments.spec:
            parser.error(f"--{name}-labels is not for a spec: write labels = {json.dumps(labels)} in its head")
        if labels and not getattr(arguments, name):
            parser.error(f"--{name}-labels needs --{name}")
    if arguments.spec and (_weight_options(arguments) or arguments.architecture):
        parser.error("give a spec, or --cleanliness, --condition and --architecture, not both")
    if not has_source(arguments):
        parser.error("give a spec, or at least one of --cleanliness and --condition")


def _weight_options(arguments: argparse.Namespace) -> list[str]:
    return [name for name in WELL_KNOWN_LABELS if getattr(arguments, name)]


def _labels_of(arguments: argparse.Namespace) -> dict[str, list[str] | None]:
    return {name: getattr(arguments, f"{name}_labels") for name in WELL_KNOWN_LABELS}


def _two_labels(text: str) -> list[str]:
    labels = [label.strip() for label in text.split(",")]
    if len(labels) != 2 or not all(labels) or labels[0] == labels[1]:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not two different labels with a comma between, as in clean,dirty"
        )
    return labels


def read_spec(arguments: argparse.Namespace) -> Spec:
    """Makes the spec from its file or from the options.

    Raises:
        SpecError: The spec is invalid.
    """
    if arguments.spec:
        spec = Spec.from_file(arguments.spec)
    else:
        heads: dict[str, dict[str, Any]] = {
            name: {"weights": getattr(arguments, name), "architecture": arguments.architecture or "auto"}
            for name in _weight_options(arguments)
        }
        for name, labels in _labels_of(arguments).items():
            if labels:
                heads[name]["labels"] = labels
        spec = Spec.from_values({"heads": heads}, "flags")
    given = {name: value for name in _SPEC_OPTIONS if (value := getattr(arguments, name)) is not None}
    return spec.model_copy(update=given)


def _export(spec: Spec, arguments: argparse.Namespace) -> tuple[Plan, Export, Checked | None]:
    repository: Path = arguments.repository
    signature = Signature(repository, arguments.sign)
    signature.check()  # before the export, which takes long
    unsigned = [] if signature.exists else complete(repository)
    with (
        progress_bar(1 + spec.steps + (STEPS if arguments.check else 0), "starting PyTorch") as progress,
        NetworkProcess(spec, trust_pickle=arguments.trust_pickle, progress=progress) as networks,
    ):
        from ..export import add_version, dry_run  # while the other process imports PyTorch

        plan = networks.plan()
        checked = check_labelled(plan, networks, arguments)
        if arguments.dry_run:
            exported = dry_run(plan, repository, networks.write, version=arguments.version, checked=checked)
            return plan, exported, checked
        exported = add_version(
            plan, repository, networks.write, version=arguments.version, checked=checked, signature=signature
        )
    if arguments.sign and unsigned:
        print(
            f"{repository} was not signed before: the signature includes version {', '.join(map(str, unsigned))} "
            "as it was found there.",
            file=sys.stderr,
        )
    return plan, exported, checked


def _report(arguments: argparse.Namespace, plan: Plan, export: Export, checked: Checked | None) -> None:
    if arguments.json:
        print(json.dumps(_as_json(export, checked, dry_run=arguments.dry_run)))
        return
    print_export(plan, export, checked)
    if arguments.dry_run:
        print("Nothing was published: this was a dry run.")
    else:
        print(f"published as version {export.version} (export {export.export_id}) in {export.repository}")
        print(
            "a Triton that starts from now on serves it; a running one after "
            f"`car-analyzer publish --version {export.version} --repository {export.repository}` or a restart"
        )


def print_export(plan: Plan, export: Export, checked: Checked | None) -> None:
    """Prints the plan, and what verification and the check of labelled photos found."""
    if export.skipped:
        print(f"Skipped of the photos in {plan.photos}: {describe(export.skipped)}.", file=sys.stderr)
    for network in plan.networks:
        for note in network.notes:
            print(note, file=sys.stderr)
        print(f"{network.name}: {network.weights.name}, {network.architecture}, {_describe_view(network)}")
        for head in network.heads:
            print(f"  {head.name}: {' / '.join(head.labels)} ({head.activation})")
        _print_verification(export.networks[network.name])
    if plan.explain:
        print(_explained(plan, export))
    if checked is not None:
        print(printable_text(checked))


def _explained(plan: Plan, export: Export) -> str:
    """Which heads have class activation maps."""
    maps = {head for facts in export.networks.values() for head in facts["maps"]}
    mapped = [head.name for head, _ in plan.heads() if head.name in maps]
    others = [head.name for head, _ in plan.heads() if head.name not in maps]
    ways = [("by class activation maps", mapped), ("by occlusion, since their networks have no such map", others)]
    return "explained " + "; ".join(f"{way}: {', '.join(heads)}" for way, heads in ways if heads)


def _print_verification(facts: dict[str, Any]) -> None:
    compared = facts["compared_with_pytorch"]
    batches = [batch for found in compared["batches"].values() for batch in found]
    larger = max(compared["tolerances"].values(), key=lambda tolerance: tolerance["limit"])
    accepted = f", {larger['limit']:.1g} is accepted for logits up to {larger['size']:.3g}"
    print(
        f"  {facts['onnx']['bytes'] / 1e6:.1f} MB of ONNX; agrees with PyTorch on "
        f"{max(batch['batch'] for batch in batches)} pictures "
        f"(largest difference of a logit {max(batch['max_difference'] for batch in batches):.1g}"
        f"{'' if larger['basis'] == 'absolute' else accepted})"
    )
    if precision := facts.get("precision"):
        print(
            f"  {precision['precision']} instead of {precision['fp32_bytes'] / 1e6:.1f} MB of fp32; "
            f"{precision['answers_agreeing']:.1%} of the answers on {precision['pictures']} pictures agree"
        )


def _describe_view(network: NetworkPlan) -> str:
    view = network.view
    crop = f"shortest edge {view.shortest_edge}, center crop " if view.shortest_edge else ""
    options = {"no antialias": not view.antialias, "upright": view.exif_rotation, f"{view.decoding} decoding": True}
    options[f"{view.resampling} resampling"] = True
    parts = [f"{crop}{view.width} x {view.height} {'BGR' if network.bgr else 'RGB'}", view.interpolation]
    return ", ".join(parts + [text for text, applies in options.items() if applies])


def _as_json(export: Export, checked: Checked | None, *, dry_run: bool) -> dict[str, Any]:
    check = {} if checked is None else {"check": checked.facts}
    if dry_run:
        return {"dry_run": True, "networks": export.networks} | check
    facts = {
        "repository": str(export.repository),
        "version": export.version,
        "export_id": export.export_id,
        "networks": export.networks,
    }
    return facts | ({"skipped": export.skipped} if export.skipped else {}) | check
