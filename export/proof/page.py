"""An evaluation as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .charts import charts
from .report import Report
from .tables import Table, tables

_STYLE = """
body{font:15px/1.5 sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}
th,td{padding:.2em .9em .2em 0;text-align:left;border-bottom:1px solid #ddd;white-space:nowrap}
td:not(:first-child){font-variant-numeric:tabular-nums}
.charts{display:flex;flex-wrap:wrap;gap:1em}svg{max-width:100%;height:auto}
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"{report.bundle.name} ({report.bundle.weights})"
    if report.reference:
        title += f" against {report.reference.name} ({report.reference.weights})"
    body = [f"<h1>{escape(title)}</h1>"]
    body.append(f"<p>{report.questions} questions, {len(report.exchanges)} dialogues.</p>")
    body.append(f'<div class="charts">{"".join(charts(report).values())}</div>')
    for table in tables(report):
        body += [f"<h2>{escape(table.title)}</h2>", _table(table)]
        body += [f"<p>{escape(table.note)}</p>"] if table.note else []
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _table(table: Table) -> str:
    head = _row(table.head, "th")
    return f"<table>{head}{''.join(_row(row, 'td') for row in table.rows)}</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
