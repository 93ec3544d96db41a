"""The command line: every sub-command and option, and what argparse cannot say about them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .analyze_options import ABOUT as EXPERIMENTS
from .analyze_options import add_options as add_analyze_options
from .calibrate_options import add_options as add_calibrate_options
from .export_options import add_options as add_export_options
from .option_types import add_threads, count, positive, seed, share
from .proof_options import add_eval_options, add_sensitivity_options
from .talk_options import add_options as add_talk_options

BUNDLE_VARIABLE = "ANTIPHON_BUNDLE"

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
    talking = (_reply, _talk, _demo, _devices, _info, _verify, _voice)
    for add in (*talking, _inspect, _export, _calibrate, _proof, _analyze):
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
    about = "Talk with the model: speak, pause, and it answers; speak again to interrupt it."
    parser = _command(commands, "talk", about)
    add_talk_options(parser)
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


def _voice(commands: Parsers) -> None:
    voice = commands.add_parser("voice", help="List, add and remove the voices of a bundle.")
    actions = voice.add_subparsers(required=True, metavar="ACTION", title="actions")
    for action, about in (
        ("list", "List the voices of a bundle."),
        ("add", "Make a voice of a recording and add it to a bundle."),
        ("remove", "Remove a voice from a bundle."),
        ("default", "Choose the voice that speaks when none is named."),
    ):
        parser = _command(actions, action, about)
        parser.set_defaults(command="voice", action=action)
        if action != "list":
            parser.add_argument("name", metavar="NAME", help="of the voice")
        parser.add_argument("--bundle", type=Path, metavar="DIR", help="the model")
        if action == "list":
            _add_json(parser)
        if action == "add":
            _add_recording(parser)


def _add_recording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recording",
        type=Path,
        metavar="RECORDING",
        help="one person speaking, 3 to 10 s; wav or flac, 16 kHz or more, first channel",
    )
    parser.add_argument("--default", action="store_true", help="speak so when no voice is named")
    add_threads(parser)


def _inspect(commands: Parsers) -> None:
    about = "Say what a checkpoint holds and lacks, and which graphics card it would fit."
    parser = _command(commands, "inspect", about)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to look at")
    _add_json(parser)


def _export(commands: Parsers) -> None:
    parser = _command(commands, "export", "Make a bundle from a checkpoint.")
    add_export_options(parser)


def _calibrate(commands: Parsers) -> None:
    about = "Watch a checkpoint answer questions, for `antiphon export` to round its weights by."
    add_calibrate_options(_command(commands, "calibrate", about))


def _proof(commands: Parsers) -> None:
    about = "Measure what a bundle has lost against its reference."
    add_eval_options(_command(commands, "eval", about))
    about = "Say which layers of a checkpoint lose most when quantized, one at a time."
    add_sensitivity_options(_command(commands, "sensitivity", about))


def _analyze(commands: Parsers) -> None:
    about = "Experiments on a checkpoint: speech against text in its layers, words in its codes."
    analyze = commands.add_parser("analyze", help=about, description=about)
    experiments = analyze.add_subparsers(required=True, metavar="EXPERIMENT", title="experiments")
    for experiment, about in EXPERIMENTS.items():
        parser = _command(experiments, experiment, about)
        parser.set_defaults(command="analyze", experiment=experiment)
        add_analyze_options(parser, experiment)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the model")
    parser.add_argument("--voice", metavar="NAME", help="of the reply (default: the first)")
    add_threads(parser)
    parser.add_argument(
        "--capacity-rows",
        type=count,
        metavar="N",
        help="what is remembered of a conversation; a second of speech takes 12.5 rows",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "sampling",
        "What is not given, the bundle says. A temperature, top-p or top-k makes it draw.",
    )
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")
    group.add_argument("--greedy", action="store_true", help="always take the likeliest")
    group.add_argument("--temperature", type=positive, metavar="T")
    group.add_argument("--top-p", type=share, metavar="P")
    group.add_argument("--top-k", type=count, metavar="K")
    group.add_argument("--repetition-penalty", type=positive, metavar="P")
    group.add_argument(
        "--max-tokens",
        type=count,
        metavar="N",
        help="most tokens of a reply; a second of speech has 12.5",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _text(word: str) -> str:
    if not word.strip():
        raise argparse.ArgumentTypeError("an empty question")
    return word
