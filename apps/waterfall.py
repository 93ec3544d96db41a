"""What a turn cost, in a few lines: each moment after the end of the question, then the sum."""

from __future__ import annotations

from antiphon.runtime.metrics import TurnMetrics

MOMENTS = {
    "prefilled": "question understood",
    "first_code": "first token",
    "first_mel": "first spectrum",
    "first_sample": "first sound",
    "reply_end": "reply complete",
}
WIDTH = 24  # of the bar


def lines(metrics: TurnMetrics) -> list[str]:
    """One line for each moment that came, then seconds and the real-time factor."""
    moments = metrics.waterfall_ms
    longest = max(moments.values(), default=0.0)
    found = [
        f"  {MOMENTS[name]:<20} {ms:8.1f} ms  {bar(ms / longest if longest else 0.0)}"
        for name, ms in moments.items()
    ]
    if found:
        found.insert(0, "after the end of the question:")
    return [*found, _sums(metrics)]


def bar(share: float) -> str:
    """A bar of that share of the width."""
    return "─" * round(WIDTH * share) + "•"


def _sums(metrics: TurnMetrics) -> str:
    parts = [f"heard {metrics.heard_s:.2f} s"] if metrics.heard_s else []
    parts += [f"spoken {metrics.spoken_s:.2f} s"] if metrics.spoken_s else []
    parts += [f"worked {sum(metrics.seconds.values()):.2f} s"]
    if metrics.rtf is not None:
        parts += [f"real-time factor {metrics.rtf:.2f}"]
    return ", ".join(parts)
