"""Analyses the photos of a folder or a bucket with a Triton service, from many Ray workers."""

from __future__ import annotations

import argparse
from typing import Any

import pyarrow as pa
import ray

from car_analyzer import CarAnalyzer, UnreachableError

HEADS = ("cleanliness", "condition")
# One schema for all batches: without it, a batch without errors would have other types than one with errors.
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        *((name, kind) for head in HEADS for name, kind in ((head, pa.string()), (f"{head}Confidence", pa.float64()))),
        ("processingTime", pa.float64()),
        ("error", pa.string()),
        ("code", pa.string()),
    ]
)


class Analyze:
    """One worker and its client, with up to ``concurrency`` photos in flight to the service at ``url``."""

    def __init__(self, url: str, concurrency: int) -> None:
        self._analyzer = CarAnalyzer(url, timeout=60)
        self._concurrency = concurrency

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Analyse one batch."""
        rows = []
        outcomes = self._analyzer.analyze_many(batch["bytes"], concurrency=self._concurrency)
        for path, outcome in zip(batch["path"], outcomes, strict=True):
            if not outcome.ok and isinstance(outcome.error, UnreachableError):
                raise outcome.error  # not a photo's fault: Ray retries the batch
            rows.append({"image": path, **outcome.to_dict()})
        return pa.Table.from_pylist(rows, schema=SCHEMA)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", help="folders, files or URLs such as s3://bucket/photos")
    parser.add_argument("--url", default="grpc://localhost:8001", help="the service; default: %(default)s")
    parser.add_argument("--output", required=True, help="folder for the answers, here or in a bucket")
    parser.add_argument("--format", choices=("parquet", "json"), default="parquet", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--concurrency", type=int, default=8, help="photos in flight for each; default: %(default)s")
    arguments = parser.parse_args()
    ray.data.DataContext.get_current().actor_task_retry_on_errors = True
    answers = ray.data.read_binary_files(
        arguments.photos,
        include_paths=True,
        file_extensions=["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "avif", "heic"],
    ).map_batches(
        Analyze,
        fn_constructor_args=(arguments.url, arguments.concurrency),
        batch_size=64,
        concurrency=arguments.workers,
        num_cpus=0.5,  # workers mostly wait
    )
    if arguments.format == "parquet":
        answers.write_parquet(arguments.output)
    else:
        answers.write_json(arguments.output)


if __name__ == "__main__":
    main()
