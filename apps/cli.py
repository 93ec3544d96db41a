"""The `antiphon` command: the one place where an error becomes a line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. Results go to stdout, everything else to
stderr. Nothing heavy is imported before a sub-command runs, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
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


def _of(module: str, function: str = "run") -> Callable[[argparse.Namespace], int]:
    """A function of a module beside this one, imported when the command runs."""

    def command(args: argparse.Namespace) -> int:
        code: int = getattr(import_module(f".{module}", __package__), function)(args)
        return code

    return command


COMMANDS = {
    "reply": _of("reply"),
    "talk": _of("talk"),
    "demo": _of("demo"),
    "devices": _of("devices"),
    "info": _of("info"),
    "verify": _of("info", "verify"),
    "voice": _of("voice"),
    "inspect": _of("inspect"),
    "export": _of("export"),
    "calibrate": _of("calibrate"),
    "eval": _of("evaluate"),
    "sensitivity": _of("sensitivity"),
    "analyze": _of("analyze"),
}


if __name__ == "__main__":
    sys.exit(main())
