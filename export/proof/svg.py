"""Small charts as SVG text: bars, and curves or dots on two axes. No library, no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
COLORS = ("#2f6f9f", "#c2622d", "#5a8f3c", "#8a5aa8")
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 30, 46  # margins of a plot
_ROW, _LABEL = 24, 130  # of bars: height of one, room for its name
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#e6e6e6}"
    ".title{font-weight:bold}"
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """What is along one side of a plot."""

    label: str
    low: float
    high: float
    log: bool = False  # low > 0 then

    def at(self, value: float) -> float:
        """Share of the way from low to high, 0 to 1; values beyond are clipped."""
        low, high, v = self.low, self.high, value
        if self.log:
            low, high, v = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return min(1.0, max(0.0, (v - low) / ((high - low) or 1.0)))

    @property
    def ticks(self) -> list[float]:
        """Round numbers along the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            step = max(1, (last - first) // 6)
            return [10.0**power for power in range(first, last + 1, step)]
        span = (self.high - self.low) or 1.0
        unit = 10 ** math.floor(math.log10(span / 4))
        step = next(unit * n for n in (1, 2, 5, 10) if span / (unit * n) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(n * step, 12) for n in range(first, last + 1)]


def bars(title: str, values: Mapping[str, float], unit: str = "") -> str:
    """One horizontal bar for each name; values must not be negative."""
    most = max(values.values(), default=0.0) or 1.0
    height, room = _TOP + _ROW * len(values) + 8, WIDTH - _LABEL - 90
    parts = []
    for i, (name, value) in enumerate(values.items()):
        top = _TOP + i * _ROW
        width = room * value / most
        parts += [
            _text(_LABEL - 8, top + 15, name, anchor="end"),
            f'<rect x="{_LABEL}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 8}" '
            f'fill="{COLORS[0]}"/>',
            _text(_LABEL + width + 6, top + 15, f"{value:.3g} {unit}".strip()),
        ]
    return _svg(title, height, parts)


def plot(title: str, x: Axis, y: Axis, series: Mapping[str, Points], *, dots: bool = False) -> str:
    """One curve for each name, or its points as dots."""
    parts = [*_grid(x, y)]
    for i, (name, points) in enumerate(series.items()):
        color = COLORS[i % len(COLORS)]
        places = [_place(x, y, point) for point in points]
        if dots:
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}" fill-opacity="0.5"/>'
                for a, b in places
            ]
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
            )
        at = _LEFT + 12 + 150 * i
        parts.append(f'<rect x="{at}" y="{_TOP - 4}" width="10" height="10" fill="{color}"/>')
        parts.append(_text(at + 15, _TOP + 5, name))
    return _svg(title, HEIGHT, parts)


def _place(x: Axis, y: Axis, point: tuple[float, float]) -> tuple[float, float]:
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - 16 - _BOTTOM
    return _LEFT + across * x.at(point[0]), HEIGHT - _BOTTOM - up * y.at(point[1])


def _grid(x: Axis, y: Axis) -> list[str]:
    """Axes, ticks and their labels."""
    left, bottom = _place(x, y, (x.low, y.low))
    right, top = _place(x, y, (x.high, y.high))
    parts = []
    for value in y.ticks:
        _, at = _place(x, y, (x.low, value))
        parts.append(_line("grid", (left, at), (right, at)))
        parts.append(_text(left - 6, at + 4, _number(value), anchor="end"))
    for value in x.ticks:
        at, _ = _place(x, y, (value, y.low))
        parts.append(_line("grid", (at, bottom), (at, top)))
        parts.append(_text(at, bottom + 16, _number(value), anchor="middle"))
    parts += [
        _line("axis", (left, bottom), (right, bottom)),
        _line("axis", (left, bottom), (left, top)),
        _text((left + right) / 2, HEIGHT - 10, x.label, anchor="middle"),
    ]
    middle = (top + bottom) / 2
    turned = f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
    return [*parts, f"{turned}{escape(y.label)}</text>"]


def _number(value: float) -> str:
    """Short enough for the margin: 0.001, but 1e-4."""
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 0.001 else f"{value:g}"


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (a, b), (c, d) = start, end
    return f'<line class="{kind}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<text class="title" x="8" y="16">{escape(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{head}{"".join(parts)}</svg>'
    )
