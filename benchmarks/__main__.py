"""`python -m benchmarks`: every system in one run, in rounds, on the same networks and photos."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from reliability.processes import usage

from .environments import prepare
from .materials import SIZES, make_materials, make_photos
from .report import Measurement, as_table, draw
from .rivals.networks import NETWORKS
from .systems import CORES, RIVALS, environment, started, systems

_EPILOG = """\
examples:
  python -m benchmarks                                   everything, about 40 minutes on 2 cores
  python -m benchmarks --cases tiny-s --rounds 1 --systems limit 'car-analyzer, gRPC' LitServe
  python -m benchmarks --cases resnet50-s --out build/bench

A case is a network and a photo size: s 640x480, m 1920x1080, l 4000x3000, xl 6000x4000.
exit codes: 0 measured, 1 nothing could be measured, 2 wrong usage
"""
DEFAULT_CASES = ("tiny-s", "tiny-l", "resnet18-s", "resnet18-l")
LIMIT = "limit"


def main() -> int:
    """Measures, prints the table, and writes the picture and all figures."""
    arguments = _parse()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(
        f"{platform.processor() or platform.machine()}, {CORES} cores, Python {platform.python_version()}",
        file=sys.stderr,
    )
    environments = prepare({rival.name for rival in RIVALS.iterdir() if rival.is_dir()}, out / "environments")
    found: list[Measurement] = []
    for case in arguments.cases:
        network, _, size = case.rpartition("-")
        materials = make_materials(network, out / "materials")
        photos = make_photos(size)
        (file := out / f"photos-{size}.pickle").write_bytes(pickle.dumps(photos))
        chosen = [
            system
            for system in systems(materials.repository)
            if (not arguments.systems or system.name in arguments.systems)
            and (not system.rival or system.rival in environments)
        ]
        steps = [(number, system) for number in range(arguments.rounds) for system in [None, *chosen]]
        for number, system in tqdm(steps, desc=case, disable=None):
            load = ["--seconds", str(arguments.seconds), str(file)]
            try:
                if system is None:
                    variables = environment(materials, 0) | {"PYTHONPATH": os.pathsep.join(sys.path)}
                    answer = _run(["benchmarks.limit", *load], variables)
                    found.append(Measurement.of(case, LIMIT, number, answer))
                else:
                    with started(system, materials, out / "environments", photos[0]) as running:
                        one = _run(
                            [
                                "benchmarks.load",
                                "--clients=1",
                                "--seconds=2",
                                "--warm-up=1",
                                system.client,
                                running.url,
                                str(file),
                            ]
                        )
                        answer = _run(
                            [
                                "benchmarks.load",
                                f"--clients={arguments.clients}",
                                *load[:2],
                                system.client,
                                running.url,
                                str(file),
                            ]
                        )
                        memory = sum(usage(group).memory for group in running.groups)
                        found.append(
                            Measurement.of(case, system.name, number, answer, one, memory, running.first_answer)
                        )
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"left out of {case}: {error}", file=sys.stderr)
        (out / "figures.json").write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")
    if not found:
        return 1
    print(as_table(found))
    draw(found, out / "throughput.png")
    print(f"written: {out / 'figures.json'}, {out / 'throughput.png'}", file=sys.stderr)
    return 0


def _run(command: list[str], variables: dict[str, str] | None = None) -> dict[str, object]:
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cases = [f"{network}-{size}" for network in NETWORKS for size in SIZES]
    parser.add_argument(
        "--cases", nargs="+", choices=cases, default=DEFAULT_CASES, metavar="CASE", help="default: %(default)s"
    )
    names = [system.name for system in systems(Path())]
    parser.add_argument(
        "--systems", nargs="+", choices=[*names, LIMIT], metavar="NAME", help=f"of {', '.join(names)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, help="photos in flight; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
