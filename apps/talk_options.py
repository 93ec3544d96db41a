"""The options of `antiphon talk` that are its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import within

RATES_HZ = range(8_000, 192_001)
ENDPOINTS_MS = range(200, 10_001)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Devices, turns, and what is kept."""
    parser.add_argument(
        "--text-reply", action="store_true", help="print written replies; needs no loudspeaker"
    )
    _add_devices(parser.add_argument_group("devices", "Without options: the system's defaults."))
    _add_turns(parser.add_argument_group("turns"))
    group = parser.add_argument_group("keeping")
    group.add_argument(
        "--save", type=Path, metavar="DIR", help="keep sound, turns and the conversation there"
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the conversation kept there, and keep the rest there too, or in --save",
    )


def _add_devices(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--list-devices", action="store_true", help="print them and exit")
    group.add_argument("--input", metavar="DEV", help="microphone: number or part of its name")
    group.add_argument("--output", metavar="DEV", help="loudspeaker: number or part of its name")
    group.add_argument(
        "--device-rate",
        type=within(RATES_HZ, "Hz"),
        metavar="HZ",
        help="run both at this rate and convert here (default: the model's, if they can)",
    )
    group.add_argument(
        "--no-aec", action="store_true", help="with headphones: there is no echo to cancel"
    )


def _add_turns(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--push-to-talk", action="store_true", help="Enter starts and ends your turn"
    )
    group.add_argument(
        "--endpoint-ms",
        type=within(ENDPOINTS_MS, "ms"),
        metavar="MS",
        help="silence that ends your turn (default: 900)",
    )
    group.add_argument(
        "--no-speculation",
        action="store_true",
        help="prepare a reply only once your turn has ended, which is slower",
    )
