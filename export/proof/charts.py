"""The pictures of an evaluation, by name."""

from __future__ import annotations

import numpy as np

from .dialogues import SPEECH
from .report import HEADS, Report
from .svg import Axis, Points, bars, plot

_FLOOR, _CEILING = 1e-8, 10.0  # of KL in nats, on logarithmic axes
_POINTS = 200  # of a curve


def charts(report: Report) -> dict[str, str]:
    """SVG texts by file stem; only those there are numbers for."""
    found = {"bytes": _bytes(report)}
    ratios = {n: e.sqnr_db for n, e in report.engines.items() if e.sqnr_db is not None}
    if ratios:
        found["engines"] = bars(
            "Signal to quantization noise of each engine",
            {name: max(0.0, value) for name, value in ratios.items()},
            "dB",
        )
    kl = {head: report.values(head, lambda row: row.kl) for head in HEADS}
    kl = {head: rows for head, rows in kl.items() if any(rows)}
    if report.reference and kl:
        found["kl"] = _kl({head: np.concatenate(rows) for head, rows in kl.items()})
        found["drift"] = _drift(kl)
    if report.reference and (ends := _ends(report)):
        found["ends"] = ends
    if apart := [e.mel_distance_db for e in report.exchanges if e.mel_distance_db is not None]:
        found["voice"] = _distances(apart)
    return found


def _bytes(report: Report) -> str:
    values = {}
    for who, subject in (("", report.bundle), ("reference ", report.reference)):
        if subject:
            values[f"{who}whole bundle"] = subject.nbytes / 1e6
            values[f"{who}speaking step"] = subject.step_bytes / 1e6
    return bars("Size, and weights read for each row of speech", values, "MB")


def _kl(rows: dict[str, np.ndarray]) -> str:
    """Share of rows that are worse than x."""
    series: dict[str, Points] = {}
    for head, values in rows.items():
        ordered = np.sort(values)
        chosen = np.unique(np.linspace(0, len(ordered) - 1, _POINTS).astype(int))
        series[f"{head} head"] = [
            (max(_FLOOR, float(ordered[i])), 100 * (1 - i / len(ordered))) for i in chosen
        ]
    x = Axis("KL of a row, nats", _FLOOR, _CEILING, log=True)
    return plot("Rows further apart than …", x, Axis("% of rows", 0, 100), series)


def _drift(rows: dict[str, list[list[float]]]) -> str:
    """Mean KL by place in the reply: errors that feed on themselves rise."""
    series: dict[str, Points] = {}
    for head, dialogues in rows.items():
        longest = max(map(len, dialogues))
        means = [float(np.mean([d[i] for d in dialogues if i < len(d)])) for i in range(longest)]
        series[f"{head} head"] = [(i + 1, max(_FLOOR, value)) for i, value in enumerate(means)]
    last = max(len(points) for points in series.values())
    y = Axis("mean KL, nats", _FLOOR, _CEILING, log=True)
    return plot("Along the reply", Axis("row of the reply", 1, max(2, last)), y, series)


def _ends(report: Report) -> str | None:
    """Probability of ending: where the reference ended, and where it went on."""
    series: dict[str, Points] = {}
    for what, last in (("where it ended", True), ("where it went on", False)):
        rows = [r for e in report.exchanges for r in e.rows if r.head == SPEECH]
        series[what] = [(r.score.end, r.score.end_measured) for r in rows if r.last is last][:2000]
    if not any(series.values()):
        return None
    x, y = (Axis(f"probability to the {who}", 0, 1) for who in ("reference", "bundle"))
    return plot("End of speech", x, y, series, dots=True)


def _distances(values: list[float]) -> str:
    ordered = sorted(values)
    points = [(float(i + 1), value) for i, value in enumerate(ordered)]
    x = Axis("reply, closest first", 1, max(2, len(ordered)))
    y = Axis("mel distance, dB", 0, max(ordered) * 1.1 or 1.0)
    return plot("Voice: the same codes, said by both", x, y, {"replies": points})
