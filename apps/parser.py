"""The command line: every sub-command and option, and what argparse cannot say about them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUNDLE_VARIABLE = "ANTIPHON_BUNDLE"
WEIGHTS = ("fp32", "fp16", "int8", "int8_row", "int4_b32", "int4_b64", "int4_b128")

Parsers = Any  # argparse keeps the type of add_subparsers() to itself


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `command` names the sub-command. Exits with 2 after a mistake."""
    parser = argparse.ArgumentParser(
        prog="antiphon",
        description="Spoken conversation with MOSS-Speech on this machine.",
        epilog="A model is a bundle: a folder that `antiphon export` wrote. Unless one is named, "
        f"the folder in {BUNDLE_VARIABLE} is used, else the small bundled one.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (_reply, _talk, _demo, _devices, _info, _verify, _export):
        add(commands)
    args, rest = parser.parse_known_args(argv)
    # argparse gives up on file names after an option that follows other file names
    if rest and args.command == "reply" and not any(word.startswith("-") for word in rest):
        args.files += rest
        rest = []
    if rest:
        args.parser.error(f"unknown: {' '.join(rest)}")
    if args.command == "reply":
        _check_files(args)
    return args


def _check_files(args: argparse.Namespace) -> None:
    """A text replaces QUESTION.wav, a text reply REPLY.wav; sets `question` and `reply`."""
    wanted = [] if args.text is not None else ["QUESTION.wav"]
    wanted += [] if args.text_reply else ["REPLY.wav"]
    if len(args.files) != len(wanted):
        names = " and ".join(wanted) or "no file"
        got = " ".join(args.files) or "none"
        args.parser.error(f"with these options expected {names}, got {got}")
    files = iter(map(Path, args.files))
    args.question = None if args.text is not None else next(files)
    args.reply = None if args.text_reply else next(files)


class _Version(argparse.Action):
    """Looks the version up only when asked: that alone takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("antiphon")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"antiphon {found}")
        parser.exit()


def _command(commands: Parsers, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(command=name, parser=parser)
    return parser


def _reply(commands: Parsers) -> None:
    parser = _command(commands, "reply", "Answer one question, spoken or written.")
    parser.usage = (
        "antiphon reply [options] QUESTION.wav REPLY.wav\n"
        "       antiphon reply [options] QUESTION.wav --text-reply\n"
        '       antiphon reply [options] --text "QUESTION" REPLY.wav\n'
        '       antiphon reply [options] --text "QUESTION" --text-reply'
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="QUESTION.wav: wav or flac, 8 to 192 kHz, first channel; REPLY.wav: written at 24 kHz",
    )
    parser.add_argument("--text", type=_text, metavar="QUESTION", help="ask this, not a recording")
    parser.add_argument("--text-reply", action="store_true", help="print a written reply")
    parser.add_argument(
        "--fast", action="store_true", help="hear the recording at once, not as fast as it plays"
    )
    _add_model(parser)
    _add_sampling(parser)
    _add_json(parser)


def _talk(commands: Parsers) -> None:
    about = "Talk with the model: Enter starts and ends your turn."
    parser = _command(commands, "talk", about)
    parser.add_argument("--input", metavar="DEV", help="microphone: number or part of its name")
    parser.add_argument("--output", metavar="DEV", help="loudspeaker: number or part of its name")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep every turn there as wav")
    _add_model(parser)
    _add_sampling(parser)


def _demo(commands: Parsers) -> None:
    parser = _command(commands, "demo", "Ask the bundled model one of its recorded questions.")
    parser.add_argument("--question", metavar="N|NAME", help="which one, see --list")
    parser.add_argument("--list", action="store_true", help="print the questions and exit")
    parser.add_argument(
        "--reply",
        type=Path,
        default=Path("antiphon-demo.wav"),
        metavar="REPLY.wav",
        help="where the reply goes (default: %(default)s)",
    )
    _add_model(parser)
    _add_sampling(parser)
    _add_json(parser)


def _devices(commands: Parsers) -> None:
    _add_json(_command(commands, "devices", "List microphones and loudspeakers."))


def _info(commands: Parsers) -> None:
    parser = _command(commands, "info", "Say what a bundle holds.")
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE")
    _add_json(parser)


def _verify(commands: Parsers) -> None:
    about = "Check every file of a bundle: hashes, sizes, inputs and outputs, external data."
    parser = _command(commands, "verify", about)
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE")


def _export(commands: Parsers) -> None:
    parser = _command(commands, "export", "Make a bundle from a checkpoint.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to read")
    parser.add_argument("output", type=Path, metavar="BUNDLE", help="folder to make")
    parser.add_argument("--weights", choices=WEIGHTS, default="int8")
    parser.add_argument("--target", choices=("cpu",), default="cpu")
    parser.add_argument(
        "--noise-frames",
        type=_count,
        default=15_000,
        metavar="N",
        help="the longest voice prompt and reply, 50 frames a second (default: 15000)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the model")
    parser.add_argument("--voice", metavar="NAME", help="of the reply (default: the first)")
    parser.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="of each engine (default: 1)"
    )
    parser.add_argument(
        "--capacity-rows",
        type=_count,
        metavar="N",
        help="what is remembered of a conversation; a second of speech takes 12.5 rows",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling", "What is not given, the bundle says.")
    group.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: 0")
    group.add_argument("--greedy", action="store_true", help="always take the likeliest")
    group.add_argument("--temperature", type=_positive, metavar="T")
    group.add_argument("--top-p", type=_share, metavar="P")
    group.add_argument("--top-k", type=_count, metavar="K")
    group.add_argument("--repetition-penalty", type=_positive, metavar="P")
    group.add_argument(
        "--max-tokens",
        type=_count,
        metavar="N",
        help="most tokens of a reply; a second of speech has 12.5",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _text(word: str) -> str:
    if not word.strip():
        raise argparse.ArgumentTypeError("an empty question")
    return word


def _count(word: str) -> int:
    return _at_least(1, word)


def _seed(word: str) -> int:
    return _at_least(0, word)


def _at_least(least: int, word: str) -> int:
    try:
        number = int(word)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {word!r}")
    return number


def _share(word: str) -> float:
    if (number := _positive(word)) > 1:
        raise argparse.ArgumentTypeError(f"expected at most 1, got {word}")
    return number


def _positive(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 100, got {word!r}")
    return number
