"""Writes Grafana's dashboard, which is committed: python deploy/monitoring/dashboard.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "helm" / "car-analyzer" / "files" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
COLUMNS, HEIGHT = 24, 8


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        title: Its heading.
        unit: As Grafana names it.
        queries: PromQL, each with the legend of its lines.
        about: What it shows, and how to interpret it.
        kind: `timeseries`, or `stat` for one number.
        width: In columns of 24.
        maximum: Of the axis, if it is known.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    maximum: float | None = field(default=None)

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0}
        if self.maximum is not None:
            defaults["max"] = self.maximum
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": HEIGHT if self.kind == "timeseries" else HEIGHT // 2},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": SOURCE}
                for index, (query, legend) in enumerate(self.queries)
            ],
        }


def _quantiles(metric: str, where: str) -> tuple[tuple[str, str], ...]:
    buckets = f"sum by (le) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {buckets})", f"p{q * 100:.0f}") for q in (0.5, 0.9, 0.99))


RELEASE = 'namespace=~"$namespace",release=~"$release"'
TRITON = f'job="triton",{RELEASE}'
GATEWAY = f'job="gateway",{RELEASE}'
ANALYZE = f'{GATEWAY},path="/analyze"'

PANELS = (
    Panel(
        "Photos a second",
        "reqps",
        ((f'sum(rate(nv_inference_request_success{{{TRITON},model="car_analyzer"}}[$__rate_interval]))', ""),),
        kind="stat",
        width=6,
    ),
    Panel("Replicas of Triton", "none", ((f"sum(up{{{TRITON}}})", ""),), kind="stat", width=6),
    Panel(
        "Requests that fail",
        "percentunit",
        (
            (
                f'(sum(rate(car_analyzer_requests_total{{{ANALYZE},status=~"5.."}}[$__rate_interval])) or vector(0))'
                f" / sum(rate(car_analyzer_requests_total{{{ANALYZE}}}[$__rate_interval]))",
                "",
            ),
        ),
        kind="stat",
        width=6,
    ),
    Panel("p99 of a request", "s", _quantiles("car_analyzer_request_seconds", ANALYZE)[2:], kind="stat", width=6),
    Panel(
        "Requests by status",
        "reqps",
        ((f"sum by (status) (rate(car_analyzer_requests_total{{{ANALYZE}}}[$__rate_interval]))", "{{status}}"),),
        "400: a photo that cannot be read. 503: too busy, or no Triton. 499: the caller hung up.",
    ),
    Panel(
        "Errors by kind",
        "reqps",
        (
            (
                f"sum by (kind) (rate(car_analyzer_errors_total{{{GATEWAY}}}[$__rate_interval]))",
                "{{kind}}",
            ),
        ),
    ),
    Panel("How long a request takes", "s", _quantiles("car_analyzer_request_seconds", ANALYZE), "Uploads included."),
    Panel("Triton's share of it", "s", _quantiles("car_analyzer_analysis_seconds", GATEWAY)),
    Panel(
        "Waiting before each step",
        "s",
        (
            (
                f'sum by (model) (rate(nv_inference_queue_duration_us{{{TRITON},model!~"car_analyzer.*"}}'
                "[$__rate_interval])) / 1e6 / sum by (model) "
                f'(rate(nv_inference_request_success{{{TRITON},model!~"car_analyzer.*"}}[$__rate_interval]))',
                "{{model}}",
            ),
            (f"car_analyzer:queue_seconds:rate1m{{{TRITON}}}", "all steps {{release}}"),
        ),
        "All steps: what replicas are scaled on.",
    ),
    Panel(
        "Computing in each step",
        "s",
        (
            (
                f'sum by (model) (rate(nv_inference_compute_infer_duration_us{{{TRITON},model!~"car_analyzer.*"}}'
                "[$__rate_interval])) / 1e6 / sum by (model) "
                f'(rate(nv_inference_request_success{{{TRITON},model!~"car_analyzer.*"}}[$__rate_interval]))',
                "{{model}}",
            ),
        ),
    ),
    Panel(
        "Photos in a batch",
        "none",
        (
            (
                f'sum by (model) (rate(nv_inference_count{{{TRITON},model!~"car_analyzer.*"}}[$__rate_interval]))'
                " / sum by (model) "
                f'(rate(nv_inference_exec_count{{{TRITON},model!~"car_analyzer.*"}}[$__rate_interval]))',
                "{{model}}",
            ),
        ),
    ),
    Panel(
        "Failures in Triton",
        "reqps",
        (
            (
                f"sum by (model, reason) (rate(nv_inference_request_failure{{{TRITON}}}[$__rate_interval]))",
                "{{model}} {{reason}}",
            ),
        ),
        "REJECTED: a full queue.",
    ),
    Panel(
        "Waiting in Triton",
        "none",
        ((f"sum by (model) (nv_inference_pending_request_count{{{TRITON}}})", "{{model}}"),),
    ),
    Panel(
        "In flight at the gateway",
        "none",
        ((f"sum by (pod) (car_analyzer_requests_in_flight{{{GATEWAY}}})", "{{pod}} requests"),),
    ),
    Panel(
        "Photos held by the gateway",
        "bytes",
        ((f"sum by (pod) (car_analyzer_held_bytes{{{GATEWAY}}})", "{{pod}}"),),
        "Near --max-held-bytes, uploads wait.",
    ),
    Panel(
        "Answers",
        "percentunit",
        (
            (
                f"sum by (head, label) (rate(car_analyzer_answers_total{{{GATEWAY}}}[$__rate_interval]))"
                " / on (head) group_left () "
                f"sum by (head) (rate(car_analyzer_answers_total{{{GATEWAY}}}[$__rate_interval]))",
                "{{head}} {{label}}",
            ),
        ),
        "A share that shifts: other photos, or another model.",
        maximum=1,
    ),
    Panel(
        "Confidence",
        "percentunit",
        (
            (
                f"sum by (head) (rate(car_analyzer_confidence_sum{{{GATEWAY}}}[$__rate_interval]))"
                f" / sum by (head) (rate(car_analyzer_confidence_count{{{GATEWAY}}}[$__rate_interval]))",
                "{{head}}",
            ),
        ),
        "The mean. It sinks where photos are not like those of the training.",
        maximum=1,
    ),
    Panel(
        "Drift of photos",
        "none",
        ((f"max by (statistic) (car_analyzer_drift_score{{{GATEWAY}}})", "{{statistic}}"),),
        "Only with --drift. From 1 on, photos are not like those that the model was checked on.",
    ),
    Panel(
        "Sizes of photos",
        "bytes",
        _quantiles("car_analyzer_photo_bytes", GATEWAY),
    ),
    Panel(
        "Gateway memory and processor",
        "none",
        (
            (f"process_resident_memory_bytes{{{GATEWAY}}} / 1e6", "{{pod}} MB"),
            (f"rate(process_cpu_seconds_total{{{GATEWAY}}}[$__rate_interval])", "{{pod}} cores"),
        ),
    ),
    Panel(
        "GPU busy",
        "percentunit",
        ((f"nv_gpu_utilization{{{TRITON}}}", "{{gpu_uuid}}"),),
        maximum=1,
    ),
    Panel(
        "GPU memory",
        "percentunit",
        ((f"nv_gpu_memory_used_bytes{{{TRITON}}} / nv_gpu_memory_total_bytes{{{TRITON}}}", "{{gpu_uuid}}"),),
        maximum=1,
    ),
)


def _variable(label: str, series: str) -> dict[str, Any]:
    """A choice among the values that a label has in a series."""
    return {
        "name": label,
        "type": "query",
        "label": label.capitalize(),
        "datasource": SOURCE,
        "query": {"query": f"label_values({series}, {label})", "refId": label},
        "includeAll": True,
        # Without an operator there is no such label: what is missing matches, too.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def render() -> str:
    """The dashboard as JSON."""
    placed, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, start=1):
        shape = panel.json(number, x, y)
        placed.append(shape)
        x += panel.width
        if x + panel.width > COLUMNS:
            x, y = 0, y + shape["gridPos"]["h"]
    board = {
        "title": "car-analyzer",
        "uid": "car-analyzer",
        "schemaVersion": 39,
        "tags": ["car-analyzer", "triton"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"},
                _variable("namespace", 'up{job="triton"}'),
                _variable("release", 'up{job="triton",namespace=~"$namespace"}'),
            ]
        },
        "panels": placed,
    }
    return json.dumps(board, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
