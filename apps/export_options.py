"""The options of `antiphon export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import count


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is read, what is made of it, and how."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to read")
    parser.add_argument(
        "output",
        type=Path,
        metavar="BUNDLE",
        help="folder to make; a bundle there is replaced, added voices too",
    )
    _add_storage(parser)
    parser.add_argument("--target", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--voice",
        type=_voice,
        action="append",
        default=[],
        metavar="NAME=WAV",
        help="make a voice of this recording, 3 to 10 s of one person speaking; the first one is "
        "the bundle's default; may be given several times",
    )
    parser.add_argument(
        "--noise-frames",
        type=count,
        default=15_000,
        metavar="N",
        help="the longest voice prompt and reply, 50 frames a second (default: 15000)",
    )
    _add_work(parser)


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        default="int8",
        metavar="RECIPE",
        help="how weights are stored: int8, int4, int4-quality, fp16, fp32, fp8 (target cuda), a "
        "scheme such as int4_b64, or a file NAME.toml of rules (default: int8)",
    )
    parser.add_argument(
        "--statistics",
        type=Path,
        metavar="DIR",
        help="of `antiphon calibrate`; rules with gptq or awq, as in int4-quality, and --kv int8 "
        "need them",
    )
    parser.add_argument(
        "--kv",
        choices=("float32", "int8"),
        default="float32",
        help="how a conversation keeps keys and values; int8 takes a quarter of the memory, and "
        "--statistics",
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=count,
        default=0,
        metavar="N",
        help="threads that convert weights (default: one for each processor)",
    )
    parser.add_argument(
        "--no-parity",
        dest="parity",
        action="store_false",
        help="do not measure the engines against the reference, which takes minutes and memory",
    )


def _voice(word: str) -> tuple[str, Path]:
    name, equals, path = word.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=WAV, got {word!r}")
    return name, Path(path)
