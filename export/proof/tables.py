"""An evaluation as tables of words: what the terminal and the page show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .heads import interval
from .report import HEADS, Report
from .sound import PACKAGE

_NAMES = {"speech": "speech head", "text": "text head"}


@dataclass(frozen=True, slots=True)
class Table:
    """Cells by row; the first column names things."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(report: Report) -> list[Table]:
    """Whatever was measured."""
    found = [_sizes(report)]
    if report.reference:
        found += [_heads(report), _engines(report)]
    return [*found, _replies(report), _voice(report)]


def _sizes(report: Report) -> Table:
    rows = [
        [s.name, s.weights, s.target, _mb(s.nbytes), _mb(s.step_bytes)]
        for s in (report.bundle, report.reference)
        if s
    ]
    return Table("Bundles", ["", "weights", "target", "size", "read for a row of speech"], rows)


def _heads(report: Report) -> Table:
    rows = []
    for head in HEADS:
        m = report.head(head)
        if m["rows"]:
            rows.append(
                [
                    _NAMES[head],
                    f"{m['rows']:,}",
                    _between(m["agreement"], 100, " %"),
                    _between(m["kl"], 1, ""),
                    f"{m['kl_median']:.2g}",
                    f"{m['kl_p99']:.2g}",
                ]
            )
    if codes := interval(report.codes):
        count = sum(map(len, report.codes))
        plain = {"mean": codes.mean, "low": codes.low, "high": codes.high}
        rows.append(["codes heard", f"{count:,}", _between(plain, 100, " %"), "", "", ""])
    titles = ["", "rows", "same (95 %)", "KL, nats (95 %)", "median KL", "99th percentile"]
    note = (
        "Both read the reference's replies; a row counts where the head would have drawn the next "
        "id. Codes: both hear the same recordings."
    )
    return Table("Heads and codes", titles, rows, note)


def _engines(report: Report) -> Table:
    rows = []
    for name, e in report.engines.items():
        if e.calls:
            rows.append(
                [
                    name,
                    report.bundle.schemes[name],
                    _mb(report.bundle.engine_bytes[name]),
                    "" if e.codes else _number(e.sqnr_db, ".1f", " dB"),
                    "" if e.codes else _number(e.cosine, ".6f"),
                    f"{e.agreement:.2%} same codes" if e.codes else f"{e.largest:.3g}",
                    f"{e.calls:,}",
                ]
            )
    head = ["engine", "weights", "size", "SQNR", "cosine", "largest error", "calls"]
    note = "Each engine is given what the reference's got, and keeps its own keys and values."
    return Table("Engines, one by one", head, rows, note)


def _replies(report: Report) -> Table:
    rows = []
    for head in HEADS:
        m = report.replies(head)
        if not m["replies"]:
            continue
        both = [("bundle", 1), ("reference", 0)] if report.reference else [("bundle", 0)]
        for who, i in both:
            rows.append(
                [
                    "spoken" if head == "speech" else "written",
                    who,
                    f"{m['unfinished'][i]} of {m['replies']}",
                    f"{m['rows'][i]:.1f}",
                    _number(m["end_at_the_end"][i], ".4f"),
                    _number(m["end_before"][i], ".2g"),
                    _number(m["same_reply"], ".1%") if who == "bundle" and len(both) > 1 else "",
                ]
            )
    titles = [
        "replies",
        "by",
        "ran to the limit",
        "rows",
        "P(end) at the end",
        "before",
        "the same",
    ]
    note = (
        "Limits and rows: each model's own replies. P(end): probability of ending where the "
        "reference ended, and in the rows before, along the reference's replies."
    )
    return Table("How replies end", titles, rows, note)


def _voice(report: Report) -> Table:
    voice, rows = report.voice, []
    if apart := voice["mel_distance_db"]:
        rows.append(["mel distance", _between(apart, 1, " dB"), ""])
    for what, pair in (voice["opinion"] or {}).items():
        compared = f"reference {pair[0]:.2f}" if report.reference else ""
        rows.append([f"DNSMOS {what}", f"{pair[1]:.2f}", compared])
    note = "Both say the codes of the reference's replies."
    if not report.listener:
        note += f" DNSMOS was not measured: it takes the package {PACKAGE}."
    else:
        heard = sum(e.opinion is not None for e in report.exchanges)
        note += f" DNSMOS: mean of the first {heard} spoken replies."
    return Table("Voice", ["", "", ""], rows, note)


def _between(m: dict[str, Any], scale: float, unit: str) -> str:
    mean, low, high = (scale * m[key] for key in ("mean", "low", "high"))
    form = ".2f" if scale == 100 else ".3g"
    return f"{mean:{form}}{unit} ({low:{form}} … {high:{form}})"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _mb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
