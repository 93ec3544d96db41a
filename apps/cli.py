"""The `antiphon` command: the one place where an error becomes a line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. Results go to stdout, everything else to
stderr. Nothing heavy is imported before a sub-command runs, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from antiphon.runtime.errors import AntiphonError, BundleError

from .parser import BUNDLE_VARIABLE, parse

FAILED, INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    args = parse(argv)
    try:
        if getattr(args, "bundle", "") is None:
            args.bundle = default_bundle()
        if args.verbose:
            _log_to_stderr()
        code = COMMANDS[args.command](args)
        _flush()
    except BrokenPipeError:  # such as `antiphon info | head -1`: nobody listens
        return FAILED
    except (AntiphonError, OSError) as error:
        print(f"antiphon: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:  # may say what is kept
        print("; ".join(["antiphon: interrupted", *map(str, error.args)]), file=sys.stderr)
        return INTERRUPTED
    return code


def default_bundle() -> Path:
    """The folder in ANTIPHON_BUNDLE, else the one shipped with the package."""
    if named := os.environ.get(BUNDLE_VARIABLE):
        return Path(named)
    from importlib.resources import files

    path = Path(str(files("antiphon"))) / "nano_bundle"
    if not (path / "manifest.json").is_file():
        raise BundleError(
            "this installation has no bundled model; name a folder that `antiphon export` wrote "
            f"with --bundle DIR, or in the environment variable {BUNDLE_VARIABLE}"
        )
    return path


def _flush() -> None:
    """Write what waits for stdout here, so that an error shows here, and only here."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def _reply(args: argparse.Namespace) -> int:
    from . import reply

    return reply.run(args)


def _talk(args: argparse.Namespace) -> int:
    from . import talk

    return talk.run(args)


def _demo(args: argparse.Namespace) -> int:
    from . import demo

    return demo.run(args)


def _devices(args: argparse.Namespace) -> int:
    from . import devices

    return devices.run(args)


def _info(args: argparse.Namespace) -> int:
    from . import info

    return info.run(args)


def _verify(args: argparse.Namespace) -> int:
    from . import info

    return info.verify(args)


def _voice(args: argparse.Namespace) -> int:
    from . import voice

    return voice.run(args)


def _inspect(args: argparse.Namespace) -> int:
    from . import inspect

    return inspect.run(args)


def _export(args: argparse.Namespace) -> int:
    from . import export

    return export.run(args)


def _calibrate(args: argparse.Namespace) -> int:
    from . import calibrate

    return calibrate.run(args)


def _eval(args: argparse.Namespace) -> int:
    from . import evaluate

    return evaluate.run(args)


def _sensitivity(args: argparse.Namespace) -> int:
    from . import sensitivity

    return sensitivity.run(args)


def _analyze(args: argparse.Namespace) -> int:
    from . import analyze

    return analyze.run(args)


COMMANDS = {
    "reply": _reply,
    "talk": _talk,
    "demo": _demo,
    "devices": _devices,
    "info": _info,
    "verify": _verify,
    "voice": _voice,
    "inspect": _inspect,
    "export": _export,
    "calibrate": _calibrate,
    "eval": _eval,
    "sensitivity": _sensitivity,
    "analyze": _analyze,
}


if __name__ == "__main__":
    sys.exit(main())
